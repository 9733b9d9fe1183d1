"""What holders dispute of what they have paid; approvals in an issuer's place.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = Path(__file__).with_name("0016_disputes_stand_in.sql").read_text(encoding="utf-8")
    # The driver's own cursor: SQLAlchemy would take the colons of PL/pgSQL for parameters.
    op.get_bind().connection.cursor().execute(script)


def downgrade() -> None:
    raise RuntimeError("a ledger isn't migrated backwards: restore a backup into a new node")
