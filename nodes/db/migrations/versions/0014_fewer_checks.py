"""The tables of the authorization path: one CHECK each that guards money, none of forms (ADR 15).

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = Path(__file__).with_name("0014_fewer_checks.sql").read_text(encoding="utf-8")
    # The driver's own cursor: SQLAlchemy would take the colons of PL/pgSQL for parameters.
    op.get_bind().connection.cursor().execute(script)


def downgrade() -> None:
    raise RuntimeError("a ledger isn't migrated backwards: restore a backup into a new node")
