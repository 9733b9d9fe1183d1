"""What undoes an earlier transaction: refund, reversal, void.

They give money back, so neither card nor account has to be in good standing for them.
"""

from __future__ import annotations

from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.rules import limits, standing
from nodes.authorization.rules.disputes import refuse_disputed
from nodes.authorization.rules.draft import Draft, Parts, approved, not_enough, refused
from nodes.authorization.rules.holds import hold_ended, release
from nodes.authorization.rules.naming import TAKING, draft_of, named_original, refuse_mismatch
from nodes.authorization.rules.purses import available_in, last_of, split, total
from nodes.authorization.state import Decision, Detail, Facts, Original, Progress, Side

_REVERSIBLE = (
    *TAKING,
    Kind.AUTHORIZATION,
    Kind.INCREMENT,
    Kind.REFUND,
    Kind.TOP_UP,
    Kind.BALANCE_INQUIRY,
)
_VOIDABLE = (*TAKING, Kind.AUTHORIZATION)


def decide_refund(request: AuthorizationRequest, facts: Facts) -> Decision:
    """Give money back, once more than what was taken never: in parts, till the sum is reached."""
    found = named_original(facts, TAKING)
    if isinstance(found, Decision):
        return found
    original, draft = found
    refusal = refuse_mismatch(request, facts, original, draft) or refuse_disputed(original, draft)
    if refusal is not None:
        return refusal
    amount, progress = request.amount, original.progress
    if amount > original.amount - progress.refunded - progress.reversed:
        return _over(draft, original, amount)
    parts = _back_to(draft, original, amount)
    draft.settle(original.txid, amount)
    draft.credit(parts, Side.SETTLEMENT)
    detail = Detail(parts=parts, card_id=original.card_id, expired=draft.expired)
    return approved(
        draft,
        amount,
        detail,
        {original.txid: _changed(progress, refunded=progress.refunded + amount)},
    )


def decide_reversal(request: AuthorizationRequest, facts: Facts) -> Decision:
    """Undo an approval of the same terminal, all of it or an amount.

    An unknown original is barred from now on; one that was declined needs nothing. The approved
    amount of the answer is what was undone.
    """
    original, draft = facts.original, draft_of(facts)
    if original is None:
        account = None if draft is None else draft.next_version()
        detail = Detail(expired=() if draft is None else draft.expired)
        return Decision(Outcome.APPROVED, account=account, detail=detail, tombstone=True)
    refusal = _refuse_reversal(request, original, draft)
    if refusal is not None:
        return refusal
    if draft is None:
        if original.outcome is Outcome.APPROVED:
            # Not an answer: it would be acknowledged, and nothing given back.
            raise LookupError("an approved original's account was not read")
        return Decision(Outcome.APPROVED)  # declined: the card was unknown
    if original.outcome is not Outcome.APPROVED:
        return approved(draft, 0, Detail(card_id=original.card_id, expired=draft.expired))
    if original.progress.ended:
        values: dict[str, int | str] = {"reversed": original.progress.reversed}
        return refused(draft, Outcome.ALREADY_REVERSED, values, original.card_id)
    if original.kind in (Kind.AUTHORIZATION, Kind.INCREMENT):
        return _reverse_hold(request, facts, original, draft)
    left = original.amount - original.progress.reversed
    amount = left if request.amount == original.requested else request.amount
    if amount > left:
        return _over(draft, original, amount)
    if original.kind is Kind.TOP_UP:
        return _reverse_top_up(original, draft, amount)
    if original.kind is Kind.REFUND:
        return _reverse_refund(facts, original, draft, amount)
    return _undo_taking(facts, original, draft, amount)


def _refuse_reversal(
    request: AuthorizationRequest, original: Original, draft: Draft | None
) -> Decision | None:
    """Only the terminal that sent the original reverses it, and not over a refund of it."""
    compared = {
        "kind": original.kind in _REVERSIBLE,
        "acquirer": original.acquirer == request.acquirer,
        "merchant": original.merchant_id == request.merchant_id,
        "terminal": original.terminal_id == request.terminal_id,
        "currency": original.currency == request.currency,
        "refunded": original.progress.refunded == 0,
        "amount": request.amount > 0
        or original.kind is Kind.BALANCE_INQUIRY
        or original.outcome is not Outcome.APPROVED,
    }
    differs = [name for name, same in compared.items() if not same]
    if not differs:
        return None
    values: dict[str, int | str] = {"differs": ", ".join(differs)}
    return refused(draft, Outcome.ORIGINAL_MISMATCH, values, original.card_id)


