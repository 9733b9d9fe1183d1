"""A simulated wallet: shows a consumer's single-use code, pays a merchant's order."""

from __future__ import annotations

import httpx

from nodes.emv.qr import decode_consumer, decode_merchant


class Wallet:
    """One card in a phone. `issuer`: a client of its issuer's node that may issue codes."""

    def __init__(self, issuer: httpx.Client, card_token: str) -> None:
        self._issuer = issuer
        self._card_token = card_token

    def show_code(self) -> str:
        """The text of a fresh QR code. httpx.HTTPStatusError if the issuer gives none."""
        answer = self._issuer.post(f"/v1/cards/{self._card_token}/codes", json={})
        answer.raise_for_status()
        payload: str = answer.json()["payload"]
        return payload

    def scan_and_pay(self, scanned: str, pay_url: str, *, idempotency_key: str) -> httpx.Response:
        """Pay the order of a merchant's QR code with a fresh code; the answer.

        QrMalformed if what was scanned is no order's code.
        """
        decode_merchant(scanned)
        body = {"code": self.show_code()}
        headers = {"Idempotency-Key": idempotency_key}
        return httpx.post(pay_url, json=body, headers=headers, timeout=20, trust_env=False)


def track2_of_code(payload: str) -> str:
    """DE35 of a scanned consumer's code: what a terminal sends, with DE22 03x."""
    code = decode_consumer(payload)
    return f"{code.number}D{code.expiry}{code.service_code}"
