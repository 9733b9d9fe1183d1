"""The node's background jobs: Celery tasks over a queue in PostgreSQL, rung by a clock.

A task is only a doorbell. What there is to do stands in the node's database, each operation does
all of it and can be repeated, so a lost, doubled or late message costs nothing but time. The clock
(Celery beat, as a thread of the worker: it must not outlive it) rings again and again, one task for
all jobs that are due (nodes/rounds.py), which makes it the sweeper too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import sqlalchemy.exc
import structlog
from celery import Celery
from celery.beat import EmbeddedService, Scheduler
from pgmq.install import get_embedded_install_sql

from nodes.acquirer_jobs import AcquirerJobs
from nodes.anchoring import feed_queries, queries
from nodes.anchoring.event_store import record_keys
from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations import (
    AnchorContext,
    FeedRefused,
    LogDamaged,
    LogFenced,
    bind_chain,
    check_head,
    check_note_key,
    confirm,
    publish,
    record_feed,
    seal,
)
from nodes.anchoring.operations.answering import ClaimWatch, answer_claims
from nodes.anchoring.operations.event_sealing import seal_events
from nodes.anchoring.operations.sealing import SEAL_LIMIT
from nodes.anchoring.rules import BUSY_ROWS, RowUnsound, may_wait
from nodes.anchoring.store import transaction
from nodes.api.client import NodeClient, NodePeer, NodeRefused, NodeUnreachable
from nodes.authorization.operations.booking import AccountBusy
from nodes.authorization.operations.checking import IssuerUnknown
from nodes.authorization.operations.days import make_days
from nodes.authorization.operations.expiring import expire_holds
from nodes.bootstrap import Node
from nodes.chain.challenges import OmissionRegistry
from nodes.chain.directory import Member
from nodes.chain.errors import ChainError
from nodes.claims.operations import RelayContext, relay_claims
from nodes.clearing.operations.cases import CaseRefused
from nodes.clearing.operations.posting import CloseFenced
from nodes.crypto.http_signatures import MessageSigner
from nodes.day_jobs import DayJobs
from nodes.reconciliation.comparing import ComparisonFailed
from nodes.reconciliation.protocol import MessageRefused
from nodes.rounds import RING_S, Job, Rounds

log = structlog.get_logger(__name__)

QUEUE = "countersign"
#: Every job is rung at least this often, whatever happened to its messages.
SWEEP_S = 2.0
#: How often events are sealed: rarely enough that they make few batches of their own.
EVENTS_S = 15.0
#: How often issuers' signatures are checked; a day is compared only after it.
CHECKS_S = 5.0
#: How often claims of omission are looked for; there is a day to answer.
CLAIMS_S = 10.0
#: How often statements are looked for that others have brought further.
STATEMENTS_S = 4.0
#: Days end once a day: looking for them more often would only cost.
CLOSE_S = 10.0
#: Days are made a week ahead.
_DAYS_S = 600.0
#: How old an acquirer's copy of the hotlist gets, while all issuers are there.
_HOTLIST_S = 30.0
_FEED_PAGE = 200
#: So many full batches are sealed in a row; then the other jobs have their turn.
_FULL_BATCHES = 8
#: Outages, which pass: the next ring tries again.
_OUTAGES = (
    AccountBusy,
    ChainError,
    IssuerUnknown,
    NodeUnreachable,
    NodeRefused,
    psycopg.OperationalError,
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.TimeoutError,
)
#: States of the data that a person must look into; the job stands still until then.
_ALARMS = (
    LogFenced,
    LogDamaged,
    RowUnsound,
    FeedRefused,
    CloseFenced,
    CaseRefused,
    ComparisonFailed,
    MessageRefused,
)


class Jobs:
    """What the tasks do, for one node. Used by one thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._runner = asyncio.Runner()
        self._feeds: dict[str, tuple[Member, NodeClient]] = {}
        self._note_signer = NoteSigner(node.keystore.secret("note"))
        self._message_signer = MessageSigner(node.member_id, node.keystore.secret("message"))
        self._context: AnchorContext | None = None
        #: The chain's block at which there was nothing to publish.
        self._quiet_at: bytes | None = None
        self._claims = ClaimWatch()
        self._noted_keys: list[tuple[str, bytes, int, int | None]] = []
        self._days = DayJobs(node, self._runner)
        self.acquirer = AcquirerJobs(node, self._runner, self._client_of, _ring)

    def close(self) -> None:
        """Close the connections to other nodes."""
        for _, client in self._feeds.values():
            self._runner.run(client.close())
        self._runner.close()

    def context(self) -> AnchorContext:
        """What sealing and publishing work with, once chain and database are known to agree.

        Asked of the chain at the first job of a process: a database that was restored from a
        backup, or a chain that was swapped, must not be sealed on (LogFenced).
        """
        if self._context is None:
            node, settings = self._node, self._node.settings
            chain_id = node.chain.chain_id()
            context = AnchorContext(
                engine=node.engine,
                identity=LogIdentity(node.member_id, chain_id, settings.anchor_registry.lower()),
                client=node.chain,
                registry=node.anchors,
                signer=node.signer,
                clock=node.clock,
            )
            bind_chain(context, settings.member_registry)
            check_head(context)
            self._context = context
        return self._context

    def seal(self) -> bool:
        """Seal committed rows; whether there were any. Under load they may wait a little.

        Rows that come while it seals wait for the next ring: batches of a few would each cost an
        anchor, and terminals' jobs their turn.
        """
        context, sealed = self.context(), False
        self._check_note_key()
        with context.engine.connect() as connection:
            oldest_s, recent_s = queries.sealing_pressure(connection, BUSY_ROWS)
        if may_wait(oldest_s, recent_s, self._node.settings.seal_patience_s):
            return False
        for _ in range(_FULL_BATCHES):
            batch = seal(context.engine, context.identity, self._note_signer, context.clock)
            sealed = sealed or batch is not None
            if batch is None or batch.leaf_count < SEAL_LIMIT:
                break
        return sealed

    def seal_events(self) -> bool:
        """Seal all committed events; whether there were any."""
        context, sealed = self.context(), False
        self._note_keys()
        self._check_note_key()
        while seal_events(context.engine, context.identity, self._note_signer, context.clock):
            sealed = True
        return sealed

    def _check_note_key(self) -> None:
        """LogFenced if the chain has another note key than the keystore. What was sealed before
        that was seen is published, and proven by the first anchor under the new key."""
        member = self._node.directory.member(self._node.member_id)
        if member is not None:
            check_note_key(self._note_signer.public_key, member.note_keys)

    def _note_keys(self) -> None:
        """Keys that began or ended on the chain become events of this member."""
        member = self._node.directory.member(self._node.member_id)
        if member is None:
            return
        held = {
            "operator": member.operators,
            "note": member.note_keys,
            "message": member.message_keys,
            "promise": member.promise_keys,
        }
        periods = [(kind, p.key, p.first, p.last) for kind, ps in held.items() for p in ps]
        if periods != self._noted_keys:
            with transaction(self._node.engine) as connection:
                record_keys(connection, periods)
            self._noted_keys = periods

    def publish(self) -> int:
        """Send sealed batches to the chain; how many.

        The chain isn't asked where all is anchored and it has no other block than at the last look.
        """
        context, newest = self.context(), self._node.directory.block
        if newest is not None and newest.hash == self._quiet_at:
            with context.engine.connect() as connection:
                if queries.is_all_anchored(connection):
                    return 0
        sent = publish(context)
        self._quiet_at = newest.hash if newest is not None and not sent else None
        return sent

    def confirm(self) -> int:
        """Note which anchors are final; how many."""
        return confirm(self.context())

    def answer_claims(self) -> int:
        """Answer claims of omission with the leaf's inclusion proof; how many."""
        address = self._node.settings.omission_registry
        if address is None:
            return 0
        omissions = OmissionRegistry(self._node.chain, address)
        return answer_claims(self.context(), omissions, self._claims)

    def relay_claims(self) -> int:
        """Take others' overdue promises to the chain; how many steps."""
        node, address = self._node, self._node.settings.omission_registry
        if address is None:
            return 0
        omissions = OmissionRegistry(node.chain, address)
        return relay_claims(
            RelayContext(node.engine, node.chain, omissions, node.signer, node.clock)
        )

    def check_answers(self) -> int:
        """Check what issuers have signed of their answers; how many."""
        return self._days.check_answers()

    def close_days(self) -> int:
        """Close the business dates that are over; how many."""
        return self._days.close()

    def post_closes(self) -> int:
        """Bring closes further on the chain; how many steps."""
        return self._days.post()

    def settle(self) -> int:
        """Bring settlement statements further; how many things were done."""
        return self._days.settle()

    def reconcile(self) -> int:
        """Compare closes with the other side's, and bring the cases of breaks further."""
        return self._days.reconcile()

    def make_days(self) -> int:
        """Make the partitions of the days to come; how many."""
        return make_days(self._node.engine, self._node.clock.now_ms())

    def expire_holds(self) -> int:
        """Release holds whose time is over on quiet accounts; how many accounts had any."""
        settings = self._node.settings
        if "issuer" not in settings.roles:
            return 0
        now_ms = self._node.clock.now_ms()
        return expire_holds(
            self._node.engine, settings.member_id, now_ms, settings.business_time_zone
        )

    def pull_feed(self) -> int:
        """Take what is new in each acquirer's feed of this merchant; how many entries."""
        if "merchant" not in self._node.settings.roles:
            return 0
        recorded = 0
        for member in self._node.directory.members():
            if not member.active or "acquirer" not in member.roles:
                continue
            try:
                recorded += self._pull_from(member)
            except (NodeUnreachable, NodeRefused) as error:
                log.warning("feed_not_taken", acquirer=member.member_id, why=str(error))
        return recorded

    def _pull_from(self, member: Member) -> int:
        recorded = 0
        while True:
            with transaction(self._node.engine) as connection:
                after = feed_queries.feed_cursor(connection, member.member_id)
            items = self._runner.run(self._client_of(member).feed(after, _FEED_PAGE))
            recorded += record_feed(self._node.engine, member.member_id, items, self._node.clock)
            if len(items) < _FEED_PAGE:
                return recorded

    def _client_of(self, member: Member) -> NodeClient:
        known = self._feeds.get(member.member_id)
        if known is not None and known[0] == member:
            return known[1]
        client = NodeClient(
            member.api_url,
            signer=self._message_signer,
            peer=NodePeer(member.member_id, member.message_key),
        )
        self._feeds[member.member_id] = (member, client)
        if known is not None:
            self._runner.run(known[1].close())
        return client