def decide_void(request: AuthorizationRequest, facts: Facts) -> Decision:
    """The merchant takes back the whole: what an authorization still holds, or what was taken.

    Captures of a voided authorization stand. The amount asked for is the original's, or 0; that of
    the answer is what was released or given back.
    """
    found = named_original(facts, _VOIDABLE)
    if isinstance(found, Decision):
        return found
    original, draft = found
    progress = original.progress
    whole = (0, original.amount, original.requested, progress.authorized)
    also = (("refunded", progress.refunded == 0), ("amount", request.amount in whole))
    refusal = refuse_mismatch(request, facts, original, draft, also)
    if refusal is not None:
        return refusal
    if original.kind is not Kind.AUTHORIZATION:
        return refuse_disputed(original, draft) or _undo_taking(
            facts, original, draft, original.amount - progress.reversed
        )
    hold = draft.find_hold(original.txid)
    if hold is None:
        return hold_ended(draft, original)
    amount = release(draft, hold, hold.amount)
    _give_back(draft, original, amount, progress.captured == 0)
    after = _changed(progress, reversed=progress.reversed + amount, ended=True)
    detail = Detail(card_id=original.card_id, expired=draft.expired)
    return approved(draft, amount, detail, {original.txid: after})


def _undo_taking(facts: Facts, original: Original, draft: Draft, amount: int) -> Decision:
    """Give back an amount of a purchase, an advice or a capture (or nothing: of an inquiry).

    An authorization whose capture is undone may be captured again while its hold hasn't ended; what
    was captured doesn't come back into the hold.
    """
    parts = _back_to(draft, original, amount)
    draft.settle(original.txid, amount)
    draft.credit(parts, Side.SETTLEMENT)
    undone = original.progress.reversed + amount
    whole = undone == original.amount
    _give_back(draft, original, amount, whole)
    changes = {original.txid: _changed(original.progress, reversed=undone, ended=whole)}
    if original.kind is Kind.CAPTURE and facts.root is not None:
        root = facts.root.progress
        changes[facts.root.txid] = _changed(root, captured=root.captured - amount)
    detail = Detail(parts=parts, card_id=original.card_id, expired=draft.expired)
    return approved(draft, amount, detail, changes)


def _reverse_refund(facts: Facts, original: Original, draft: Draft, amount: int) -> Decision:
    """Take a refund back: from the purses that got it, then from the others."""
    got = [purse for purse, _ in last_of(original.parts, amount, original.progress.reversed)]
    able = sorted(
        draft.purses,
        key=lambda purse: got.index(purse.account_id) if purse.account_id in got else len(got),
    )
    parts = split(amount, able)
    if total(parts) < amount:
        return not_enough(draft, amount, available_in(able), original.card_id)
    draft.pay(parts, Side.SETTLEMENT)
    undone = original.progress.reversed + amount
    ended = undone == original.amount
    changes = {original.txid: _changed(original.progress, reversed=undone, ended=ended)}
    if facts.root is not None:
        root = facts.root.progress
        changes[facts.root.txid] = _changed(root, refunded=root.refunded - amount)
    detail = Detail(parts=parts, card_id=original.card_id, expired=draft.expired)
    return approved(draft, amount, detail, changes)


def _reverse_top_up(original: Original, draft: Draft, amount: int) -> Decision:
    """Take a top-up back: the cash was given back already, so what was spent since is owed."""
    parts = split(amount, draft.purses)
    shortfall = amount - total(parts)
    draft.pay(parts, Side.SETTLEMENT)
    draft.owe(shortfall, Side.SETTLEMENT)
    undone = original.progress.reversed + amount
    whole = undone == original.amount
    _give_back(draft, original, amount, whole)
    if whole:
        draft.loads -= 1
    detail = Detail(
        parts=parts, shortfall=shortfall, card_id=original.card_id, expired=draft.expired
    )
    changes = {original.txid: _changed(original.progress, reversed=undone, ended=whole)}
    return approved(draft, amount, detail, changes)


