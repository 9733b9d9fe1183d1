"""The fleet from end to end: enrolled at the node, keyed by ceremony, followed by the gateway."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from asn1crypto import pem
from asn1crypto.keys import PrivateKeyInfo
from psec import tr31

from gateway import ceremony, certify
from gateway.app import Gateway
from gateway.iso8583.spec import Suite
from gateway.settings import GatewaySettings
from gateway.terminal_keys.model import KeyManagement
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from nodes.crypto.certificates import read_certificate
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.keystore import Keystore
from sandbox.secure_module import TerminalKeys
from sandbox.terminal import Card, Terminal
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, GATEWAY_ZONE, MERCHANT, TERMINAL
from tests.factories.pos import secret, tmk
from tests.integration.api.running import GATEWAY, SEEDS, TwoNodes, public, two_nodes
from tests.integration.gateway.running import document, play, write_files

_numbers = itertools.count(1)
SECRETS = {
    MASTER_KEY: secret(MASTER_KEY),
    ZONE_KEY: GATEWAY_ZONE,
    tmk_name(TERMINAL): tmk(TERMINAL),
    "message": SEEDS[GATEWAY],
}


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


def settings_document(nodes: TwoNodes, **changes: Any) -> dict[str, Any]:
    terminals = [{"terminal_id": TERMINAL, "merchant_id": MERCHANT}]
    times = {"fleet_poll_s": 0.1, "fleet_report_s": 0.2}
    made = document(nodes.acquirer.url, public(ACQUIRER), key_id=GATEWAY, terminals=terminals)
    return made | times | changes


@asynccontextmanager
async def following(nodes: TwoNodes, **changes: Any) -> AsyncIterator[Gateway]:
    gateway = Gateway(
        GatewaySettings.model_validate(settings_document(nodes, **changes)),
        Keystore(SECRETS, "memory"),
    )
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.close()


async def until(condition: Callable[[], bool], what: str) -> float:
    """Wait for it; the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 20, what
        await asyncio.sleep(0.02)
    return time.monotonic() - started


def post(nodes: TwoNodes, path: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Idempotency-Key": f"fleet-test-{next(_numbers):06d}"}
    with nodes.acquirer.http("operator") as client:
        answer = client.post(path, json=body, headers=headers)
    assert answer.is_success, answer.text
    return dict(answer.json())


def enrol(nodes: TwoNodes, **changes: Any) -> str:
    name = f"G{next(_numbers):07d}"
    body = {"terminal_id": name, "merchant_id": MERCHANT, "with_key": True} | changes
    post(nodes, "/v1/terminals", body)
    return name


def shown(nodes: TwoNodes, name: str) -> dict[str, Any]:
    with nodes.acquirer.http("reader") as client:
        return dict(client.get(f"/v1/terminals/{name}").json())


@pytest.fixture
def held(nodes: TwoNodes, tmp_path: Path) -> Path:
    """The gateway's settings and keystore as files: what a ceremony takes."""
    files = write_files(tmp_path, SECRETS, "a passphrase of the test")
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps(settings_document(nodes) | files))
    return config


def components(config: Path, name: str, folder: Path) -> bytes:
    """The key of a ceremony with two custodians."""
    files = [folder / f"{name}-{which}-{next(_numbers)}" for which in "ab"]
    arguments = ["--config", str(config), "--terminal", name, "--components", *map(str, files)]
    assert ceremony.main(arguments) == 0
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    first, second = (bytes.fromhex(path.read_text()) for path in files)
    assert first != second
    return bytes(a ^ b for a, b in zip(first, second, strict=True))


def terminal(gateway: Gateway, name: str, key: bytes) -> Terminal:
    return Terminal(
        name, MERCHANT, key, "127.0.0.1", gateway.pos_port, batch=f"{next(_numbers):06d}"
    )


