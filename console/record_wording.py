"""Words for the shared record: logs, closes, breaks, cases, statements, receipts."""

from __future__ import annotations

#: A node's word of its log beside the chain's -> (badge, icon, words, what it means).
AGREEMENTS = {
    "equal": ("bg-good", "check", "Agrees", "Its signed checkpoint is the chain's newest anchor."),
    "behind": (
        "bg-warn",
        "clock",
        "One behind",
        "Its signed checkpoint is an older anchor, as the chain has it.",
    ),
    "different": (
        "bg-bad",
        "x",
        "Different root",
        "It signed another root than the chain holds for that size.",
    ),
    "ahead": ("bg-bad", "x", "Not on chain", "It states an anchor that the chain doesn't have."),
    "unsigned": (
        "bg-bad",
        "x",
        "Not signed",
        "Its checkpoint isn't signed by the note key that the chain holds for it.",
    ),
    "malformed": (
        "bg-bad",
        "x",
        "No checkpoint",
        "What it gives out is no checkpoint of this log on this chain.",
    ),
    "away": (
        "bg-plain",
        "plug-connected-x",
        "Not answering",
        "Its node gives no checkpoint now. What is anchored stands.",
    ),
    "nothing": ("bg-plain", "clock", "Nothing yet", "Nothing of its log is anchored."),
}

#: Stage of a day's close -> (words, what it means).
CLOSE_STAGES = {
    "PREPARED": ("Prepared", "Made of the books, not on the chain yet."),
    "COMMITTED": ("Committed", "This side has committed; it reveals once the other has too."),
    "REVEALED": ("Revealed", "This side has revealed, and waits for the other."),
    "CONFIRMED": ("Confirmed", "Both sides revealed the same root and totals."),
    "BROKEN": ("Broken", "The two sides revealed different roots or totals."),
    "EXPIRED": ("Expired", "The other side stayed silent: the next revision tries again."),
    "SUPERSEDED": ("Superseded", "A later revision is confirmed in its place."),
}

#: The board's groups of stages.
CLOSE_GROUPS = {
    "confirmed": "Confirmed",
    "broken": "Broken",
    "open": "Open",
    "superseded": "Superseded",
}

#: Class of a break -> (words, what it means).
BREAK_KINDS = {
    "DUPLICATE": ("Duplicate", "A terminal's message is booked a second time."),
    "FIELD_MISMATCH": ("Fields differ", "Both have the transaction, with different content."),
    "TOTALS_MISMATCH": ("Totals differ", "The lists are alike, and the day's totals are not."),
    "WRONG_DATE": ("Wrong date", "Both have it alike, under different business dates."),
    "LATE": ("Late", "One side lacks it, and its time isn't over yet."),
    "MISSING_AT_ISSUER": ("Missing at issuer", "The issuer's books lack it."),
    "MISSING_AT_ACQUIRER": ("Missing at acquirer", "The acquirer's books lack it."),
    "SEQ_GAP": ("Number missing", "A number of the pair that no transaction explains."),
    "UNSIGNED": ("Not signed", "The acquirer recorded it without the issuer's signature."),
}

CASE_STATES = {
    "open": "Open",
    "proposed": "Proposed",
    "countersigned": "Countersigned",
    "corrected": "Corrected",
    "closed": "Closed",
}

CASE_STEPS = {
    "opened": "Opened",
    "proposed": "Correction proposed",
    "refused": "Proposal refused",
    "countersigned": "Proposal countersigned",
    "corrected": "Correcting entry written",
    "arrived": "What was late has arrived",
    "overdue": "Its time is over: it is missing",
    "closed": "Corrected close confirmed",
}

RESOLUTIONS = {
    "TAKE_ACQUIRER": "The acquirer's version stands",
    "TAKE_ISSUER": "The issuer's version stands",
    "ACKNOWLEDGE": "Acknowledged: nothing in a close is wrong",
}

