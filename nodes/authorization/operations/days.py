"""The days that requests and answers are kept by, made before they begin."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from nodes.authorization.store import requests
from nodes.clock import to_datetime
from nodes.db.engine import transaction

#: So long may a node's worker stand still without a day beginning in the default partition.
_AHEAD = timedelta(days=7)
_DAY = timedelta(days=1)


def make_days(engine: Engine, now_ms: int) -> int:
    """Make the partitions from yesterday (business dates are local) to a week ahead; how many were
    made. psycopg.errors.LockNotAvailable: somebody looks through all days at the moment; later."""
    today = to_datetime(now_ms).date()
    with transaction(engine) as connection:
        return requests.make_days(connection, today - _DAY, today + _AHEAD)
