"""Money: an integer of minor units with an ISO 4217 currency. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

#: Largest amount of one transaction in minor units: DE4 is n12 (ISO 8583:1987, data element 4).
MAX_TRANSACTION_AMOUNT = 999_999_999_999

#: ISO 4217: alphabetic code -> (numeric code as DE49 carries it, exponent).
CURRENCIES: dict[str, tuple[str, int]] = {
    "CNY": ("156", 2),
    "EUR": ("978", 2),
    "GBP": ("826", 2),
    "HKD": ("344", 2),
    "JPY": ("392", 0),
    "SGD": ("702", 2),
    "USD": ("840", 2),
}
_BY_NUMERIC = {numeric: alpha for alpha, (numeric, _) in CURRENCIES.items()}


def numeric_code(currency: str) -> str:
    """ISO 4217 numeric code of an alphabetic one; KeyError if the network doesn't know it."""
    return CURRENCIES[currency][0]


def from_numeric(code: str) -> str | None:
    """Alphabetic code of an ISO 4217 numeric one, or None if the network doesn't know it."""
    return _BY_NUMERIC.get(code)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units (may be negative in a posting) and its currency."""

    amount: int
    currency: str

    def __post_init__(self) -> None:
        if self.currency not in CURRENCIES:
            raise ValueError(f"unknown currency {self.currency!r}")

    def __str__(self) -> str:
        exponent = CURRENCIES[self.currency][1]
        if exponent == 0:
            return f"{self.amount:,} {self.currency}"
        sign = "-" if self.amount < 0 else ""
        whole, minor = divmod(abs(self.amount), 10**exponent)
        return f"{sign}{whole:,}.{minor:0{exponent}d} {self.currency}"
