"""A member's node, with a log on a real chain, behind its real API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nodes.chain.directory import Directory
from nodes.clock import SystemClock
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import PanVault
from tests.factories.evidence import LogMember
from tests.integration.api.running import (
    ACQUIRER,
    SEEDS,
    NodeUnderTest,
    RunningNode,
    listener,
    settings_of,
    start,
)


@contextmanager
def served(member: LogMember, **settings: Any) -> Iterator[RunningNode]:
    """The node's API; chain and directory are the member's own. `settings`: what differs."""
    listening = listener()
    document = settings_of(
        member.member_id, "acquirer", listening.getsockname()[1], member.database
    )
    directory = Directory(member.context.client, member.chain.member_registry)
    directory.refresh()
    chain = {
        "rpc_url": member.chain.rpc_url,
        "member_registry": member.chain.member_registry,
        "anchor_registry": member.chain.anchor_registry,
    }
    secrets = {"message": SEEDS[ACQUIRER], "note": bytes(32)} | settings.pop("secrets", {})
    node = NodeUnderTest(
        settings=document.model_copy(update=chain | settings),
        clock=settings.pop("clock", SystemClock()),
        engine=member.database.engine,
        keystore=Keystore(secrets, "test"),
        directory=directory,  # type: ignore[arg-type]
        chain=member.context.client,  # type: ignore[arg-type]
        authorizer=None,
        vault=PanVault(bytes(32), bytes(32)),
        hsm_keys={},
    )
    running = start(node, listening)
    try:
        yield running
    finally:
        running.stop()
