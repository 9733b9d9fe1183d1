"""A batch of decisions is written in one round trip.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = Path(__file__).with_name("0002_one_round_trip.sql").read_text(encoding="utf-8")
    # The driver's own cursor: SQLAlchemy would take the colons of PL/pgSQL for parameters.
    op.get_bind().connection.cursor().execute(script)


def downgrade() -> None:
    raise RuntimeError("a ledger isn't migrated backwards: restore a backup into a new node")
