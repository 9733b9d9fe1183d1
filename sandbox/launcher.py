"""Starts the sandbox network, founding it at the first start, and stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nodes.chain.client import ChainClient
from sandbox import founding
from sandbox.description import write_description
from sandbox.network import DemoDirectory, State
from sandbox.postgres import EmbeddedPostgres
from sandbox.services import PRELOAD, Network
from sandbox.supervisor import Supervisor

#: Told what is being done now.
Report = Callable[[str], None]

#: The number of steps that `running` reports.
STEPS = 9


class Running:
    """A network whose processes are up."""

    def __init__(self, network: Network, supervisor: Supervisor) -> None:
        self.network = network
        self.supervisor = supervisor


@contextmanager
def running(
    directory: DemoDirectory, state: State, report: Report, *, console: bool = True
) -> Iterator[Running]:
    """The network of a locked demo directory, from the first process to the last.

    Whatever ends the block, every process is stopped. Raises ProcessFailedError, FoundingError,
    PostgresError.
    """
    postgres = EmbeddedPostgres(directory.postgres)
    supervisor = Supervisor(directory.log, directory.processes_file, PRELOAD)
    try:
        report("Preparing PostgreSQL")
        postgres.prepare()
        network = Network(directory, state, postgres)
        founding.make_genesis(network)
        _start(network, supervisor, report, console=console)
        yield Running(network, supervisor)
    finally:
        # A second Ctrl-C must not leave processes behind.
        stopper = threading.Thread(target=supervisor.stop)
        stopper.start()
        _join_for_certain(stopper)


def _start(network: Network, supervisor: Supervisor, report: Report, *, console: bool) -> None:
    report("Starting PostgreSQL and the chain")
    supervisor.add([network.postgres_service(), network.chain_service()])
    supervisor.wait_ready("postgres", timeout_s=3600)
    report("Making the members' databases")
    founding.make_databases(network)
    supervisor.wait_ready("chain")
    report("Deploying the contracts")
    client = ChainClient(network.rpc_url)
    founding.make_contracts(network, client)
    report("Admitting the members")
    founding.admit_members(network, client)
    report("Starting nodes and workers")
    network.write_node_configs()
    network.write_gateway_config()
    supervisor.add(network.node_services())
    supervisor.add([network.gateway_service()])
    if console:
        network.write_console_config()
        supervisor.add([network.console_service(), network.front_service()])
    for member in network.directory.plan.members:
        supervisor.wait_ready(f"{member.member_id}-node")
    if not network.state.founded:
        report("Registering merchants, issuing cards")
        founding.open_business(network.directory.plan, network.state)
        network.state.founded = True
        network.directory.save(network.state)
    report("Starting gateway and console")
    supervisor.wait_ready("gateway")
    if console:
        supervisor.wait_ready("console")
        supervisor.wait_ready("gateway-api")
    report("Writing network.json")
    write_description(network)
    if console:
        supervisor.add([network.simulator_service()])
        supervisor.wait_ready("simulator")


def _join_for_certain(thread: threading.Thread) -> None:
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt:
            continue
