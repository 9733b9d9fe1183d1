"""Reads scenarios strictly: a mistake is named with its line and field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gateway.iso8583.spec import Suite
from gateway.terminal_keys.model import KeyManagement
from nodes.money import CURRENCIES, MAX_TRANSACTION_AMOUNT
from sandbox.terminals.scenario import (
    BARE,
    FOLLOW_UPS,
    OFFLINE_APPROVED,
    WITH_AMOUNT,
    WITH_CARD,
    By,
    CardPlan,
    Do,
    Expected,
    Fault,
    Form,
    Scenario,
    ScenarioError,
    Step,
    TerminalPlan,
)

T = TypeVar("T")
#: What a step takes beside its card, step and amount.
_OWN: Mapping[Do, frozenset[str]] = {
    Do.PAY: frozenset({"partial_ok", "signed"}),
    Do.AUTHORIZE: frozenset({"partial_ok", "signed"}),
    Do.COMPLETE: frozenset({"more"}),
    Do.REVERSE: frozenset({"amount"}),
    Do.WAIT: frozenset({"seconds"}),
    Do.DOWNLOAD: frozenset({"until_listed"}),
    Do.UPLOAD: frozenset({"skip"}),
    Do.COPY: frozenset({"card", "to"}),
    Do.PAY_ORDER: frozenset({"card"}),
}
_NEEDED: Mapping[Do, frozenset[str]] = {do: _OWN[do] for do in (Do.WAIT, Do.COPY, Do.PAY_ORDER)}
_FAULTS: Mapping[Do, frozenset[Fault]] = {
    **dict.fromkeys(
        (Do.AUTHORIZE, Do.REFUND, Do.COMPLETE, Do.VOID, Do.TOP_UP),
        frozenset(Fault) - {Fault.END_OFFLINE},
    ),
    Do.PAY: frozenset(Fault),
    Do.UPLOAD: frozenset({Fault.LOSE_ANSWER, Fault.SEND_TWICE}),
}


def load_scenario(path: Path) -> Scenario:
    """Read a file. ScenarioError, OSError."""
    return read_scenario(path.read_text(encoding="utf-8"), str(path))


def read_scenario(text: str, source: str) -> Scenario:
    """Read a scenario's text. ScenarioError if anything in it is wrong."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ScenarioError(source, line, "", f"not YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise ScenarioError(source, 1, "", "not YAML: a character that it doesn't have") from None
    if root is None:
        raise ScenarioError(source, 1, "", "the file is empty")
    return _Reader(source).scenario(root)


