"""Orders of messages: counters that were online, what waits behind a reversal; how disputes ended.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = Path(__file__).with_name("0017_ended_offline.sql").read_text(encoding="utf-8")
    # The driver's own cursor: SQLAlchemy would take the colons of PL/pgSQL for parameters.
    op.get_bind().connection.cursor().execute(script)


def downgrade() -> None:
    raise RuntimeError("a ledger isn't migrated backwards: restore a backup into a new node")
