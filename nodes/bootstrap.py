"""Builds a node from its settings: engines, keys, chain, directory, authorization service."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine

from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.deciding import Issuer
from nodes.authorization.rules.stand_in import StandIn
from nodes.authorization.service import Authorizer, IssuerLink
from nodes.chain.anchors import AnchorRegistry
from nodes.chain.client import ChainClient
from nodes.chain.directory import Directory
from nodes.chain.directory_file import DirectoryFile
from nodes.chain.errors import ChainError
from nodes.chain.signer import LocalSigner, OperatorSigner
from nodes.clock import Clock, SystemClock
from nodes.crypto.answer_signature import AnswerSigner
from nodes.crypto.emv import SoftwareEmvHsm
from nodes.crypto.hsm import PIN_LOOKUP_KEY, SoftwareHsm
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import PanVault
from nodes.db.engine import make_engine
from nodes.settings import NodeSettings

log = structlog.get_logger(__name__)

_DIRECTORY_PERIOD_S = 3.0


@dataclass
class Node:
    """Everything that a node's API and worker work with. Built once, closed once."""

    settings: NodeSettings
    clock: Clock
    keystore: Keystore
    engine: Engine
    chain: ChainClient
    directory: Directory
    anchors: AnchorRegistry
    signer: OperatorSigner
    link: IssuerLink
    authorizer: Authorizer
    directory_file: DirectoryFile
    _stopping: threading.Event = field(default_factory=threading.Event)
    _refresher: threading.Thread | None = None

    @property
    def member_id(self) -> str:
        return self.settings.member_id

    def make_hsm(self) -> SoftwareHsm:
        """An HSM with this node's zone keys and PIN key; one a thread."""
        return _hsm(self.keystore)

    def make_emv_hsm(self) -> SoftwareEmvHsm:
        """What holds the issuer's EMV keys and check values; empty where it has none."""
        return _emv_hsm(self.keystore)

    def make_vault(self) -> PanVault:
        """The issuer's card-number vault. KeystoreError if the node is no issuer."""
        return _vault(self.keystore)

    def make_acquirer(self) -> Acquirer:
        """What the acquirer's operations work with, outside the authorization service."""
        return _acquirer(self.settings, self.keystore, self.clock, self.directory)

    def start(self) -> None:
        """Keep the member directory fresh in the background; the chain may be away meanwhile."""
        self._refresher = threading.Thread(target=self._refresh, name="directory", daemon=True)
        self._refresher.start()

    def refresh_directory(self) -> bool:
        """One look at the MemberRegistry; False if the chain was out of reach."""
        try:
            self.directory.refresh()
        except ChainError as error:
            log.warning("directory not refreshed", reason=type(error).__name__)
            return False
        try:
            self.directory_file.keep(self.settings.member_registry, self.directory.members())
        except OSError as error:
            log.warning("directory not kept", reason=error.strerror)
        return True

    def close(self) -> None:
        """Let running work end and give the connections back."""
        self._stopping.set()
        self.authorizer.close()
        self.engine.dispose()

    def _refresh(self) -> None:
        while True:
            known = self.refresh_directory()
            if self._stopping.wait(_DIRECTORY_PERIOD_S if known else 0.5):
                return


def build_node(
    settings: NodeSettings,
    make_link: Callable[[Directory, str, bytes], IssuerLink],
    *,
    worker: bool = False,
) -> Node:
    """A node from its settings. Opens the keystore; connects to nothing yet.

    `make_link(directory, member_id, message_seed)` gives the way to other issuers' nodes.
    `worker`: with the database login that may also seal the log.
    """
    configure_logging(settings.log_level)
    clock = SystemClock()
    keystore = Keystore.open(settings.keystore, settings.passphrase())
    chain = ChainClient(settings.rpc_url, finality_depth=settings.finality_depth)
    directory = Directory(chain, settings.member_registry)
    directory_file = DirectoryFile(
        settings.keystore.with_suffix(".directory"), keystore.secret("message")
    )
    directory.restore(directory_file.load(settings.member_registry))
    link = make_link(directory, settings.member_id, keystore.secret("message"))
    authorizer = Authorizer(
        settings.dsn,
        settings.member_id,
        link,
        make_issuer=(lambda: _issuer(settings, keystore, clock))
        if "issuer" in settings.roles
        else None,
        make_acquirer=(lambda: _acquirer(settings, keystore, clock, directory))
        if "acquirer" in settings.roles
        else None,
    )
    role = "worker" if worker else "node"
    engine = make_engine(
        settings.worker_dsn if worker else settings.dsn,
        application_name=f"countersign {settings.member_id} {role}",
    )
    return Node(
        settings=settings,
        clock=clock,
        keystore=keystore,
        engine=engine,
        chain=chain,
        directory=directory,
        anchors=AnchorRegistry(chain, settings.anchor_registry),
        signer=LocalSigner(keystore.secret("operator")),
        link=link,
        authorizer=authorizer,
        directory_file=directory_file,
    )


def _hsm(keystore: Keystore) -> SoftwareHsm:
    names = {name for name in keystore.names() if name.startswith("zone:")}
    names |= {PIN_LOOKUP_KEY} & keystore.names()
    return SoftwareHsm({name: keystore.secret(name) for name in names})


def _vault(keystore: Keystore) -> PanVault:
    return PanVault(keystore.secret("pan"), keystore.secret("pan_lookup"))


def _issuer(settings: NodeSettings, keystore: Keystore, clock: Clock) -> Issuer:
    return Issuer(
        settings.member_id,
        _vault(keystore),
        _hsm(keystore),
        clock,
        AnswerSigner(keystore.secret("message")),
        _emv_hsm(keystore),
    )


def _emv_hsm(keystore: Keystore) -> SoftwareEmvHsm:
    names = {name for name in keystore.names() if name.startswith("emv:")}
    return SoftwareEmvHsm({name: keystore.secret(name) for name in names})


def _acquirer(
    settings: NodeSettings, keystore: Keystore, clock: Clock, directory: Directory
) -> Acquirer:
    def route(pan: str) -> str | None:
        member = directory.issuer_for(pan)
        return member.member_id if member is not None and member.active else None

    # Card numbers of advices that wait for their issuer are sealed under the acquirer's own key.
    vault = _vault(keystore) if {"pan", "pan_lookup"} <= keystore.names() else None
    stand_in = {
        issuer: StandIn(terms.currency, terms.amount, terms.day_amount, terms.day_count)
        for issuer, terms in settings.stand_in.items()
        if issuer != settings.member_id
    }
    return Acquirer(
        settings.member_id, _hsm(keystore), clock, route, vault=vault, stand_in=stand_in
    )


def configure_logging(level: str) -> None:
    """One JSON object a line on standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(),
    )