def _ring(name: str, job: Callable[[], Any]) -> Any:
    """Do a job; outages and alarms are logged, and wait for the next ring."""
    try:
        return job()
    except _OUTAGES as error:
        log.warning("job_put_off", job=name, why=type(error).__name__)
    except _ALARMS as error:
        log.error("job_refused", job=name, why=str(error))
    return None


def make_rounds(node: Node, jobs: Jobs) -> Rounds:
    """A node's jobs in the order of a round: terminals' first, and each before what follows from
    it. What was sent to the chain is looked for in the next round: a block takes a moment.
    """
    settings, acquirer = node.settings, jobs.acquirer
    made = [Job("seal_events", jobs.seal_events, EVENTS_S, then="publish")]
    if "acquirer" in settings.roles:
        made = [
            Job("forward_reversals", acquirer.forward_reversals, RING_S),
            Job("forward_advices", acquirer.forward_advices, RING_S),
            Job("collect_webhooks", acquirer.collect_webhooks, RING_S),
            Job("recover_pending", acquirer.recover_pending, SWEEP_S),
            Job("roll_batches", acquirer.roll_batches, SWEEP_S),
            Job("copy_hotlists", acquirer.copy_hotlists, _HOTLIST_S),
            *made,
            Job("check_answers", jobs.check_answers, CHECKS_S),
        ]
    if "issuer" in settings.roles:
        made.append(Job("expire_holds", jobs.expire_holds, SWEEP_S))
    if "merchant" in settings.roles:
        made.append(Job("pull_feed", jobs.pull_feed, SWEEP_S))
    made += [
        Job("confirm", jobs.confirm, SWEEP_S),
        Job("seal", jobs.seal, settings.seal_interval_s, then="publish"),
        Job("publish", jobs.publish, SWEEP_S, then="confirm"),
    ]
    if settings.omission_registry is not None:
        made += [
            Job("answer_claims", jobs.answer_claims, CLAIMS_S),
            Job("relay_claims", jobs.relay_claims, CLAIMS_S),
        ]
    if {"acquirer", "issuer"} & set(settings.roles):
        made += [
            Job("make_days", jobs.make_days, _DAYS_S),
            Job("close_days", jobs.close_days, CLOSE_S, then="post_closes"),
            Job("post_closes", jobs.post_closes, SWEEP_S, then="reconcile"),
            Job("reconcile", jobs.reconcile, SWEEP_S, then="close_days"),
        ]
        if settings.settlement_registry is not None:
            made.append(Job("settle", jobs.settle, STATEMENTS_S, then="settle"))
    return Rounds([replace(job, work=partial(_ring, job.name, job.work)) for job in made])


