"""Settings of a console for the unit tests; nothing listens where they point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from console.settings import ConsoleSettings

PASSWORD = "a long enough password"
_HASHER = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)


@pytest.fixture(scope="session")
def password_hash() -> str:
    return _HASHER.hash(PASSWORD)


@pytest.fixture
def document(tmp_path: Path, password_hash: str) -> dict[str, Any]:
    """The settings as a JSON document."""
    node = {"api_url": "http://127.0.0.1:9", "api_key": "key"}
    return {
        "port": 8080,
        "secret": "s" * 40,
        "nodes": [
            {"member_id": "aurora", "name": "Aurora Bank", "roles": ["issuer"], **node},
            {"member_id": "meridian", "name": "Meridian", "roles": ["acquirer"], **node},
        ],
        "users": [
            {
                "username": "ada",
                "password_argon2": password_hash,
                "role": "admin",
                "members": ["*"],
            },
            {
                "username": "rita",
                "password_argon2": password_hash,
                "role": "reader",
                "members": ["meridian"],
            },
        ],
        "rpc_url": "http://127.0.0.1:9",
        "anchor_registry": "0x" + "11" * 20,
        "member_registry": "0x" + "22" * 20,
        "state_file": str(tmp_path / "console.sqlite"),
    }


@pytest.fixture
def settings_with(document: dict[str, Any]) -> Callable[..., ConsoleSettings]:
    """Settings with some keys changed."""
    return lambda **changes: ConsoleSettings.model_validate(document | changes)


@pytest.fixture
def settings(settings_with: Callable[..., ConsoleSettings]) -> ConsoleSettings:
    return settings_with()
