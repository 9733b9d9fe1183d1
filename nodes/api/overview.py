"""`/v1/overview`: what an operator wants to see at a glance."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection

from nodes.anchoring import queries as anchoring
from nodes.api.accounts import sealed_place
from nodes.api.auth import reader
from nodes.api.dependencies import TheNode
from nodes.api.metrics import lag_seconds
from nodes.api.node import ApiNode
from nodes.api.reads import snapshot
from nodes.api.schemas import (
    AccountSummary,
    LogSummary,
    MinuteVolume,
    OpenWorkItem,
    Overview,
    Totals,
)
from nodes.authorization.queries import open_work
from nodes.clock import to_datetime
from nodes.ledger import queries as ledger

router = APIRouter(prefix="/v1/overview", tags=["operations"], dependencies=[Depends(reader)])

_DEFAULT_CURRENCY = "CNY"


@router.get("")
def get_overview(node: TheNode, minutes: Annotated[int, Query(ge=1, le=1_440)] = 60) -> Overview:
    """Volume by minute, declines, the day's totals, the log's state and the accounts."""
    now = to_datetime(node.clock.now_ms())
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=minutes - 1)
    today = start_of_day(now, node.settings.business_time_zone)
    side = primary_side(node)
    with snapshot(node.engine) as connection:
        currency = ledger.main_currency(connection, min(since, today), side) or _DEFAULT_CURRENCY
        return Overview(
            member_id=node.settings.member_id,
            side=side,
            volume=_volume(connection, since, minutes, side, currency),
            declines=ledger.declines_since(connection, since, side),
            totals=Totals(
                since=today,
                currency=currency,
                **ledger.totals_since(connection, today, side, currency),
            ),
            log=_log(connection, now),
            accounts=_accounts(connection),
            open_work=_open_work(connection),
        )


def primary_side(node: ApiNode) -> str:
    """The side whose transactions are counted, so that an on-us one isn't counted twice."""
    return node.settings.roles[0]


def start_of_day(now: datetime, time_zone: str) -> datetime:
    """Midnight of the day that it is in a time zone."""
    local = now.astimezone(ZoneInfo(time_zone))
    return local.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(now.tzinfo)


def _volume(
    connection: Connection, since: datetime, minutes: int, side: str, currency: str
) -> list[MinuteVolume]:
    rows = {
        row["minute"]: row for row in ledger.volume_by_minute(connection, since, side, currency)
    }
    empty = {"approved": 0, "declined": 0, "amount": 0}
    return [
        MinuteVolume(**({"minute": minute} | dict(rows.get(minute, empty))))
        for minute in (since + timedelta(minutes=offset) for offset in range(minutes))
    ]


def _log(connection: Connection, now: datetime) -> LogSummary:
    status = anchoring.log_status(connection)
    return LogSummary(
        size=status.size,
        sealed_seq=status.sealed_seq,
        anchored_seq=status.anchored_seq,
        anchored_size=status.anchored_size,
        unsealed=status.unsealed,
        lag_seconds=round(lag_seconds(status, now), 3),
    )


def _accounts(connection: Connection) -> list[AccountSummary]:
    moved = ledger.unsealed_by_kind(connection, sealed_place(connection))
    return [
        AccountSummary(
            kind=row["kind"],
            currency=row["currency"],
            count=row["count"],
            balance=row["balance"] + moved.get((row["kind"], row["currency"]), 0),
        )
        for row in ledger.account_kinds(connection)
    ]


def _open_work(connection: Connection) -> OpenWorkItem:
    work = open_work(connection)
    return OpenWorkItem(
        pending_requests=work.pending_requests, pending_reversals=work.pending_reversals
    )