def _reverse_hold(
    request: AuthorizationRequest, facts: Facts, original: Original, draft: Draft
) -> Decision:
    """Release an amount of a hold: of the authorization itself, or what an increment added.

    Captures stand, so what was captured can't be released. Where the hold has expired and nothing
    was captured, there is nothing to release, but the authorization is as if it had not been.
    """
    root = original if original.kind is Kind.AUTHORIZATION else facts.root
    if root is None:
        return refused(draft, Outcome.ORIGINAL_NOT_FOUND, None, original.card_id)
    progress = root.progress
    if progress.ended:
        return refused(
            draft, Outcome.ALREADY_REVERSED, {"reversed": progress.reversed}, original.card_id
        )
    hold = draft.find_hold(root.txid)
    if hold is None and progress.captured:
        return hold_ended(draft, root)
    left = of_all = progress.authorized - progress.captured - progress.reversed
    if root is not original:
        left = min(of_all, original.amount - original.progress.reversed)
    amount = left if request.amount == original.requested else request.amount
    if amount > left:
        return _over(draft, original, amount)
    if hold is not None:
        release(draft, hold, amount)
    nothing_left = progress.captured == 0 and amount == of_all
    if root is original:
        after = _changed(progress, reversed=progress.reversed + amount, ended=nothing_left)
        changes = {root.txid: after}
        _give_back(draft, root, amount, nothing_left)
    else:
        undone = original.progress.reversed + amount
        whole = undone == original.amount
        changes = {
            root.txid: _changed(
                progress, authorized=progress.authorized - amount, ended=nothing_left
            ),
            original.txid: _changed(original.progress, reversed=undone, ended=whole),
        }
        _give_back(draft, original, amount, whole)
        if nothing_left:
            _give_back(draft, root, 0, True)
    detail = Detail(card_id=original.card_id, expired=draft.expired)
    return approved(draft, amount, detail, changes)


def _give_back(draft: Draft, original: Original, amount: int, whole: bool) -> None:
    """A use (of the whole), and what was counted in windows: never more than the original counted.

    More may be released of an authorization than it counted itself: its increments count as theirs.
    """
    before = min(original.progress.reversed, original.amount)
    own = min(original.progress.reversed + amount, original.amount) - before
    limits.give_back(draft, original, own, whole)
    if whole and original.used and original.card_id is not None:
        standing.count_use(draft, original.card_id, -1)


def _back_to(draft: Draft, original: Original, amount: int) -> Parts:
    """The purses that get an amount of an original back: who paid last gets first.

    What was posted over their means, or out of an offline reserve, comes back first, into the main
    purse: there it repays what is owed, if it still is.
    """
    beside = original.shortfall + original.reserve
    paid = (*original.parts, (draft.purses[0].account_id, beside))
    parts = last_of(paid, amount, original.progress.refunded + original.progress.reversed)
    if total(parts) != amount:
        raise ValueError(f"what paid for {original.txid.hex()} doesn't come to its amount")
    return parts


def _over(draft: Draft, original: Original, amount: int) -> Decision:
    progress = original.progress
    values: dict[str, int | str] = {
        "amount": amount,
        "original": original.amount,
        "captured": progress.captured,
        "refunded": progress.refunded,
        "reversed": progress.reversed,
    }
    return refused(draft, Outcome.OVER_ORIGINAL_AMOUNT, values, original.card_id)


def _changed(
    progress: Progress,
    *,
    authorized: int | None = None,
    captured: int | None = None,
    refunded: int | None = None,
    reversed: int | None = None,
    ended: bool = False,
) -> Progress:
    """The progress with some sums replaced; what has ended stays ended."""
    return Progress(
        progress.authorized if authorized is None else authorized,
        progress.captured if captured is None else captured,
        progress.refunded if refunded is None else refunded,
        progress.reversed if reversed is None else reversed,
        progress.ended or ended,
    )
