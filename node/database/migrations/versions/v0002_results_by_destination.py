"""Objects by destination: forms, quarantine and conditions of delivery; readings of exams that were not read."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None
NOTHING = sa.text("''")


def _columns() -> tuple[tuple[str, "sa.Column[Any]"], ...]:
    """What a row of version 0001 means is what the server default says: read, in the one form, sent always."""
    return (
        ("exams", sa.Column("explain_due_at", sa.DateTime(), nullable=True)),
        ("readings", sa.Column("outcome", sa.String(length=32), nullable=False, server_default="read")),
        ("readings", sa.Column("reason", sa.Text(), nullable=False, server_default=NOTHING)),
        ("results", sa.Column("series_instance_uid", sa.String(length=64), nullable=False, server_default=NOTHING)),
        ("results", sa.Column("form", sa.String(length=32), nullable=False, server_default=NOTHING)),
        ("results", sa.Column("problem", sa.Text(), nullable=False, server_default=NOTHING)),
        ("deliveries", sa.Column("only_if_taken", sa.String(length=64), nullable=False, server_default=NOTHING)),
        ("deliveries", sa.Column("only_if_refused", sa.String(length=64), nullable=False, server_default=NOTHING)),
    )


def upgrade() -> None:
    """Add the columns; no row is written anew."""
    for table, column in _columns():
        op.add_column(table, column)
    op.create_index(op.f("ix_exams_explain_due_at"), "exams", ["explain_due_at"], unique=False)


def downgrade() -> None:
    """Drop the columns."""
    op.drop_index(op.f("ix_exams_explain_due_at"), table_name="exams")
    for table, column in reversed(_columns()):
        op.drop_column(table, column.name)