def test_an_enrolled_terminal_signs_on_with_its_components_and_pays(
    nodes: TwoNodes, held: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = nodes.network.card(10_000)
    card = Card(issued.pan, "4912", "220")

    async def scenario() -> None:
        async with following(nodes) as gateway:
            name = enrol(nodes)
            await until(lambda: name in gateway.fleet.known, "the gateway takes the terminal")
            key = await asyncio.to_thread(components, held, name, tmp_path)
            printed = capsys.readouterr().out
            check = SoftwareHsm({"key": key}).check_value("key").hex().upper()
            assert f"check value  {check}" in printed
            assert key.hex().upper() not in printed
            async with terminal(gateway, name, key) as pos:
                assert (await pos.sign_on()).approved
                paid = await pos.purchase(card, 600, "123456")
                assert paid.approved, paid.code
            await until(lambda: shown(nodes, name)["last_sign_on_at"] is not None, "reported")
            found = shown(nodes, name)
            assert [c["check_value"] for c in found["key_checks"]] == [check]
            assert (found["batch"], found["gateway"]) == (pos.batch, GATEWAY)
            assert found["last_seen_at"] >= found["last_sign_on_at"]

    play(scenario)


def test_a_disabled_terminal_is_refused_within_seconds_and_enabled_again(nodes: TwoNodes) -> None:
    issued = nodes.network.card(10_000)
    card = Card(issued.pan, "4912", "220")

    async def scenario() -> None:
        async with following(nodes) as gateway, terminal(gateway, TERMINAL, tmk(TERMINAL)) as pos:
            assert (await pos.sign_on()).approved
            assert (await pos.purchase(card, 100, "123456")).approved
            path = f"/v1/terminals/{TERMINAL}"
            post(nodes, f"{path}/disable", {"reason": "reported stolen"})
            refused = await pos.purchase(card, 100, "123456")
            assert refused.code == "58", "the node refuses it at once"
            ring = gateway.ring
            took = await until(lambda: ring.terminal(TERMINAL) is None, "the gateway follows")
            assert took < 5
            ring.forget_left()
            ring.forget_left()
            for answer in (await pos.sign_on(), await pos.purchase(card, 100, "123456")):
                assert (answer.code, answer.authentic) == ("58", False)
            post(nodes, f"{path}/enable", {"reason": "it was found"})
            await until(lambda: ring.terminal(TERMINAL) is not None, "the gateway follows")
            assert (await pos.sign_on()).approved
            assert (await pos.purchase(card, 100, "123456")).approved

    play(scenario)


def test_the_next_key_makes_the_old_one_useless(
    nodes: TwoNodes, held: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with following(nodes) as gateway:
            name = enrol(nodes)
            await until(lambda: name in gateway.fleet.known, "taken")
            old = await asyncio.to_thread(components, held, name, tmp_path)
            async with terminal(gateway, name, old) as pos:
                assert (await pos.sign_on()).approved
            await until(lambda: len(shown(nodes, name)["key_checks"]) == 1, "the first is reported")
            post(nodes, f"/v1/terminals/{name}/keys", {"reason": "yearly"})
            known = gateway.fleet.known
            await until(lambda: known[name].key_generation == 2, "followed")
            new = await asyncio.to_thread(components, held, name, tmp_path)
            assert new != old
            async with terminal(gateway, name, old) as pos:
                assert (await pos.sign_on()).code == "A0"
            async with terminal(gateway, name, new) as pos:
                assert (await pos.sign_on()).approved
            await until(lambda: len(shown(nodes, name)["key_checks"]) == 2, "both are reported")
            assert shown(nodes, name)["keys_differ"] is False

    play(scenario)


def test_a_gateway_remembers_its_fleet_when_the_node_is_away(
    nodes: TwoNodes, held: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.json"

    async def scenario() -> None:
        name = enrol(nodes)
        key = await asyncio.to_thread(components, held, name, tmp_path)
        async with following(nodes, fleet_file=str(file)) as gateway:
            assert name in gateway.fleet.known, "known before the first terminal comes"
        assert key.hex() not in file.read_text()
        nowhere = {"node_url": "http://127.0.0.1:9", "fleet_file": str(file)}
        async with following(nodes, **nowhere) as gateway, terminal(gateway, name, key) as pos:
            assert (await pos.sign_on()).approved
        file.write_text("{")
        async with following(nodes, **nowhere) as gateway, terminal(gateway, name, key) as pos:
            assert (await pos.sign_on()).code == "58"
        async with (
            following(nodes, **nowhere) as gateway,
            terminal(gateway, TERMINAL, tmk(TERMINAL)) as pos,
        ):
            assert (await pos.sign_on()).approved, "the settings' terminals are there in any case"

    play(scenario)


def test_a_ceremony_gives_a_key_block_under_the_terminals_transport_key(
    nodes: TwoNodes, held: Path, tmp_path: Path
) -> None:
    name = enrol(nodes, suite="AES")
    transport = bytes(range(32))
    key_file, block = tmp_path / "transport", tmp_path / "block"
    key_file.write_text(transport.hex())
    base = ["--config", str(held), "--terminal", name, "--block", str(block)]
    assert ceremony.main([*base, "--transport-key", str(key_file)]) == 0
    header, key = tr31.unwrap(transport, block.read_text().strip())
    assert (header.version_id, header.algorithm, len(key)) == ("D", "A", 16)
    assert key == components(held, name, tmp_path)
    assert ceremony.main([*base, "--transport-key", str(key_file)]) == 2, "nothing is overwritten"


@pytest.mark.parametrize(
    ("name", "rest", "why"),
    [
        ("NOTTHERE", ["--components", "a", "b"], "no such terminal"),
        (TERMINAL, [], "give either"),
        (TERMINAL, ["--components", "a", "b"], "no such terminal"),
        (None, ["--block", "a"], "needs --transport-key"),
    ],
)
def test_a_ceremony_that_can_t_be_says_why(
    nodes: TwoNodes,
    held: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str | None,
    rest: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    bare = enrol(nodes, with_key=False)
    chosen = enrol(nodes) if name is None else bare if name == TERMINAL and rest else name
    why = "gateway's settings" if chosen == bare else why
    assert ceremony.main(["--config", str(held), "--terminal", chosen, *rest]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_what_the_node_can_t_read_is_told_again_later(nodes: TwoNodes) -> None:
    """A report that fails is not lost, and what came in the meantime isn't overwritten."""

    class Failing:
        calls = 0

        async def post_json(self, path: str, document: Any) -> Any:
            Failing.calls += 1
            raise httpx.HTTPError("no")

    async def scenario() -> None:
        async with following(nodes, fleet_poll_s=60) as gateway:
            gateway.fleet.seen[TERMINAL] = (1_790_000_000_000, "000001")
            with pytest.raises(httpx.HTTPError):
                await gateway.fleet.report(Failing())  # type: ignore[arg-type]
            assert gateway.fleet.seen[TERMINAL] == (1_790_000_000_000, "000001")
            seen = {s.terminal_id: s.last_seen_ms for s in gateway.fleet.sightings()}
            assert seen[TERMINAL] == 1_790_000_000_000

    play(scenario)
    assert Failing.calls == 1


def test_a_terminal_certified_by_the_gateway_signs_on_with_its_certificate(
    nodes: TwoNodes, held: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Key and request by OpenSSL, certificate by the gateway's authority, enrolment at the node."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command on this machine")
    name = f"G{next(_numbers):07d}"
    key, request = tmp_path / "t.key", tmp_path / "t.csr"
    subject = ["-sm3", "-sigopt", "distid:1234567812345678", "-subj", f"/CN={name}"]
    for command in (
        ["ecparam", "-name", "SM2", "-genkey", "-noout", "-out", str(key)],
        ["req", "-new", "-key", str(key), *subject, "-out", str(request)],
    ):
        subprocess.run([openssl, *command], check=True, capture_output=True)
    _, _, der = pem.unarmor(key.read_bytes())
    held_key = PrivateKeyInfo.load(der)["private_key"].parsed["private_key"]
    private = int(held_key.native).to_bytes(32, "big")
    config = ["--config", str(held)]
    authority, made = tmp_path / "ca.pem", tmp_path / "t.pem"
    assert certify.main([*config, "--authority", str(authority)]) == 0
    assert certify.main([*config, "--request", str(request), "--certificate", str(made)]) == 0
    printed = capsys.readouterr().out.splitlines()
    gateway_key = bytes.fromhex(printed[-1].split()[-1])
    certificate = read_certificate(made.read_text())
    post(
        nodes,
        "/v1/terminal-authorities",
        {"certificate": read_certificate(authority.read_text()).text()},
    )
    body = {"terminal_id": name, "merchant_id": MERCHANT, "with_key": True, "suite": "SM"}
    post(nodes, "/v1/terminals", body | {"management": "sm2", "certificate": certificate.text()})

    async def scenario() -> None:
        async with following(nodes) as gateway:
            await until(lambda: name in gateway.fleet.known, "the gateway takes the terminal")
            tmk = await asyncio.to_thread(components, held, name, tmp_path)
            keys = TerminalKeys(
                *(Suite.SM, KeyManagement.SM2, tmk, b"", private),
                *(certificate.serial, gateway_key),
            )
            batch = f"{next(_numbers):06d}"
            async with Terminal(
                name, MERCHANT, b"", "127.0.0.1", gateway.pos_port, keys=keys, batch=batch
            ) as pos:
                assert (await pos.sign_on()).approved

    play(scenario)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --authority"),
        (["--request", "r.pem"], "go together"),
        (["--authority", "ca.pem", "--days", "0"], "--days is 1 to"),
        (["--request", "missing.pem", "--certificate", "c.pem"], "missing.pem"),
        (["--request", "gateway.json", "--certificate", "c.pem"], "not a CERTIFICATE REQUEST"),
    ],
)
def test_what_can_t_be_certified_says_why(
    held: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(held.parent)
    assert certify.main(["--config", str(held), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (held.parent / "c.pem").exists()
