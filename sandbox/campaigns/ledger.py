"""The classes of tampering with a member's database, judged by the deep ledger check."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import psycopg

from sandbox.campaigns import ledger_history, ledger_rows
from sandbox.campaigns.books import Books, Deed, unguarded
from sandbox.campaigns.scene import Scene
from sandbox.campaigns.tally import Tallies

MEMBERS = ("aurora", "meridian", "harbor")
CLASSES: Mapping[str, Callable[[Books, random.Random], Deed]] = {
    "CELL_EDITED": ledger_rows.edit_cell,
    "ROW_INSERTED": ledger_rows.insert_row,
    "ROW_DELETED": ledger_rows.delete_row,
    "ROWS_SWAPPED": ledger_rows.swap_rows,
    "TAIL_CUT": ledger_history.cut_tail,
    "OLD_BACKUP": ledger_history.restore_backup,
    "FULL_REWRITE": ledger_history.rewrite,
}
#: A clean run after so many deeds; a new copy of the database after so many: undone rows stay in
#: PostgreSQL's files until somebody sweeps.
_CLEAN_EVERY, _SWEEP_EVERY = 10, 250


def tamper_ledger(scene: Scene, name: str, count: int, tallies: Tallies) -> None:
    """`count` deeds of one class, on the books of an issuer, an acquirer and a merchant in turn."""
    source = random.Random(f"{tallies.seed} {name}")
    done = 0
    while done < count:
        with ExitStack() as stack:
            books = [
                stack.enter_context(unguarded(scene, member, f"tamper_{name}_{member}".lower()))
                for member in MEMBERS
            ]
            for number in range(done, min(done + _SWEEP_EVERY, count)):
                one_deed(books[number % len(books)], name, source, tallies)
                if number % _CLEAN_EVERY == 0:
                    _clean(books[number // _CLEAN_EVERY % len(books)], tallies)
            done = min(done + _SWEEP_EVERY, count)


def one_deed(books: Books, name: str, source: random.Random, tallies: Tallies) -> None:
    """Do one, have it judged, undo it."""
    with books.undone():
        deed = CLASSES[name](books, source)
        try:
            report = books.check()
        except (ValueError, TypeError, ArithmeticError, LookupError, psycopg.Error) as error:
            said = f"the check failed: {type(error).__name__}: {error}"
            tallies.add(
                name, found=False, named=False, what=f"{books.member_id}: {deed.what}: {said}"
            )
            return
    said = "; ".join(map(str, report.findings[:6])) or "nothing"
    tallies.add(
        name,
        found=not report.clean,
        named=deed.named_by(report),
        what=f"{books.member_id}: {deed.what}; said: {said}; unjudged {report.unjudged}",
    )


def _clean(books: Books, tallies: Tallies) -> None:
    report = books.check()
    alarm = "" if report.clean else f"{books.member_id}: {report.findings[:3]} {report.unjudged}"
    tallies.clean(alarm=alarm)
