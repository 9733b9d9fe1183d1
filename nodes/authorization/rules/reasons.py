"""Reasons of declines as people read them."""

from __future__ import annotations

from nodes.authorization.state import Reason

_WINDOWS = {
    "transaction": "a transaction",
    "day": "a day",
    "week": "a week",
    "month": "a month",
    "lifetime": "in all",
}
#: By outcome: a sentence with the values by name. Amounts are minor units, as everywhere.
_SENTENCES = {
    "amount_invalid": "The amount {amount} is not one that can be posted.",
    "original_not_found": "The original that this names isn't known, or it was not approved.",
    "reversed_before_arrival": "Its reversal came first.",
    "deadline_passed": "It came {late_ms} ms after the terminal had stopped waiting.",
    "card_unknown": "The card is not known.",
    "card_lost": "The card is reported lost.",
    "card_stolen": "The card is reported stolen.",
    "card_blocked": "The card is {status}.",
    "card_expired": "The card expired at the end of its month, {expiry} (YYMM).",
    "currency_not_permitted": "The account is in {of_account}, not in {currency}.",
    "code_not_valid": "The code can't be used: {fault}.",
    "chip_data_invalid": "The chip's data can't be used: {fault}.",
    "cryptogram_wrong": "The chip's cryptogram is refused: {fault} (counter {atc}, last"
    " {last_atc}).",
    "entry_not_permitted": "The card may not be read like this ({entry}): {why}.",
    "check_value_wrong": "A check value of the card is wrong: {which}.",
    "fallback_not_permitted": "The stripe of a chip card isn't taken: {why}.",
    "cvm_required": "Without a PIN it is not taken any more: {why}; {amount} was asked for.",
    "pin_tries_exceeded": "The PIN was wrong too often; no try is left.",
    "pin_required": "This card needs a PIN and none came.",
    "pin_wrong": "The PIN was wrong; tries left: {tries_left}.",
    "original_mismatch": "It doesn't fit the original that it names: {differs}.",
    "already_reversed": "The original was undone before: {reversed}.",
    "under_dispute": "The cardholder disputes {disputed} of it, and that isn't decided yet.",
    "hold_ended": "Nothing is held any more: of {authorized} authorized, {captured} were captured"
    " and {reversed} released; the rest expired or was freed.",
    "account_frozen": "The account is {status}.",
    "offline_clone": "The card's counter {atc} was used for another offline payment: it is copied.",
    "offline_record_invalid": "The offline record isn't one that this card has signed: {differs}.",
    "key_reused": "The payment under the card's counter {atc} was posted before.",
    "uses_exhausted": "All {limit} uses of the card are spent.",
    "insufficient_funds": "{amount} was asked for and {available} is available"
    " (balance {balance}, held {held}).",
}


def explain(reason: Reason) -> str:
    """One English sentence that says what was compared with what."""
    values = reason.values
    rule = f'Rule "{reason.rule_name}"' if reason.rule_id is not None else ""
    if reason.code == "rule_declined":
        facts = ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
        return f"{rule} declines this: {facts}."
    if reason.code == "amount_limit" and "max_balance" in values:
        return (
            f"With {values['amount']} more on the balance of {values['balance']}"
            f" it would exceed the maximum of {values['max_balance']}."
        )
    if reason.code in ("amount_limit", "count_limit") and "window" in values:
        window = _WINDOWS.get(str(values["window"]), str(values["window"]))
        if reason.code == "amount_limit":
            return (
                f"{rule} allows {values['limit']} {window}: {values['used']} were used before,"
                f" and this asks for {values['amount']}."
            )
        return f"{rule} allows {values['limit']} transactions {window}: {values['used']} were made."
    if reason.code == "over_original_amount":
        undone = ", ".join(
            f"{values[name]} {name}"
            for name in ("captured", "refunded", "reversed")
            if values.get(name)
        )
        of = values.get("limit", values.get("original"))
        return f"{values['amount']} is more than what is left of {of}" + (
            f" ({undone} before)." if undone else "."
        )
    if reason.code == "card_not_permitted":
        facts = ", ".join(f"{name} {value}" for name, value in values.items())
        return f"The card is not for this: {facts}."
    if reason.code == "card_expired" and "asked" in values:
        return (
            f"The message says expiry {values['asked']}, the card's is {values['expiry']} (YYMM)."
        )
    sentence = _SENTENCES.get(reason.code)
    if sentence is None:
        return f"Refused: {reason.code.replace('_', ' ')}."
    return sentence.format_map(_Values(values))


class _Values(dict[str, int | str]):
    """A value that a reason of an earlier release didn't have shows as unknown."""

    def __missing__(self, name: str) -> str:
        return "unknown"
