"""What the configuration refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from console.institutions import Institutions
from console.settings import ConsoleSettings

_NODE = {"member_id": "aurora", "name": "A", "api_url": "http://127.0.0.1:1", "api_key": "k"}


def _person(name: str, node_keys: dict[str, str]) -> dict[str, Any]:
    return {"username": name, "password_argon2": "$argon2id$", "node_keys": node_keys}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"secret": "short"}, "at least 32"),
        ({"surprise": 1}, "surprise"),
        ({"nodes": [_NODE | {"gateway_url": "ftp://gateway"}]}, "gateway_url"),
        ({"nodes": [_NODE | {"gateway_url": "http://somebody@gateway"}]}, "gateway_url"),
        ({"nodes": []}, "nodes"),
        ({"users": [{"username": "a", "password_argon2": "plain", "members": []}]}, "Argon2id"),
        (
            {"users": [{"username": "a", "password_argon2": "$argon2i$v=19$x", "members": []}]},
            "Argon2id",
        ),
        (
            {"users": [{"username": "a", "password_argon2": "$argon2id$", "members": ["zeta"]}]},
            "zeta",
        ),
        (
            {"users": [_person("a", {"zeta": "key-of-a"})]},
            "no node for the key",
        ),
        ({"validators": "0x12"}, "'0x12' is no validator's address"),
        ({"validators": ["0x12"]}, "'0x12' is no validator's address"),
        ({"validators": "nowhere.json"}, "nowhere.json: No such file"),
        (
            {"users": [_person("a", {"aurora": "one"}), _person("b", {"aurora": "one"})]},
            "the same node key",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_reason(
    document: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        ConsoleSettings.model_validate(document | changes)


def test_validators_are_listed_or_stand_in_a_file(document: dict[str, Any], tmp_path: Path) -> None:
    addresses = ["0x" + "11" * 20, "0x" + "22" * 20]
    (tmp_path / "validators").write_text("\n".join(addresses))
    for given in (addresses, ",".join(addresses), str(tmp_path / "validators")):
        settings = ConsoleSettings.model_validate(document | {"validators": given})
        assert settings.sealers == {bytes([17]) * 20, bytes([34]) * 20}
    assert ConsoleSettings.model_validate(document).sealers is None


def test_secrets_are_in_no_repr(document: dict[str, Any]) -> None:
    shown = repr(ConsoleSettings.model_validate(document))
    assert document["secret"] not in shown
    assert document["users"][0]["password_argon2"] not in shown


def test_only_operators_act_at_a_node_and_with_their_own_key(document: dict[str, Any]) -> None:
    keys = {"aurora": "a-key-of-ones-own"}
    people = [
        _person("rita", {"aurora": "a-readers-key"}) | {"role": "reader"},
        _person("otto", keys) | {"role": "operator"},
    ]
    institutions = Institutions(ConsoleSettings.model_validate(document | {"users": people}))
    aurora, meridian = institutions.get("aurora"), institutions.get("meridian")
    assert aurora is not None
    assert meridian is not None
    assert [aurora.lets_act(name) for name in ("rita", "otto", "nobody")] == [False, True, False]
    assert not meridian.lets_act("otto")


def test_the_state_file_is_beside_the_configuration(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    del document["state_file"]
    path = tmp_path / "console.json"
    path.write_text(json.dumps(document))
    assert ConsoleSettings.load(path).state_file == tmp_path / "console.sqlite"


def test_https_outside_makes_the_cookie_secure(document: dict[str, Any]) -> None:
    settings = ConsoleSettings.model_validate(document | {"public_url": "https://ops.example"})
    assert settings.secure
    assert "ops.example" in settings.hosts