class _Reader:
    """Turns YAML nodes, which know their lines, into a scenario."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._exponent = 2

    def scenario(self, root: yaml.Node) -> Scenario:
        known = {"name", "currency", "terminal", "cards", "steps"}
        fields = self._mapping(root, "", known, {"steps"})
        currency = self._text(fields, "currency", "CNY", pattern=r"[A-Z]{3}")
        if currency not in CURRENCIES:
            raise self._wrong(fields["currency"], "currency", f"known are {_list(CURRENCIES)}")
        self._exponent = CURRENCIES[currency][1]
        cards = {
            name: self._card(node, f"cards.{name}")
            for name, node in self._names(fields.get("cards"), "cards").items()
        }
        steps = self._steps(fields["steps"], cards)
        terminal = self._terminal(fields.get("terminal"))
        name = self._text(fields, "name", Path(self._source).stem, pattern=r".{1,120}")
        return Scenario(self._source, name, terminal, cards, steps, currency)

    def _terminal(self, node: yaml.Node | None) -> TerminalPlan:
        if node is None:
            return TerminalPlan()
        known = {"id", "merchant", "suite", "keys", "dialect", "cover"}
        fields = self._mapping(node, "terminal", known)
        suite = self._choice(fields, "terminal.suite", Suite.SM, {s.name: s for s in Suite})
        default = KeyManagement.TMK
        keys = self._choice(fields, "terminal.keys", default, {k.value: k for k in KeyManagement})
        if (keys, suite) in (
            *((KeyManagement.SM2, s) for s in (Suite.AES, Suite.LEGACY)),
            *((KeyManagement.DUKPT, s) for s in (Suite.SM, Suite.LEGACY)),
        ):
            raise self._wrong(
                fields["keys"], "terminal.keys", "sm2 goes with suite SM, dukpt with suite AES"
            )
        dialects = {name: name for name in ("bcd-tpdu", "ascii", "ebcdic")}
        if "id" in fields and fields.keys() & {"merchant", "suite", "keys"}:
            raise self._wrong(fields["id"], "terminal.id", "an enrolled terminal has these already")
        return TerminalPlan(
            self._text(fields, "id", "", pattern=r"[A-Za-z0-9]{8}") or None,
            self._text(fields, "merchant", "", pattern=r"[A-Za-z0-9]{15}") or None,
            suite,
            keys,
            self._choice(fields, "terminal.dialect", "bcd-tpdu", dialects),
            self._flag(fields, "terminal.cover"),
        )

    def _card(self, node: yaml.Node, where: str) -> CardPlan:
        fields = self._mapping(node, where, {"form", "balance", "pin", "issuer", "offline"})
        form = self._choice(fields, f"{where}.form", Form.CHIP, {f.value: f for f in Form})
        offline = self._amount(fields, f"{where}.offline", 0, least=0)
        if offline and form is not Form.CHIP:
            raise self._wrong(fields["offline"], f"{where}.offline", "only a chip pays offline")
        return CardPlan(
            form,
            self._amount(fields, f"{where}.balance", 0, least=0),
            self._text(fields, "pin", "123456", pattern=r"[0-9]{4,12}", where=f"{where}.pin"),
            self._text(fields, "issuer", "", pattern=r"[a-z][a-z0-9-]{1,30}") or None,
            offline,
        )

    def _steps(self, node: yaml.Node, cards: Mapping[str, CardPlan]) -> tuple[Step, ...]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise self._wrong(node, "steps", "is a list of at least one step")
        steps: list[Step] = []
        named: dict[str, Step] = {}
        known = dict(cards)
        for number, item in enumerate(node.value):
            where = f"steps[{number}]"
            step = self._step(item, where, known, named)
            if step.do is Do.COPY:
                if step.to in known:
                    raise self._wrong(item, f"{where}.copy.to", f"there is a card {step.to!r}")
                known[step.to] = known[step.card]
            if step.name in named:
                raise self._wrong(item, f"{where}.as", f"there is a step {step.name!r} already")
            if step.name:
                named[step.name] = step
            steps.append(step)
        return tuple(steps)

    def _step(
        self,
        node: yaml.Node,
        where: str,
        cards: Mapping[str, CardPlan],
        named: Mapping[str, Step],
    ) -> Step:
        kinds = {do.value: do for do in Do}
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            if node.value not in {do.value for do in BARE}:
                raise self._wrong(node, where, f"a bare step is one of {_list(sorted(BARE))}")
            return Step(line, kinds[node.value], expect=Expected("00"))
        outer = self._mapping(node, where, {*kinds, "as", "fault", "expect"})
        found = [name for name in outer if name in kinds]
        if len(found) != 1:
            raise self._wrong(node, where, f"does exactly one of {_list(kinds)}")
        do, inner = kinds[found[0]], f"{where}.{found[0]}"
        fields = self._inside(outer[found[0]], inner, do)
        step = Step(
            line,
            do,
            name=self._text(outer, "as", "", pattern=r"[A-Za-z0-9_-]{1,40}", where=f"{where}.as"),
            card=self._text(fields, "card", "", pattern=r".+", where=f"{inner}.card"),
            by=self._choice(fields, f"{inner}.by", By.INSERT, {by.value: by for by in By}),
            amount=self._amount(fields, f"{inner}.amount", 0, least=1),
            pin=self._text(fields, "pin", "", pattern=r"[0-9]{4,12}", where=f"{inner}.pin") or None,
            of=self._text(fields, "of", "", pattern=r".+", where=f"{inner}.of"),
            seconds=self._number(fields, f"{inner}.seconds"),
            partial_ok=self._flag(fields, f"{inner}.partial_ok"),
            signed=self._flag(fields, f"{inner}.signed"),
            more=self._flag(fields, f"{inner}.more"),
            to=self._text(fields, "to", "", pattern=r"[A-Za-z0-9_-]{1,40}", where=f"{inner}.to"),
            skip=self._count(fields, f"{inner}.skip"),
            until_listed=self._text(
                fields, "until_listed", "", pattern=r".+", where=f"{inner}.until_listed"
            ),
            fault=self._fault(outer, where, do),
            expect=self._expected(outer, where, do),
        )
        for name, card in (("card", step.card), ("until_listed", step.until_listed)):
            if name in fields and card not in cards:
                raise self._wrong(fields[name], f"{inner}.{name}", f"cards are {_list(cards)}")
        if do in FOLLOW_UPS and step.of not in named:
            raise self._wrong(fields["of"], f"{inner}.of", f"steps so far are {_list(named)}")
        return step

    def _inside(self, node: yaml.Node, where: str, do: Do) -> dict[str, yaml.Node]:
        known: set[str] = {*_OWN.get(do, ())}
        needed: set[str] = {*_NEEDED.get(do, ())}
        if do in WITH_CARD:
            known, needed = {*known, "card", "by", "pin"}, {*needed, "card"}
        if do in FOLLOW_UPS:
            known, needed = {*known, "of"}, {*needed, "of"}
        if do in WITH_AMOUNT:
            known, needed = {*known, "amount"}, {*needed, "amount"}
        if (
            isinstance(node, yaml.ScalarNode)
            and node.tag == "tag:yaml.org,2002:null"
            and not needed
        ):
            return {}
        return self._mapping(node, where, known, needed)

    def _fault(self, fields: Mapping[str, yaml.Node], where: str, do: Do) -> Fault | None:
        if "fault" not in fields:
            return None
        if do not in _FAULTS:
            raise self._wrong(fields["fault"], f"{where}.fault", f"{do} has no faults")
        choices: dict[str, Fault | None] = {f.value: f for f in Fault if f in _FAULTS[do]}
        return self._choice(fields, f"{where}.fault", None, choices)

    def _expected(self, fields: Mapping[str, yaml.Node], where: str, do: Do) -> Expected:
        node = fields.get("expect")
        if node is None:
            return Expected(OFFLINE_APPROVED if do is Do.PAY_OFFLINE else "00")
        where = f"{where}.expect"
        if isinstance(node, yaml.ScalarNode):
            return Expected(self._code(node, where))
        if isinstance(node, yaml.SequenceNode):
            if do not in (Do.UPLOAD, Do.UPLOAD_BATCH):
                raise self._wrong(node, where, f"{do} has one answer")
            return Expected(codes=tuple(self._code(item, where) for item in node.value))
        inner = self._mapping(node, where, {"code", "available", "same_answer", "chip", "why"})
        chips = {"approved": "approved", "declined": "declined", "not_authentic": "not_authentic"}
        return Expected(
            self._code(inner["code"], f"{where}.code") if "code" in inner else None,
            None,
            self._text(inner, "why", "", pattern=r"[a-z_]+", where=f"{where}.why") or None,
            self._amount(inner, f"{where}.available", None, least=0),
            self._flag(inner, f"{where}.same_answer"),
            self._choice(inner, f"{where}.chip", None, dict[str, str | None](chips)),
        )

    def _code(self, node: yaml.Node, where: str) -> str:
        text = self._scalar(node, where)
        if text != "none" and not re.fullmatch(r"[0-9A-Z]{2}", text):
            raise self._wrong(node, where, "is a DE39 of two characters (in quotes), or none")
        return text

    # YAML nodes

    def _wrong(self, node: yaml.Node, where: str, why: str) -> ScenarioError:
        return ScenarioError(self._source, node.start_mark.line + 1, where, why)

    def _names(self, node: yaml.Node | None, where: str) -> dict[str, yaml.Node]:
        return {} if node is None else self._mapping(node, where, None)

    def _mapping(
        self,
        node: yaml.Node,
        where: str,
        known: Iterable[str] | None,
        needed: Iterable[str] = (),
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, where or "the file", "is a mapping of names to values")
        allowed = None if known is None else set(known)
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self._scalar(key, where)
            place = f"{where}.{name}" if where else name
            if allowed is not None and name not in allowed:
                raise self._wrong(key, place, f"is unknown; known are {_list(sorted(allowed))}")
            if name in found:
                raise self._wrong(key, place, "is there twice")
            found[name] = value
        for name in needed:
            if name not in found:
                raise self._wrong(node, f"{where}.{name}" if where else name, "is missing")
        return found

    def _scalar(self, node: yaml.Node, where: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._wrong(node, where, "is a single value")
        return str(node.value)

    def _text(
        self,
        fields: Mapping[str, yaml.Node],
        name: str,
        default: str,
        *,
        pattern: str,
        where: str = "",
    ) -> str:
        if name not in fields:
            return default
        text = self._scalar(fields[name], where or name)
        if not re.fullmatch(pattern, text):
            raise self._wrong(fields[name], where or name, f"must match {pattern}")
        return text

    def _choice(
        self, fields: Mapping[str, yaml.Node], where: str, default: T, choices: Mapping[str, T]
    ) -> T:
        name = where.rpartition(".")[2]
        if name not in fields:
            return default
        text = self._scalar(fields[name], where)
        if text not in choices:
            raise self._wrong(fields[name], where, f"is one of {_list(choices)}")
        return choices[text]

    def _flag(self, fields: Mapping[str, yaml.Node], where: str) -> bool:
        return self._choice(fields, where, False, {"true": True, "false": False})

    def _amount(
        self, fields: Mapping[str, yaml.Node], where: str, default: T, *, least: int
    ) -> int | T:
        name = where.rpartition(".")[2]
        if name not in fields:
            return default
        text = self._scalar(fields[name], where)
        try:
            minor = Decimal(text).scaleb(self._exponent)
        except InvalidOperation:
            raise self._wrong(fields[name], where, "is an amount such as 12.50") from None
        if not minor.is_finite() or minor != minor.to_integral_value():
            raise self._wrong(fields[name], where, f"has at most {self._exponent} decimals")
        if not least <= minor <= MAX_TRANSACTION_AMOUNT:
            raise self._wrong(fields[name], where, "is too small or too large")
        return int(minor)

    def _count(self, fields: Mapping[str, yaml.Node], where: str) -> int:
        name = where.rpartition(".")[2]
        if name not in fields:
            return 0
        text = self._scalar(fields[name], where)
        if not re.fullmatch(r"[1-9][0-9]?", text):
            raise self._wrong(fields[name], where, "is a number from 1 to 99")
        return int(text)

    def _number(self, fields: Mapping[str, yaml.Node], where: str) -> float:
        name = where.rpartition(".")[2]
        if name not in fields:
            return 0.0
        text = self._scalar(fields[name], where)
        read: Callable[[str], float] = float
        try:
            value = read(text)
        except ValueError:
            value = -1.0
        if not 0 < value <= 60:
            raise self._wrong(fields[name], where, "is more than 0 and at most 60 seconds")
        return value


def _list(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "none"
