"""The QR code of an order: merchant-presented, dynamic, its order id signed by the acquirer.

Template 26 names network, acquirer and order, 80 where to pay, 81 has the Ed25519 signature of the
acquirer's message key, which every member finds on chain, over what the code says:

    countersign/order/1 || 0x1f || acquirer || 0x1f || order id || 0x1f || currency || amount || url
"""

from __future__ import annotations

import base64
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from nodes.acquiring.online.model import Order
from nodes.emv import qr
from nodes.emv.qr import QrMalformed
from nodes.money import CURRENCIES, from_numeric, numeric_code

#: The globally unique identifier in the templates of this network.
GUID = "csgn"
_CITY = "-"
_MAX_NAME = 25


class ScannedOrder(NamedTuple):
    """What a wallet reads off an order's code. Amount in minor units."""

    acquirer: str
    order_id: str
    amount: int
    currency: str
    merchant_name: str
    pay_url: str
    signature: bytes


def order_code(order: Order, acquirer: str, pay_url: str, seed: bytes) -> str:
    """The text of the QR code. `seed`: the acquirer's message key."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    content = _signed(acquirer, order.order_id, order.currency, order.amount, pay_url)
    signature = base64.urlsafe_b64encode(key.sign(content)).decode().rstrip("=")
    whole, minor = divmod(order.amount, 10 ** CURRENCIES[order.currency][1])
    digits = CURRENCIES[order.currency][1]
    amount = f"{whole}.{minor:0{digits}d}" if digits else str(whole)
    return qr.encode_merchant(
        [
            ("01", "12"),
            ("26", qr.encode_fields([("00", GUID), ("01", acquirer), ("02", order.order_id)])),
            ("52", order.mcc),
            ("53", numeric_code(order.currency)),
            ("54", amount),
            ("58", order.country),
            ("59", order.merchant_name[:_MAX_NAME]),
            ("60", _CITY),
            ("62", qr.encode_fields([("05", order.order_id)])),
            ("80", qr.encode_fields([("00", GUID), ("01", pay_url)])),
            ("81", qr.encode_fields([("00", GUID), ("01", signature)])),
        ]
    )


def read_order_code(scanned: str) -> ScannedOrder:
    """What the code says; QrMalformed if it is no order of this network. Not yet verified."""
    found = qr.decode_merchant(scanned)
    try:
        account, place, sealed = (dict(qr.decode_fields(found[tag])) for tag in ("26", "80", "81"))
        if not account["00"] == place["00"] == sealed["00"] == GUID:
            raise QrMalformed("the code is of another network")
        currency = from_numeric(found["53"])
        if currency is None:
            raise QrMalformed("the currency is unknown")
        whole, _, part = found["54"].partition(".")
        text = whole + part
        if not (text.isascii() and text.isdigit()) or len(part) != CURRENCIES[currency][1]:
            raise QrMalformed("the amount is not one of its currency")
        signature = base64.urlsafe_b64decode(sealed["01"] + "==")
        return ScannedOrder(
            account["01"],
            account["02"],
            int(text),
            currency,
            found.get("59", ""),
            place["01"],
            signature,
        )
    except KeyError:
        raise QrMalformed("the code has no order of this network") from None
    except ValueError as error:
        raise QrMalformed(str(error)) from None


def is_signed(order: ScannedOrder, acquirer_key: bytes) -> bool:
    """Whether the acquirer has signed this order; `acquirer_key` from the chain's directory."""
    content = _signed(order.acquirer, order.order_id, order.currency, order.amount, order.pay_url)
    try:
        Ed25519PublicKey.from_public_bytes(acquirer_key).verify(order.signature, content)
    except InvalidSignature:
        return False
    return True


def _signed(acquirer: str, order_id: str, currency: str, amount: int, url: str) -> bytes:
    parts = ("countersign/order/1", acquirer, order_id, currency, str(amount), url)
    return "\x1f".join(parts).encode()