def make_celery(node: Node, rounds: Rounds) -> Celery:
    """The Celery application of one node: a task for each job, and one that the clock rings."""
    app = Celery("countersign", set_as_current=False)
    app.conf.update(_configuration(node, rounds))

    for name in rounds.jobs:
        _add_task(app, rounds, name)

    def ring() -> None:
        rounds.ring(time.monotonic())

    app.task(ring, name="ring")
    return app


def _add_task(app: Celery, rounds: Rounds, name: str) -> None:
    def task() -> None:
        rounds.do(name, time.monotonic())

    app.task(task, name=name)


def _configuration(node: Node, rounds: Rounds) -> dict[str, Any]:
    settings = node.settings
    return {
        "broker_url": settings.jobs_url,
        "broker_transport_options": _transport_options(settings.jobs_url),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        # Unlimited. An ack that fails because PostgreSQL went away is logged, and its delivery
        # counted as open for ever: with a limit of one the worker would never poll again.
        "worker_prefetch_multiplier": 0,
        "worker_send_task_events": False,
        "task_ignore_result": True,
        "task_default_queue": QUEUE,
        "enable_utc": True,
        "beat_max_loop_interval": 1,
        "beat_schedule": {
            # A ring that waited for several periods is superseded by later ones.
            "ring": {
                "task": "ring",
                "schedule": rounds.period_s,
                "options": {"expires": 5 * rounds.period_s},
            }
        },
    }