#: The fields of C, and what else a side tells of a broken transaction.
SHARED_FIELDS = {
    "amount": "Amount",
    "currency": "Currency",
    "kind": "Type",
    "time": "Time",
    "merchant": "Merchant",
    "outcome": "Outcome",
    "original": "Original",
    "card_token": "Card token",
    "commitment": "Commitment C",
    "txid": "Transaction id",
    "effect": "Issuer owes",
    "pair_seq": "Pair number",
    "business_date": "Business date",
    "terminal_id": "Terminal",
    "terminal_seq": "Terminal number",
    "stan": "STAN",
    "batch": "Batch",
    "transmitted_at": "Transmitted",
}

#: State of a settlement statement -> (badge, icon, words, what it means).
SETTLEMENT_STATES = {
    "PREPARED": ("bg-plain", "clock", "Prepared", "Signed here, on its way to the chain."),
    "PROPOSED": ("bg-warn", "hourglass", "Proposed", "On the chain with one signature of two."),
    "CONFIRMED": ("bg-good", "check", "Confirmed", "Both have signed the same numbers."),
    "FINAL": ("bg-good", "shield-check", "Final", "Both signed, and nobody disputed in time."),
    "DISPUTED": ("bg-bad", "alert-triangle", "Disputed", "The arbiters have to decide."),
    "RESOLVED": ("bg-plain", "gavel", "Resolved", "The arbiters have decided."),
    "EXPIRED": ("bg-bad", "x", "Expired", "The second signature didn't come in time."),
    "SUPERSEDED": ("bg-plain", "history", "Superseded", "Another statement took its place."),
    "LAPSED": ("bg-plain", "x", "Lapsed", "The other institution's proposal was first."),
}

VERDICTS = {
    "UPHELD": "Upheld: the statement stands",
    "ANNULLED": "Annulled: the statement is void",
}

ORDER_ACTIONS = {
    "propose": "Propose",
    "countersign": "Countersign",
    "dispute": "Dispute",
    "resolve": "Resolve",
}

ORDER_STATES = {
    "waiting": "Waiting",
    "sent": "Sent to the chain",
    "done": "Done",
    "refused": "Refused",
}

#: What became of a receipt's promise -> (badge, icon, words, what it means).
RECEIPT_STATES = {
    "promised": ("bg-plain", "clock", "Promised", "Recorded, not yet in the log."),
    "sealed": ("bg-warn", "clock", "Sealed", "In the log; its anchor isn't final yet."),
    "anchored": ("bg-good", "shield-check", "Anchored", "The promise is kept."),
    "late": ("bg-warn", "shield-check", "Anchored late", "It stands, but came after the deadline."),
    "overdue": (
        "bg-bad",
        "alert-triangle",
        "Overdue",
        "The deadline is over and there is no proof: anybody may take it to the chain.",
    ),
    "denied": (
        "bg-bad",
        "alert-triangle",
        "Not in the books",
        "The node knows no such transaction. After the deadline anybody may take it to the chain.",
    ),
    "claimed": (
        "bg-bad",
        "gavel",
        "Omission claimed",
        "Somebody took the promise to the chain. The member has to answer in time.",
    ),
    "answered": (
        "bg-good",
        "shield-check",
        "Claim answered",
        "The member showed the entry on the chain.",
    ),
    "proven": ("bg-bad", "shield-x", "Omission proven", "Nobody answered: it stands for ever."),
    "invalid": ("bg-bad", "shield-x", "Not valid", "This isn't a promise of this member."),
    "none": ("bg-plain", "clock", "No promise", "No receipt was given for this transaction."),
    "unknown": ("bg-plain", "plug-connected-x", "Can't be told", "Somebody doesn't answer now."),
}


#: Refusals that mean something else at a case than elsewhere.
NOT_DONE_OF_CASE = {
    "maker-is-checker": "Your institution made this proposal: the other one has to countersign it.",
    "key-reused": "This form was sent before with other content: look at the case again.",
    "case-taken": "Somebody has taken this case on before you.",
    "case-not-yours": "This case isn't yours to lay down.",
}
