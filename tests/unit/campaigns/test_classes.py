"""`countersign tamper --class`: the parts of the campaign that count the classes asked for."""

from __future__ import annotations

from typer.testing import CliRunner

from sandbox.campaigns import breaks, omissions, sealed_bundles
from sandbox.campaigns.tamper import _jobs, expected_classes
from sandbox.cli import make_app


def names(*classes: str) -> list[tuple[str, ...]]:
    return [job.names for job in _jobs(15, set(classes))]


def test_only_what_counts_the_class_is_run() -> None:
    assert names(sealed_bundles.SEALED_BITS) == [(sealed_bundles.SEALED_BITS,)]
    assert names(omissions.OVERDUE) == [(omissions.PROVEN,)]
    assert names(breaks.CLASSES[3]) == [(breaks.CLASSES[0],)]


def test_every_class_has_a_part() -> None:
    assert len(set(expected_classes())) == len(expected_classes()) == 24
    for name in expected_classes():
        assert len(names(name)) == 1, name


def test_an_unknown_class_is_named() -> None:
    done = CliRunner().invoke(make_app(), ["tamper", "--class", "NO_SUCH"])
    assert done.exit_code == 2
    assert "NO_SUCH" in done.output