def _transport_options(jobs_url: str) -> dict[str, Any]:
    if not jobs_url.startswith("pgmq://"):
        return {}
    return {
        # Doorbells may be lost with the machine: they need not wait for the disk.
        "conn_string": _jobs_dsn(jobs_url) + "?options=-c%20synchronous_commit%3Doff",
        "init_extension": False,
        "pool_size": 2,
        "pool_timeout": 5,
        "visibility_timeout": 60,
        "wait_time_seconds": 0,
        "polling_interval": 0.5,
    }


def _jobs_dsn(jobs_url: str) -> str:
    return "postgresql" + jobs_url.removeprefix("pgmq")


def prepare_queue(jobs_url: str, *, patience_s: float = 60.0) -> None:
    """Install the queue's SQL functions where they lack; waits for PostgreSQL to be there.

    The login must own the jobs' database, or the functions must be there already.
    """
    if not jobs_url.startswith("pgmq://"):
        return
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with psycopg.connect(_jobs_dsn(jobs_url), connect_timeout=5) as connection:
                connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('pgmq', 0))")
                found = connection.execute("SELECT to_regclass('pgmq.meta')").fetchone()
                if found is None or found[0] is None:
                    connection.execute(get_embedded_install_sql())
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("queue_unreachable", why=type(error).__name__)
            time.sleep(0.5)


def run(node: Node) -> None:
    """Work until SIGTERM (then the job at hand is ended first)."""
    os.setpriority(os.PRIO_PROCESS, 0, node.settings.worker_niceness)
    prepare_queue(node.settings.jobs_url)
    jobs = Jobs(node)
    # Before the first payments of the day, if the worker stood still for long.
    _ring("make_days", jobs.make_days)
    app = make_celery(node, make_rounds(node, jobs))
    clock = EmbeddedService(app, thread=True, scheduler_cls=Scheduler)
    clock.start()
    try:
        app.Worker(
            pool="solo",
            concurrency=1,
            queues=[QUEUE],
            loglevel="WARNING",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        ).start()
    finally:
        clock.stop()
        jobs.close()
