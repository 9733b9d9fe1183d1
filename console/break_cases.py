"""Break cases: which fit the filters, who may do what, and both versions side by side. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from console import presentation

Json = dict[str, Any]

#: Ages by which the list is filtered, in hours, and what they are called.
AGES = {"24": "1 day", "72": "3 days", "168": "7 days"}
DUE = {"overdue": "Overdue", "soon": "Within 24 hours", "later": "Later"}
TAKEN = {"mine": "By me", "nobody": "By nobody"}
#: The steps of a case, in order: (state, what is done to come there).
WORKFLOW = ("open", "proposed", "countersigned", "corrected", "closed")
_NOTED = frozenset({"SEQ_GAP", "UNSIGNED"})
_SOON_S = 86_400
#: How the node names a version's values -> the field of C that it is, in the order shown.
_FIELDS = {
    "amount": "amount",
    "currency": "currency",
    "kind": "kind",
    "outcome": "outcome",
    "transmitted_ms": "time",
    "merchant_id": "merchant",
    "original_txid": "original",
    "effect": "effect",
    "business_date": "business_date",
    "pair_seq": "pair_seq",
    "commitment": "commitment",
}


@dataclass(frozen=True)
class CaseFilters:
    """The list's filters as they stand in the address."""

    state: str = ""
    kind: str = ""
    owner: str = ""
    age: str = ""
    due: str = ""
    taken: str = ""

    def chosen(self) -> dict[str, str]:
        """Those that are set, for links."""
        return {name: value for name, value in vars(self).items() if value}

    def at_the_node(self, username: str) -> dict[str, str | None]:
        """What the node filters itself."""
        return {
            "state": self.state or None,
            "kind": self.kind or None,
            "taken_by": username if self.taken == "mine" else None,
            "taken": "false" if self.taken == "nobody" else None,
        }

    def fits(self, item: Json, now_s: float) -> bool:
        """Whether a case fits; what the node filters itself isn't looked at."""
        if self.owner and item["owner"] != self.owner:
            return False
        if self.age and item["age_s"] < int(self.age) * 3600:
            return False
        return not self.due or due_group(item, now_s) == self.due


def due_group(item: Json, now_s: float) -> str:
    """Whether a case is overdue, due soon or later; "" once it is closed or corrected."""
    if item["state"] in ("corrected", "closed"):
        return ""
    if item["overdue"]:
        return "overdue"
    due = presentation.moment(item["due_at"])
    return "soon" if due and due.timestamp() - now_s <= _SOON_S else "later"


def resolutions(item: Json) -> tuple[str, ...]:
    """How a break of this class can be resolved (nodes.clearing.rules.cases.applicable)."""
    nothing_to_take = (item["kind"] == "DUPLICATE" and item["lacking"] is None) or (
        item["kind"] == "TOTALS_MISMATCH" and item["txid"] is None
    )
    if item["kind"] in _NOTED or nothing_to_take:
        return ("ACKNOWLEDGE",)
    return ("TAKE_ACQUIRER", "TAKE_ISSUER")


def moves(item: Json, member_id: str) -> tuple[str, ...]:
    """What this institution's people may do now: "propose", "countersign" and "refuse"."""
    if item["state"] == "open" and item["kind"] != "LATE":
        return ("propose",)
    if item["state"] == "proposed" and item["proposed_by"] != member_id:
        return ("countersign", "refuse")
    return ()


def confirmation(ref: str) -> str:
    """What a person types to confirm a step: the case's short reference."""
    return ref[:8]


@dataclass(frozen=True)
class Compared:
    """One field in both books. A value is None where that side lacks the transaction."""

    name: str
    acquirer: str | None
    issuer: str | None
    differs: bool
    code: bool = False


def compared(item: Json) -> list[Compared]:
    """Both versions of a broken transaction, field by field; empty if there is none."""
    versions: Mapping[str, Json] = item["versions"]
    rows = []
    for name, shared in _FIELDS.items():
        if not any(name in version for version in versions.values()):
            continue
        sides = {
            party: _shown(name, versions[party]) if party in versions else None
            for party in ("acquirer", "issuer")
        }
        raw = [version.get(name) for version in versions.values()]
        differs = len(versions) == 2 and raw[0] != raw[1]
        # That C's leaves differ in a field counts too where the values can't be told (the token).
        differs = differs or (len(versions) == 2 and shared in item["fields"])
        code = name in ("commitment", "original_txid")
        rows.append(Compared(shared, sides["acquirer"], sides["issuer"], differs, code))
    known = {row.name for row in rows}
    rows += [
        Compared(name, "•••", "•••", True) for name in item["fields"] if rows and name not in known
    ]
    return rows


def _shown(name: str, version: Json) -> str:
    value = version.get(name)
    if value is None:
        return "–"
    if name in ("amount", "effect"):
        currency = str(version.get("currency") or "")
        return f"{presentation.amount(int(value), currency)} {currency}".strip()
    if name == "transmitted_ms":
        return presentation.of_milliseconds(int(value))
    return str(value)
