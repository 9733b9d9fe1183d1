"""Host and origin checks, security headers, roles on every route: the app without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from fastapi.routing import APIRoute
from httpx import Response
from starlette.testclient import TestClient

from console.app import create_app
from console.settings import ConsoleSettings
from tests.unit.console.conftest import PASSWORD

BASE = "http://127.0.0.1:8080"
ORIGIN = {"Origin": BASE}
TXID = "ab" * 32


@pytest.fixture
def client(settings: ConsoleSettings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=BASE, follow_redirects=False) as made:
        yield made


@pytest.fixture
def as_user(client: TestClient) -> Callable[[str], TestClient]:
    def sign(username: str) -> TestClient:
        form = {"username": username, "password": PASSWORD}
        assert client.post("/sign-in", data=form, headers=ORIGIN).status_code == 303
        return client

    return sign


def _directives(policy: str) -> dict[str, list[str]]:
    parts = (directive.split() for directive in policy.split(";"))
    return {name: values for name, *values in parts}


def test_the_policy_allows_own_files_only(client: TestClient) -> None:
    for path in ("/sign-in", "/static/console.css", "/nothing", "/i/aurora/overview"):
        policy = _directives(client.get(path).headers["content-security-policy"])
        assert policy["default-src"] == ["'none'"]
        assert policy["script-src"] == ["'self'"]
        assert policy["style-src"] == ["'self'"]
        assert policy["frame-ancestors"] == ["'none'"]
        assert policy["base-uri"] == ["'none'"]
        assert not any("unsafe" in value for values in policy.values() for value in values)


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://127.0.0.1:8081", "http://127.0.0.1:8080.evil.x"],
)
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/time-zone", "/access/unlock"])
def test_no_change_without_the_own_origin(
    client: TestClient, path: str, origin: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    assert client.post(path, data={"username": "ada"}, headers=headers).status_code == 403


def test_the_own_origin_passes(client: TestClient) -> None:
    answer = client.post("/sign-in", data={"username": "a", "password": "b"}, headers=ORIGIN)
    assert answer.status_code == 401


def test_another_host_name_gets_nothing(client: TestClient) -> None:
    answer = client.get("/sign-in", headers={"Host": "rebound.example"})
    assert answer.status_code == 421


def test_large_and_unmeasured_bodies_are_refused(client: TestClient) -> None:
    large = client.post("/sign-in", content=b"x" * 20_000, headers=ORIGIN)
    assert large.status_code == 413
    unmeasured = client.post("/sign-in", content=iter([b"username=a"]), headers=ORIGIN)
    assert unmeasured.status_code == 411


def test_pages_are_never_cached_and_versioned_files_for_long(client: TestClient) -> None:
    page = client.get("/sign-in")
    assert page.headers["cache-control"] == "no-store"
    style = re.search(r"/static/console\.css\?v=[0-9a-f]+", page.text)
    assert style is not None
    assert "immutable" in client.get(style[0]).headers["cache-control"]
    assert client.get("/static/console.css").headers["cache-control"] == "no-cache"


def test_no_page_holds_inline_script_or_style(
    client: TestClient, as_user: Callable[[str], TestClient]
) -> None:
    pages = [client.get("/sign-in"), as_user("ada").get("/access"), client.get("/nothing")]
    for page in pages:
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page.text)
        assert not re.search(r"<script(?![^>]*\ssrc=)", page.text)


def test_the_session_cookie_is_strict(client: TestClient) -> None:
    form = {"username": "ada", "password": PASSWORD}
    cookie = client.post("/sign-in", data=form, headers=ORIGIN).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie


def test_behind_tls_the_cookie_is_secure_and_bound_to_the_host(
    settings_with: Callable[..., ConsoleSettings],
) -> None:
    app = create_app(settings_with(public_url="https://ops.example"))
    with TestClient(app, base_url="https://ops.example", follow_redirects=False) as client:
        form = {"username": "ada", "password": PASSWORD}
        answer = client.post("/sign-in", data=form, headers={"Origin": "https://ops.example"})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-countersign_session=")
        assert "secure" in cookie.lower()
        assert "strict-transport-security" in answer.headers


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/a\nb", "x"],
)
def test_after_sign_in_nobody_is_sent_elsewhere(client: TestClient, target: str) -> None:
    form = {"username": "ada", "password": PASSWORD, "next": target}
    assert client.post("/sign-in", data=form, headers=ORIGIN).headers["location"] == "/"


#: Reachable without being signed in.
OPEN = {"/sign-in", "/sign-out", "/health"}


def _routes(client: TestClient) -> list[tuple[str, str]]:
    found = []
    for route in _all_routes(client):
        path = route.path.replace("{txid}", TXID).replace("{seq}", "1")
        path = path.replace("{session_id}", "0" * 16).replace("{other_id}", "aurora")
        found += [(method, path) for method in sorted(route.methods - {"HEAD"})]
    assert len(found) > 15
    return found


def _all_routes(client: TestClient) -> list[APIRoute]:
    from console.views import access, anchors, batches, members, overview, sign_in, transactions

    views = (sign_in, access, overview, transactions, batches, anchors, members)
    return [route for view in views for route in view.router.routes if isinstance(route, APIRoute)]


def _ask(client: TestClient, method: str, path: str) -> Response:
    form = {"a": "b"} if method == "POST" else None
    return client.request(method, path, headers=ORIGIN, data=form)


def test_every_route_asks_who_is_there(client: TestClient) -> None:
    for method, path in _routes(client):
        if path in OPEN:
            continue
        answer = _ask(client, method, path.replace("{member_id}", "aurora"))
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/sign-in"), path


def test_every_route_of_a_foreign_or_unknown_institution_is_not_found(
    as_user: Callable[[str], TestClient],
) -> None:
    client = as_user("rita")
    for method, path in _routes(client):
        if "{member_id}" not in path:
            continue
        for member in ("aurora", "zeta"):
            answer = _ask(client, method, path.replace("{member_id}", member))
            assert answer.status_code == 404, path
            assert "Aurora Bank" not in answer.text


def test_every_route_of_an_own_institution_says_that_its_node_is_away(
    as_user: Callable[[str], TestClient],
) -> None:
    client = as_user("rita")
    for method, path in _routes(client):
        if "{member_id}" not in path or path.endswith("/live"):
            continue
        answer = _ask(client, method, path.replace("{member_id}", "meridian"))
        assert answer.status_code == 503, path
        assert "is not answering" in answer.text


def test_only_administrators_unlock(as_user: Callable[[str], TestClient]) -> None:
    client = as_user("rita")
    form = {"username": "ada"}
    assert client.post("/access/unlock", data=form, headers=ORIGIN).status_code == 403
    assert "ada" not in client.get("/access").text.replace("data-", "")


@pytest.mark.parametrize(
    "path",
    [
        "/i/meridian/batches/0",
        "/i/meridian/batches/x",
        "/i/meridian/batches/99999999999999999999999",
        "/i/meridian/transactions?cursor=" + "x" * 500,
        "/i/meridian/overview?minutes=0",
        "/i/meridian/overview?minutes=NaN",
        "/i/%00/overview",
        "/i/meridian/transactions/..%2f..%2fv1",
        "/static/../settings.py",
        "/static/%2e%2e/settings.py",
    ],
)
def test_nonsense_in_an_address_is_not_found(
    as_user: Callable[[str], TestClient], path: str
) -> None:
    assert as_user("rita").get(path).status_code == 404
