"""Passwords, the lock, sessions."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from console.access import MAX_FAILURES, Access, Refusal
from console.settings import ConsoleSettings, Role
from nodes.clock import FixedClock
from tests.unit.console.conftest import PASSWORD

MINUTE = 60_000


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1_790_000_000_000)


@pytest.fixture
def access(settings: ConsoleSettings, clock: FixedClock) -> Iterator[Access]:
    made = Access(settings, clock)
    yield made
    made.close()


def _enter(access: Access, username: str = "ada", password: str = PASSWORD) -> str | Refusal:
    return access.sign_in(username, password, "127.0.0.1", "test")


def _signed_in(access: Access, username: str = "ada") -> str:
    cookie = _enter(access, username)
    assert not isinstance(cookie, Refusal)
    return cookie


def test_the_right_password_opens_a_session_with_role_and_institutions(access: Access) -> None:
    user = access.user_of(_signed_in(access, "rita"))
    assert user is not None
    assert (user.username, user.role, user.members) == ("rita", Role.READER, ("meridian",))
    assert not user.may(Role.OPERATOR)


def test_a_star_means_every_institution(access: Access) -> None:
    user = access.user_of(_signed_in(access))
    assert user is not None
    assert user.members == ("aurora", "meridian")
    assert user.may(Role.OPERATOR)


def test_names_are_the_same_in_any_case(access: Access) -> None:
    assert not isinstance(_enter(access, " ADA "), Refusal)


@pytest.mark.parametrize(
    ("username", "password"),
    [("ada", "wrong"), ("nobody", PASSWORD), ("", ""), ("ada", PASSWORD + "x" * 5000)],
)
def test_a_wrong_name_and_a_wrong_password_are_the_same_refusal(
    access: Access, username: str, password: str
) -> None:
    assert _enter(access, username, password) is Refusal.WRONG


def test_a_lone_surrogate_in_a_password_is_only_wrong(access: Access) -> None:
    assert _enter(access, "ada", "\ud800") is Refusal.WRONG


@pytest.mark.parametrize("username", ["ada", "nobody"])
def test_ten_failures_lock_a_name_whether_it_exists_or_not(access: Access, username: str) -> None:
    for _ in range(MAX_FAILURES):
        assert _enter(access, username, "wrong") is Refusal.WRONG
    assert _enter(access, username) is Refusal.LOCKED


def test_the_tenth_try_still_counts_if_it_is_right(access: Access) -> None:
    for _ in range(MAX_FAILURES - 1):
        _enter(access, "ada", "wrong")
    assert not isinstance(_enter(access), Refusal)
    assert _enter(access, "ada", "wrong") is Refusal.WRONG


def test_the_lock_ends_after_its_time_and_counts_anew(access: Access, clock: FixedClock) -> None:
    for _ in range(MAX_FAILURES):
        _enter(access, "ada", "wrong")
    clock.advance(15 * MINUTE - 1)
    assert _enter(access) is Refusal.LOCKED
    clock.advance(1)
    for _ in range(MAX_FAILURES - 1):
        assert _enter(access, "ada", "wrong") is Refusal.WRONG
    assert not isinstance(_enter(access), Refusal)


def test_an_administrator_unlocks(access: Access) -> None:
    for _ in range(MAX_FAILURES):
        _enter(access, "rita", "wrong")
    locked = next(account for account in access.accounts() if account.username == "rita")
    assert locked.locked_until_ms > 0
    assert access.unlock("rita", "ada", "127.0.0.1")
    assert not isinstance(_enter(access, "rita"), Refusal)
    assert "unlocked by ada" in [entry.event for entry in access.trail()]


def test_tries_at_the_same_moment_do_not_slip_past_the_lock(access: Access) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: _enter(access, "ada", "wrong"), range(40)))
    assert results.count(Refusal.WRONG) == MAX_FAILURES
    assert results.count(Refusal.LOCKED) == 40 - MAX_FAILURES


def test_a_restart_forgets_neither_lock_nor_session(
    settings: ConsoleSettings, clock: FixedClock
) -> None:
    first = Access(settings, clock)
    cookie = _signed_in(first)
    for _ in range(MAX_FAILURES):
        _enter(first, "rita", "wrong")
    first.close()
    second = Access(settings, clock)
    assert second.user_of(cookie) is not None
    assert _enter(second, "rita") is Refusal.LOCKED
    second.close()


def test_signing_out_ends_the_session_even_for_a_copied_cookie(access: Access) -> None:
    cookie = _signed_in(access)
    access.sign_out(cookie, "127.0.0.1")
    assert access.user_of(cookie) is None


@pytest.mark.parametrize("change", ["", "x", "signature"])
def test_a_forged_cookie_is_nobody(access: Access, change: str) -> None:
    cookie = _signed_in(access)
    token, _, signature = cookie.rpartition(".")
    forged = {"": "", "x": f"x{cookie}", "signature": f"{token}.{signature[::-1]}"}[change]
    assert access.user_of(forged) is None
    assert access.user_of(None) is None


def test_another_secret_takes_no_cookie_of_this_one(
    access: Access, settings_with: Callable[..., ConsoleSettings], clock: FixedClock
) -> None:
    cookie = _signed_in(access)
    other = Access(settings_with(secret="t" * 40), clock)
    assert other.user_of(cookie) is None
    other.close()


def test_a_session_ends_when_idle_and_when_old(access: Access, clock: FixedClock) -> None:
    idle = _signed_in(access)
    clock.advance(60 * MINUTE)
    assert access.user_of(idle) is None
    busy = _signed_in(access)
    for _ in range(24):
        clock.advance(29 * MINUTE)
        assert access.user_of(busy) is not None
    clock.advance(29 * MINUTE)
    assert access.user_of(busy) is None


def test_a_new_password_or_a_removed_person_ends_the_sessions(
    access: Access,
    settings: ConsoleSettings,
    settings_with: Callable[..., ConsoleSettings],
    clock: FixedClock,
) -> None:
    cookie = _signed_in(access, "rita")
    kept = [user.model_dump() for user in settings.users]
    for user in kept:
        user["password_argon2"] = user["password_argon2"].get_secret_value()
    changed = [user | {"password_argon2": user["password_argon2"] + "A"} for user in kept]
    for users in (changed, kept[:1]):
        later = Access(settings_with(users=users), clock)
        assert later.user_of(cookie) is None
        later.close()
        cookie = _signed_in(access, "rita")


def test_a_person_ends_own_sessions_only(access: Access) -> None:
    mine, theirs = _signed_in(access, "rita"), _signed_in(access, "ada")
    user = access.user_of(theirs)
    assert user is not None
    assert not access.end_session(user.session_id, "rita", "127.0.0.1")
    assert access.user_of(theirs) is not None
    assert [row.username for row in access.sessions("rita")] == ["rita"]
    own = access.user_of(mine)
    assert own is not None
    assert access.end_session(own.session_id, "rita", "127.0.0.1")
    assert access.user_of(mine) is None


def test_the_file_is_private_and_holds_neither_token_nor_password(
    access: Access, settings: ConsoleSettings
) -> None:
    cookie = _signed_in(access)
    access.close()
    assert settings.state_file is not None
    assert stat.S_IMODE(settings.state_file.stat().st_mode) == 0o600
    kept = settings.state_file.read_bytes()
    assert b"ada" in kept
    assert cookie.rpartition(".")[0].encode() not in kept
    assert PASSWORD.encode() not in kept


def test_what_a_page_asks_for_by_itself_keeps_nobody_signed_in(
    access: Access, clock: FixedClock
) -> None:
    cookie = _signed_in(access)
    for _ in range(2):
        clock.advance(29 * MINUTE)
        assert access.user_of(cookie, active=False) is not None
    clock.advance(2 * MINUTE)
    assert access.user_of(cookie, active=False) is None
