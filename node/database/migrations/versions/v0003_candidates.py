"""A second model: which reading was a candidate's, who decided what of it, and what it says in shadow."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None
NOTHING = sa.text("''")


def upgrade() -> None:
    """Add the column and make the tables; readings that stand are the first model's."""
    op.add_column("readings", sa.Column("candidate", sa.String(length=64), nullable=False, server_default=NOTHING))
    op.create_index(op.f("ix_readings_candidate"), "readings", ["candidate"], unique=False)
    _make_decisions()
    _make_shadows()


def downgrade() -> None:
    """Drop them."""
    op.drop_index(op.f("ix_shadows_candidate_status_due_at"), table_name="shadows")
    op.drop_table("shadows")
    op.drop_index(op.f("ix_model_decisions_candidate"), table_name="model_decisions")
    op.drop_table("model_decisions")
    op.drop_index(op.f("ix_readings_candidate"), table_name="readings")
    op.drop_column("readings", "candidate")


def _make_decisions() -> None:
    op.create_table(
        "model_decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("candidate", sa.String(length=64), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("decided_at", sa.DateTime(), nullable=False),
        sa.Column("decided_by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_decisions")),
    )
    op.create_index(op.f("ix_model_decisions_candidate"), "model_decisions", ["candidate"], unique=False)


def _make_shadows() -> None:
    op.create_table(
        "shadows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reading_id", sa.Integer(), nullable=False),
        sa.Column("candidate", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("read_at", sa.DateTime(), nullable=True),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("model_variant", sa.Text(), nullable=False),
        sa.Column("model_weights_hash", sa.Text(), nullable=False),
        sa.Column("settings_hash", sa.String(length=64), nullable=False),
        sa.Column("prediction_json", sa.JSON(), nullable=False),
        sa.Column("seconds_json", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["reading_id"], ["readings.id"], name=op.f("fk_shadows_reading_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadows")),
        sa.UniqueConstraint("reading_id", "candidate", name=op.f("uq_shadows_reading_id_candidate")),
    )
    op.create_index(
        op.f("ix_shadows_candidate_status_due_at"), "shadows", ["candidate", "status", "due_at"], unique=False
    )
