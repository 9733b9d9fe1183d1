"""Mistakes in a scenario are named with their line and field."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandbox.cli import make_app
from sandbox.terminals.reading import read_scenario
from sandbox.terminals.scenario import ScenarioError

HEAD = "cards:\n  ann: {form: chip}\nsteps:\n"


@pytest.mark.parametrize(
    ("text", "line", "where", "why"),
    [
        ("", 1, "", "empty"),
        ("steps: [", 1, "", "not YAML"),
        ("steps:\n  - pay: {\n", 3, "", "not YAML"),
        ("\x00", 1, "", "not YAML"),
        ("[]", 1, "the file", "mapping"),
        ("name: x", 1, "steps", "missing"),
        ("steps: []", 1, "steps", "at least one"),
        ("stepps:\n  - echo", 1, "stepps", "unknown"),
        ("steps: [echo]\ncurrency: XXX", 2, "currency", "known are"),
        ("steps: [echo]\nsteps: [echo]", 2, "steps", "twice"),
        ("steps:\n  - dance", 2, "steps[0]", "bare step"),
        ("steps:\n  - {}", 2, "steps[0]", "exactly one"),
        ("steps:\n  - {echo: , sign_on: }", 2, "steps[0]", "exactly one"),
        ("steps:\n  - wait: {seconds: 61}", 2, "steps[0].wait.seconds", "at most 60"),
        ("steps:\n  - wait: {}", 2, "steps[0].wait.seconds", "missing"),
        ("steps:\n  - wait: {seconds: soon}", 2, "steps[0].wait.seconds", "seconds"),
        (HEAD + "  - pay: {card: bob, amount: 1}", 4, "steps[0].pay.card", "cards are ann"),
        (HEAD + "  - echo\n  - pay: {card: ann}", 5, "steps[1].pay.amount", "missing"),
        (HEAD + "  - pay: {card: ann, amount: 0}", 4, "steps[0].pay.amount", "too small"),
        (HEAD + "  - pay: {card: ann, amount: 1.005}", 4, "steps[0].pay.amount", "2 decimals"),
        (HEAD + "  - pay: {card: ann, amount: 1e99}", 4, "steps[0].pay.amount", "too small or"),
        (HEAD + "  - pay: {card: ann, amount: nan}", 4, "steps[0].pay.amount", "decimals"),
        (HEAD + "  - pay: {card: ann, amount: lots}", 4, "steps[0].pay.amount", "12.50"),
        (HEAD + "  - pay:\n      card: ann\n      amount: [1]", 6, "steps[0].pay.amount", "single"),
        (HEAD + "  - pay: {card: ann, amount: 1, by: nod}", 4, "steps[0].pay.by", "insert"),
        (HEAD + "  - pay: {card: ann, amount: 1, pin: abc}", 4, "steps[0].pay.pin", "[0-9]"),
        (HEAD + "  - pay: {card: ann, amount: 1, of: x}", 4, "steps[0].pay.of", "unknown"),
        (HEAD + "  - refund: {of: a, amount: 1}", 4, "steps[0].refund.of", "so far are none"),
        (HEAD + "  - echo:\n    fault: bad_mac", 5, "steps[0].fault", "has no faults"),
        (
            HEAD + "  - pay: {card: ann, amount: 1}\n    fault: catch_fire",
            5,
            "steps[0].fault",
            "lose_answer",
        ),
        (HEAD + "  - pay: {card: ann, amount: 1}\n    expect: 0", 5, "steps[0].expect", "DE39"),
        (
            HEAD + "  - pay: {card: ann, amount: 1}\n    expect: {colour: red}",
            5,
            "steps[0].expect.colour",
            "unknown",
        ),
        (
            HEAD + "  - authorize: {card: ann, amount: 1}\n    fault: end_offline",
            5,
            "steps[0].fault",
            "lose_answer",
        ),
        ("cards: {a: {form: plain, offline: 1}}\nsteps: [echo]", 1, "cards.a.offline", "chip"),
        (HEAD + "  - refund", 4, "steps[0]", "bare step is one of close_batch, download, echo"),
        (HEAD + "  - copy: {card: ann}", 4, "steps[0].copy.to", "missing"),
        (HEAD + "  - copy: {card: ann, to: ann}", 4, "steps[0].copy.to", "a card 'ann'"),
        (HEAD + "  - upload: {skip: none}", 4, "steps[0].upload.skip", "1 to 99"),
        (HEAD + "  - upload:\n    fault: bad_mac", 5, "steps[0].fault", "lose_answer, send_twice"),
        (HEAD + "  - download: {until_listed: bob}", 4, "steps[0].download.until_listed", "ann"),
        (HEAD + "  - pay_order: {of: x, card: ann}", 4, "steps[0].pay_order.of", "so far"),
        (HEAD + "  - echo:\n    expect: ['00', '00']", 5, "steps[0].expect", "one answer"),
        ("terminal: {suite: RC4}\nsteps: [echo]", 1, "terminal.suite", "SM, AES, LEGACY"),
        ("terminal:\n  suite: AES\n  keys: sm2\nsteps: [echo]", 3, "terminal.keys", "suite SM"),
        ("terminal: {id: T0000001, suite: SM}\nsteps: [echo]", 1, "terminal.id", "already"),
        ("cards:\n  a:\n    pin: 12\nsteps: [echo]", 3, "cards.a.pin", "match"),
    ],
)
def test_a_mistake_is_named(text: str, line: int, where: str, why: str) -> None:
    with pytest.raises(ScenarioError) as found:
        read_scenario(text, "day.yaml")
    error = found.value
    assert (error.line, error.where) == (line, where), str(error)
    assert why in error.why
    assert str(error).startswith(f"day.yaml:{line}:")


def test_two_steps_can_t_have_one_name() -> None:
    pay = "  - pay: {card: ann, amount: 1}\n    as: one\n"
    with pytest.raises(ScenarioError, match=r"day.yaml:6: steps\[1\].as: there is a step 'one'"):
        read_scenario(HEAD + pay + pay, "day.yaml")


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "day.yaml"
    file.write_text("steps:\n  - dance")
    found = CliRunner().invoke(make_app(), ["terminal", "run", str(file)])
    assert found.exit_code == 2
    assert "day.yaml:2: steps[0]" in found.output
    missing = CliRunner().invoke(make_app(), ["terminal", "run", str(tmp_path / "none.yaml")])
    assert (missing.exit_code, "No such file" in missing.output) == (2, True)
