"""Requests and answers have a partition a day.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = Path(__file__).with_name("0021_request_days.sql").read_text(encoding="utf-8")
    # The driver's own cursor: SQLAlchemy would take the colons of PL/pgSQL for parameters.
    op.get_bind().connection.cursor().execute(script)


def downgrade() -> None:
    raise RuntimeError("a ledger isn't migrated backwards: restore a backup into a new node")
