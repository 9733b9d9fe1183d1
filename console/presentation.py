"""How values look: money, moments, durations, hashes. Pure functions, used by the templates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nodes.money import CURRENCIES

_AMOUNT = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,2}))?\Z")
#: For machines without a time-zone database: zones without daylight saving, by their offset.
_FIXED_OFFSETS = {"Asia/Shanghai": 8, "Asia/Hong_Kong": 8, "Asia/Singapore": 8, "Asia/Tokyo": 9}


def zone(name: str) -> tzinfo:
    """The time zone of an IANA name; ValueError if this machine doesn't know it."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        if name in _FIXED_OFFSETS:
            return timezone(timedelta(hours=_FIXED_OFFSETS[name]), name)
        raise ValueError(f"unknown time zone {name!r}") from error


def moment(text: str | None) -> datetime | None:
    """The moment of an RFC 3339 text, or None if there is none or it can't be read."""
    if not text:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def clock_time(text: str | None, tz: tzinfo) -> str:
    """ "14:03:21" in the zone shown."""
    value = moment(text)
    return f"{value.astimezone(tz):%H:%M:%S}" if value else "–"


def date_time(text: str | None, tz: tzinfo) -> str:
    """ "2026-11-22 14:03:21" in the zone shown."""
    value = moment(text)
    return f"{value.astimezone(tz):%Y-%m-%d %H:%M:%S}" if value else "–"


def precise_time(text: str | None, tz: tzinfo) -> str:
    """ "2026-11-22 14:03:21.512" in the zone shown."""
    value = moment(text)
    if not value:
        return "–"
    local = value.astimezone(tz)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}"


def block_time(seconds: int, tz: tzinfo) -> str:
    """A block's time stamp (seconds since 1970) in the zone shown."""
    return f"{datetime.fromtimestamp(seconds, tz):%Y-%m-%d %H:%M:%S}"


def rfc3339(value: datetime) -> str:
    """A moment as the node API takes it, in UTC."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def of_milliseconds(value: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC; the number itself where that is no moment."""
    try:
        return datetime.fromtimestamp(value / 1000, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(value)


def offset_ms(seconds: int, tz: tzinfo) -> int:
    """How far the zone shown is ahead of UTC at a moment (seconds since 1970), in milliseconds."""
    ahead = datetime.fromtimestamp(seconds, tz).utcoffset()
    return round(ahead.total_seconds() * 1000) if ahead else 0


def day(text: str | None, tz: tzinfo) -> str:
    """ "2026-11-22" in the zone shown."""
    value = moment(text)
    return f"{value.astimezone(tz):%Y-%m-%d}" if value else "–"


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units: "850 ms", "4.2 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def between(start: str | None, end: str | None) -> float | None:
    """Seconds from one RFC 3339 text to another; None if one is missing."""
    first, second = moment(start), moment(end)
    return (second - first).total_seconds() if first and second else None


def exponent(currency: str) -> int:
    """Digits behind the decimal point (ISO 4217); 2 for one that the network doesn't know."""
    return CURRENCIES[currency][1] if currency in CURRENCIES else 2


def amount(minor: int | None, currency: str) -> str:
    """An integer of minor units as "1,234.50", without the currency."""
    if minor is None:
        return "–"
    digits = exponent(currency)
    sign = "−" if minor < 0 else ""
    whole, rest = divmod(abs(minor), 10**digits)
    return f"{sign}{whole:,}.{rest:0{digits}d}" if digits else f"{sign}{whole:,}"


def minor_units(text: str, currency: str) -> int | None:
    """What a person typed as an amount ("12", "12.5", "1,200.00") in minor units, or None."""
    match = _AMOUNT.match(text.strip().replace(",", ""))
    digits = exponent(currency)
    if not match or len(match[2] or "") > digits:
        return None
    minor: int = int(match[1]) * 10**digits + int((match[2] or "").ljust(digits, "0") or 0)
    return minor


def typed_moment(text: str, tz: tzinfo) -> str | None:
    """What a person typed in the zone shown, as RFC 3339 in UTC; None if it is no moment."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    if value.tzinfo is None:
        value = value.replace(tzinfo=tz)
    return rfc3339(value)


def short(value: str | None, head: int = 8, tail: int = 6) -> str:
    """A long identifier's ends, "a1b2c3d4…9f0e1d"; its whole is in the title or copied."""
    if not value:
        return "–"
    return value if len(value) <= head + tail + 1 else f"{value[:head]}…{value[-tail:]}"


_LONG_HEX = re.compile(r"\b(?:0x)?[0-9a-f]{32,}\b")


def shortened(text: str) -> str:
    """A sentence in which long hashes are cut to their ends."""
    return _LONG_HEX.sub(lambda match: short(match[0]), text)


def number(value: int | None) -> str:
    """An integer with separators of thousands."""
    return "–" if value is None else f"{value:,}"


def compact(value: int) -> str:
    """A count in few characters: 950, 12.4k, 3.1M."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size * 10 or (value >= size and unit == "M"):
            return f"{value / size:.1f}{unit}"
    return f"{value:,}"


def card(masked: str | None) -> str:
    """A masked PAN in groups of four: "6223 00•• •••• 1234"."""
    if not masked:
        return "–"
    dots = re.sub(r"[^0-9]", "•", masked)
    return " ".join(dots[i : i + 4] for i in range(0, len(dots), 4))


def query(values: Mapping[str, object]) -> str:
    """ "?a=1&b=2" of the values that aren't empty; "" if all are."""
    kept = {key: value for key, value in values.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else ""
