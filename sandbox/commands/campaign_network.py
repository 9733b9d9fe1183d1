"""What the campaigns' commands say when their network couldn't be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def said_if_unmade() -> Iterator[None]:
    """Say why there was no campaign, and exit with status 2."""
    from sandbox.campaigns.scene import SceneError
    from sandbox.founding import FoundingError
    from sandbox.network import AlreadyRunningError, NotADemoDirectoryError
    from sandbox.postgres import PostgresError
    from sandbox.supervisor import ProcessFailedError

    try:
        yield
    except (
        SceneError,
        FoundingError,
        PostgresError,
        ProcessFailedError,
        AlreadyRunningError,
        NotADemoDirectoryError,
    ) as error:
        typer.echo(f"No campaign: {error}", err=True)
        raise typer.Exit(2) from None
