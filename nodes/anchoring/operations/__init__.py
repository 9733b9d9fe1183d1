"""The log's use cases, each a function that can be repeated at any time without harm.

A row in PostgreSQL is the truth; whoever calls (a Celery task, a test, a person) only rings the
doorbell. Recovery runs the same functions as the normal path.
"""

from nodes.anchoring.operations.feed import FeedRefused, record_feed
from nodes.anchoring.operations.publishing import (
    AnchorContext,
    LogFenced,
    bind_chain,
    check_head,
    check_note_key,
    confirm,
    publish,
)
from nodes.anchoring.operations.sealing import LogDamaged, seal

__all__ = [
    "AnchorContext",
    "FeedRefused",
    "LogDamaged",
    "LogFenced",
    "bind_chain",
    "check_head",
    "check_note_key",
    "confirm",
    "publish",
    "record_feed",
    "seal",
]
