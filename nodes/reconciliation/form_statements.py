"""The form of what the authorization path records (invariant 23).

PostgreSQL compiles each CHECK anew for every statement, so the hot tables have none but those that
guard money (ADR 15). What the node's encoder makes is looked at here instead.
"""

from __future__ import annotations

_KINDS = (
    "('purchase', 'balance_inquiry', 'refund', 'reversal', 'load', 'authorization', 'increment',"
    " 'capture', 'void', 'advice', 'expiry', 'adjustment', 'transfer', 'top_up', 'reserve',"
    " 'release')"
)

#: (invariant, rule, statement): each row of a statement's result is a violation. NULL passes where
#: the column may be NULL.
FORMS: tuple[tuple[int, str, str], ...] = (
    (
        23,
        "a transaction's columns have their forms",
        "SELECT format('transaction %s', transaction_id) FROM transactions"
        " WHERE side NOT IN ('issuer', 'acquirer', 'merchant')"
        f" OR kind NOT IN {_KINDS} OR octet_length(txid) <> 32"
        " OR octet_length(network_ref) <> 16 OR octet_length(card_token) <> 16"
        " OR octet_length(original_txid) <> 32 OR octet_length(salt_fin) <> 32"
        " OR octet_length(salt_pii) <> 32 OR octet_length(card_token_leaf) <> 32"
        " OR octet_length(salt_private) <> 32 OR octet_length(commitment) <> 32",
    ),
    (
        23,
        "a request's and an answer's keys and digests have their forms",
        "SELECT format('request %s, %s', encode(idempotency_key, 'hex'), side)"
        " FROM authorization_requests WHERE side NOT IN ('issuer', 'acquirer')"
        " OR octet_length(idempotency_key) <> 32 OR octet_length(fingerprint) <> 32"
        " OR octet_length(txid) <> 32 UNION ALL"
        " SELECT format('answer %s', encode(idempotency_key, 'hex'))"
        " FROM authorization_answers WHERE octet_length(idempotency_key) <> 32",
    ),
)
