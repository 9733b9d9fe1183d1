"""What is wrong with terms or a rule that somebody has written, said so that it can be mended."""

from __future__ import annotations

import re
from collections.abc import Iterable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from nodes.authorization.controls import Conditions, Limit, Measure, Rule, Terms, Window
from nodes.authorization.entry_modes import EntryMode
from nodes.authorization.model import Kind

#: Kinds that rules are asked about; an advice is also a purchase to them (rules/limits.py).
RULED_KINDS = (
    Kind.PURCHASE,
    Kind.AUTHORIZATION,
    Kind.INCREMENT,
    Kind.ADVICE,
    Kind.LOAD,
    Kind.TRANSFER,
)
CHANNELS = ("pos", *(mode.value for mode in EntryMode))
_MINUTES = 24 * 60
_MAX_HOLD_SECONDS = 366 * 86_400
_MAX_BALANCE = (1 << 53) - 1
_MCC = re.compile(r"[0-9]{4}(-[0-9]{4})?\Z")
_PURSE = re.compile(r"[a-z][a-z0-9_-]{0,39}\Z")
_MERCHANT = re.compile(r"[!-~][ -~]{0,14}\Z")
_COUNTRY = re.compile(r"[A-Z]{2}\Z")
_ENTRY_MODE = re.compile(r"[0-9]{2}\Z")


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong: `at` names the member, as in the JSON."""

    at: str
    message: str


def faults_of_rule(rule: Rule) -> list[Fault]:
    """What is wrong with a rule; empty if nothing is."""
    found = _faults_of_conditions(rule.when)
    if not 1 <= len(rule.name.strip()) <= 80:
        found.append(Fault("name", "a name has 1 to 80 characters: it stands in each decline"))
    if rule.limit is not None:
        found += _faults_of_limit(rule.limit)
    everything = rule.when == Conditions()
    if everything and rule.unless:
        found.append(Fault("when", "nothing is outside of no condition: give at least one"))
    elif everything and rule.limit is None:
        found.append(Fault("when", "this would decline every payment: give a condition or a limit"))
    if rule.effective_to_ms is not None and rule.effective_to_ms <= rule.effective_from_ms:
        found.append(Fault("effective_to", "the end must be after the beginning"))
    return found


def _faults_of_limit(limit: Limit) -> list[Fault]:
    found: list[Fault] = []
    if not 0 <= limit.maximum <= _MAX_BALANCE:
        found.append(Fault("limit.maximum", f"a maximum is between 0 and {_MAX_BALANCE}"))
    if limit.window is Window.TRANSACTION and limit.measure is Measure.COUNT:
        found.append(Fault("limit.measure", "one transaction counts as one: limit its amount"))
    return found


def _faults_of_conditions(when: Conditions) -> list[Fault]:
    found = _mccs("when.mccs", when.mccs)
    found += _each("when.merchants", when.merchants, _MERCHANT, "a merchant id")
    found += _each("when.countries", when.countries, _COUNTRY, "two capitals as in ISO 3166-1")
    found += _each("when.entry_modes", when.entry_modes, _ENTRY_MODE, "two digits (DE22)")
    for channel in when.channels:
        if channel not in CHANNELS:
            found.append(Fault("when.channels", f"a channel is one of {', '.join(CHANNELS)}"))
            break
    for kind in when.kinds:
        if kind not in RULED_KINDS:
            names = ", ".join(known.value for known in RULED_KINDS)
            found.append(Fault("when.kinds", f"a kind is one of {names}"))
            break
    if any(not 1 <= day <= 7 for day in when.weekdays):
        found.append(Fault("when.weekdays", "weekdays run from 1, Monday, to 7"))
    start, end = when.from_minute, when.to_minute
    if start is not None and not 0 <= start < _MINUTES:
        found.append(Fault("when.from_minute", f"a minute of the day is 0 to {_MINUTES - 1}"))
    if end is not None and not 0 <= end <= _MINUTES:
        found.append(Fault("when.to_minute", f"the end of the hours is 0 to {_MINUTES}"))
    if (start or 0) == (_MINUTES if end is None else end):
        found.append(Fault("when.to_minute", "the hours are empty: the end is the beginning"))
    return found


def faults_of_terms(terms: Terms) -> list[Fault]:
    """What is wrong with a product's terms; empty if nothing is."""
    found = _faults_of_purses(terms)
    found += _each("merchants", terms.merchants, _MERCHANT, "a merchant id")
    if terms.uses is not None and not 1 <= terms.uses <= 1_000_000:
        found.append(Fault("uses", "a card has at least one use"))
    if not 1 <= terms.hold_seconds <= _MAX_HOLD_SECONDS:
        found.append(Fault("hold_seconds", f"a hold lasts 1 to {_MAX_HOLD_SECONDS} seconds"))
    if terms.max_balance is not None and not 1 <= terms.max_balance <= _MAX_BALANCE:
        found.append(Fault("max_balance", "a maximum balance is positive"))
    found += _mccs("over_capture_percent", terms.over_capture_percent)
    if any(not 0 <= percent <= 100 for percent in terms.over_capture_percent.values()):
        found.append(Fault("over_capture_percent", "0 to 100 per cent"))
    try:
        ZoneInfo(terms.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        found.append(Fault("time_zone", "not a zone of the IANA database, like Asia/Shanghai"))
    return found


def faults_of_change(first: Terms, later: Terms) -> list[Fault]:
    """What a product's later terms may not change."""
    found: list[Fault] = []
    if [purse.name for purse in first.purses] != [purse.name for purse in later.purses]:
        message = "the purses stay: accounts have them; make another product for other ones"
        found.append(Fault("purses.name", message))
    if first.time_zone != later.time_zone:
        found.append(Fault("time_zone", "the time zone stays: windows are counted in it"))
    return found


def _faults_of_purses(terms: Terms) -> list[Fault]:
    names = [purse.name for purse in terms.purses]
    if not 1 <= len(names) <= 8:
        return [Fault("purses", "a product has 1 to 8 purses; the first is the main one")]
    found = _each("purses.name", names, _PURSE, "lower-case letters and digits, a letter first")
    if len(set(names)) != len(names):
        found.append(Fault("purses.name", "two purses have the same name"))
    for purse in terms.purses:
        found += _mccs("purses.mccs", purse.mccs)
        if not set(purse.fallback) <= set(names) - {purse.name}:
            found.append(Fault("purses.fallback", "a fallback names another purse of the product"))
    return found


def _mccs(at: str, patterns: Iterable[str]) -> list[Fault]:
    for pattern in patterns:
        low, _, high = pattern.partition("-")
        if not _MCC.match(pattern) or (high and high < low):
            return [Fault(at, 'an MCC has four digits; a range is like "5811-5814"')]
    return []


def _each(at: str, values: Iterable[str], shape: re.Pattern[str], what: str) -> list[Fault]:
    return [] if all(shape.match(value) for value in values) else [Fault(at, f"not {what}")]
