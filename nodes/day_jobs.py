"""What a worker does for closes: close, post, compare, correct, follow. Each job can be repeated.

The acquirer's node compares and keeps the cases; the issuer's takes them over and reports what it
has corrected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from nodes.anchoring.operations.answering import leaf_evidence
from nodes.api.clearing_client import ClearingClient, case_events_since, clearing_client
from nodes.api.client import NodeRefused, NodeUnreachable
from nodes.authorization.operations.checking import check_answers
from nodes.bootstrap import Node
from nodes.chain.closes import CloseRegistry
from nodes.chain.evidence import Evidence
from nodes.chain.settlements import SettlementRegistry
from nodes.clearing import case_queries, queries
from nodes.clearing.model import CaseOutcome, CaseStep
from nodes.clearing.operations.cases import NODE, advance_late, end_cases, take_over
from nodes.clearing.operations.closing import ClosingTerms, close_days
from nodes.clearing.operations.correcting import correct_cases
from nodes.clearing.operations.posting import (
    PostingContext,
    Watch,
    post_closes,
    watch_closes,
)
from nodes.clock import to_datetime
from nodes.crypto.http_signatures import MessageSigner
from nodes.db.engine import transaction
from nodes.reconciliation.day_comparison import CountedExchange, compare_close
from nodes.settlement.operations.context import SettlementContext
from nodes.settlement.operations.settling import settle

log = structlog.get_logger(__name__)

T = TypeVar("T")


class DayJobs:
    """The jobs of one node. Used by one thread, on the loop of its runner."""

    def __init__(self, node: Node, runner: asyncio.Runner) -> None:
        settings = node.settings
        self._node = node
        self._runner = runner
        self._signer = MessageSigner(node.member_id, node.keystore.secret("message"))
        self.terms = ClosingTerms(
            settings.business_time_zone,
            settings.close_grace_s,
            settings.late_after_s,
            settings.case_due_s,
        )
        self._settlement = self._settling(node)
        self._posting: PostingContext | None = None
        self._watch = Watch()
        if settings.close_registry:
            self._posting = PostingContext(
                node.engine,
                node.member_id,
                node.chain,
                CloseRegistry(node.chain, settings.close_registry),
                node.signer,
                node.clock,
            )

    def _settling(self, node: Node) -> SettlementContext | None:
        settings = node.settings
        if not settings.close_registry or not settings.settlement_registry:
            return None
        return SettlementContext(
            engine=node.engine,
            member_id=node.member_id,
            client=node.chain,
            registry=SettlementRegistry(node.chain, settings.settlement_registry),
            signer=node.signer,
            clock=node.clock,
            evidence=self._evidence,
            automatic=settings.settlement == "automatic",
            due_s=settings.settlement_due_s,
        )

    def check_answers(self) -> int:
        """Check what issuers have signed of their answers; how many. IssuerUnknown puts it off."""
        if "acquirer" not in self._node.settings.roles:
            return 0
        return check_answers(self._node.engine, self._message_keys)

    def _message_keys(self, issuer: str) -> list[bytes]:
        """An issuer's present message key, then its earlier ones."""
        member = self._node.directory.member(issuer)
        if member is None:
            return []
        earlier = [period.key for period in reversed(member.message_keys)]
        return [member.message_key, *(key for key in earlier if key != member.message_key)]

    def close(self) -> int:
        """Close the days that are due, and see which the others have opened; how many of both."""
        node = self._node
        made = len(close_days(node.engine, node.member_id, node.clock, self.terms))
        # After it: a day is closed with the chain away, too.
        return made + (watch_closes(self._posting) if self._posting is not None else 0)

    def post(self) -> int:
        """Bring closes further on the chain; how many steps."""
        return post_closes(self._posting, self._watch) if self._posting is not None else 0

    def settle(self) -> int:
        """Bring settlement statements further; how many things were done."""
        return settle(self._settlement) if self._settlement is not None else 0

    def _evidence(self, txid: bytes) -> Evidence | None:
        """The anchored leaf of a transaction between institutions in this member's log."""
        with transaction(self._node.engine) as connection:
            return leaf_evidence(connection, txid)

    def reconcile(self) -> int:
        """Compare what the chain has judged, and bring cases further; how many things were done."""
        node = self._node
        done = self._compare() + self._follow()
        now = to_datetime(node.clock.now_ms())
        for ref, entry in correct_cases(
            node.engine, node.member_id, now, node.settings.business_time_zone
        ):
            done += self._report(ref, CaseStep.CORRECTED, entry)
        for ref, step in advance_late(node.engine, node.member_id, now):
            done += self._report(ref, step, None)
        return done + end_cases(node.engine, node.member_id, now)

    def _compare(self) -> int:
        node, done = self._node, 0
        with transaction(node.engine) as connection:
            waiting = queries.uncompared(connection)
        if waiting:
            # What isn't signed is a break of the day: it must be known before.
            self.check_answers()
        for staged in waiting:
            client = self._client(staged.close.key.issuer)
            if client is None:
                continue

            def send(question: bytes, client: ClearingClient = client) -> bytes:
                return self._run(client.compare(question))

            try:
                compare_close(
                    node.engine,
                    node.member_id,
                    staged.close,
                    staged.stage,
                    CountedExchange(send),
                    node.clock,
                    self.terms,
                )
                done += 1
            except (NodeUnreachable, NodeRefused) as error:
                log.warning("comparison_put_off", close=str(staged.close.key), why=str(error))
            finally:
                self._run(client.close())
        return done

    def _follow(self) -> int:
        """Take over the cases that acquirers keep."""
        node, taken = self._node, 0
        with transaction(node.engine) as connection:
            acquirers = case_queries.acquirers_with_closes(connection)
        for acquirer in acquirers:
            client = self._client(acquirer)
            if client is None:
                continue
            with transaction(node.engine) as connection:
                after = case_queries.case_cursor(connection, acquirer)
            try:
                events = self._run(case_events_since(client, after))
            except (NodeUnreachable, NodeRefused) as error:
                log.warning("cases_not_taken", acquirer=acquirer, why=str(error))
                continue
            finally:
                self._run(client.close())
            taken += take_over(node.engine, node.member_id, acquirer, events)
        return taken

    def _report(self, ref: bytes, step: CaseStep, entry: bytes | None) -> int:
        """Tell the keeper of a case what these books have done; 1 once it has taken it."""
        with transaction(self._node.engine) as connection:
            files = case_queries.case_files(connection, refs=[ref])
            staged = queries.close_by_id(connection, files[0].found["close_id"]) if files else None
        client = self._client(staged.close.key.acquirer) if staged else None
        if client is None:
            return 0
        call = client.case_step(
            ref, step, actor=NODE, idempotency_key=f"{step.value}-{ref.hex()}", entry_txid=entry
        )
        try:
            outcome = self._run(call)
        except (NodeUnreachable, NodeRefused) as error:
            log.warning("step_not_taken", step=step.value, why=str(error))
            return 0
        finally:
            self._run(client.close())
        return int(outcome is CaseOutcome.DONE)

    def _client(self, member_id: str) -> ClearingClient | None:
        client = clearing_client(self._node.directory, self._signer, member_id)
        if client is None:
            log.warning("member_away", member=member_id)
        return client

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)
