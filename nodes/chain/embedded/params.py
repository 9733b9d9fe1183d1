"""The parameters of JSON-RPC methods: strict readers, each refusing with InvalidParams."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nodes.chain.embedded.evm import Call
from nodes.chain.embedded.store import LogFilter

_QUANTITY = re.compile(r"0x(0|[1-9a-fA-F][0-9a-fA-F]{0,63})\Z")
_PADDED = re.compile(r"0x[0-9a-fA-F]{1,64}\Z")
_DATA = re.compile(r"0x([0-9a-fA-F]{2})*\Z")
_MAX_TOPICS = 4
_MAX_CHOICES = 1_000


class InvalidParams(Exception):
    """A parameter isn't what the method takes."""


def arity(params: list[Any], least: int, most: int) -> None:
    """Checks how many parameters there are."""
    if not least <= len(params) <= most:
        raise InvalidParams(f"{least} to {most} parameters wanted, {len(params)} given")


def quantity(value: Any, *, leading_zeros: bool = False) -> int:
    """A hexadecimal number without leading zeros, at most 256 bits."""
    pattern = _PADDED if leading_zeros else _QUANTITY
    if not isinstance(value, str) or not pattern.match(value):
        raise InvalidParams("not a hexadecimal quantity")
    return int(value, 16)


def data(value: Any) -> bytes:
    """Bytes in hexadecimal, an even number of digits."""
    if not isinstance(value, str) or not _DATA.match(value):
        raise InvalidParams("not hexadecimal data")
    return bytes.fromhex(value[2:])


def word(value: Any) -> bytes:
    """32 bytes."""
    found = data(value)
    if len(found) != 32:
        raise InvalidParams("not 32 bytes")
    return found


def address(value: Any) -> bytes:
    """20 bytes."""
    found = data(value)
    if len(found) != 20:
        raise InvalidParams("not an address")
    return found


def call_of(value: Any, gas_limit: int) -> Call:
    """The call object of eth_call and eth_estimateGas. Prices are read past: calls are free."""
    if not isinstance(value, dict):
        raise InvalidParams("not a call object")
    given = {name: entry for name, entry in value.items() if entry is not None}
    payload = data(given.get("input", given.get("data", "0x")))
    if "input" in given and "data" in given and data(given["data"]) != payload:
        raise InvalidParams("input and data differ")
    gas = quantity(given["gas"]) if "gas" in given else gas_limit
    return Call(
        sender=address(given["from"]) if "from" in given else bytes(20),
        to=address(given["to"]) if "to" in given else None,
        data=payload,
        value=quantity(given.get("value", "0x0")),
        gas=min(gas, gas_limit),
    )


def log_filter(value: Any, number_of: Callable[[Any], int | None], head: int) -> LogFilter:
    """The filter object of eth_getLogs; `number_of` resolves block tags."""
    if not isinstance(value, dict):
        raise InvalidParams("not a filter object")
    if value.get("blockHash") is not None:
        if value.get("fromBlock") is not None or value.get("toBlock") is not None:
            raise InvalidParams("blockHash excludes fromBlock and toBlock")
        number = number_of({"blockHash": value["blockHash"]})
        if number is None:
            raise InvalidParams("unknown block")
        first = last = number
    else:
        # A range that reaches beyond the newest block ends there.
        start, end = number_of(value.get("fromBlock")), number_of(value.get("toBlock"))
        first = head + 1 if start is None else start
        last = head if end is None else end
    topics = value.get("topics") or []
    if not isinstance(topics, list) or len(topics) > _MAX_TOPICS:
        raise InvalidParams(f"topics are a list of at most {_MAX_TOPICS}")
    return LogFilter(
        first_block=first,
        last_block=last,
        addresses=_choices(value.get("address"), address),
        topics=tuple(_choices(topic, word) for topic in topics),
    )


def _choices(value: Any, read: Callable[[Any], bytes]) -> tuple[bytes, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        return (read(value),)
    if len(value) > _MAX_CHOICES:
        raise InvalidParams(f"more than {_MAX_CHOICES} alternatives")
    return tuple(read(entry) for entry in value)
