"""The tables. SQL is the truth: what arrived, where each exam stands, what was read, what was sent where."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, MetaData, String, Text, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

UID_LENGTH = 64
"""PS3.5 9.1."""
HASH_LENGTH = 64
"""SHA-256, hexadecimal."""
NAME_LENGTH = 64
"""Of a candidate's name."""
NOTHING = text("''")
"""The empty string as a server default, in a form that alembic can compare."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored as naive UTC: SQLite has no time zones, and PostgreSQL then needs none."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware to naive UTC. Raises ValueError for a naive value: nobody knows what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Naive UTC to aware UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Table(DeclarativeBase):
    """Root of the tables; constraints are named by one rule, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class InstanceRow(Table):
    """One accepted content of one SOP Instance UID. Never changed; a later content is another row, and it counts."""

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "content_hash"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    series_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    study_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    content_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    path: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    is_ours: Mapped[bool]
    """Made by this node and sent back to it: kept, never part of an exam."""
    header_json: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The rest of exam.Instance."""


class ExamRow(Table):
    """Where the exam of one study stands. The lease is that of its reader, or of who explains why it was not read."""

    __tablename__ = "exams"
    __table_args__ = (Index(None, "status", "due_at"),)

    study_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), primary_key=True)
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it was skipped or failed, or why the last try failed; empty otherwise."""
    waiting_for: Mapped[str] = mapped_column(Text, default="")
    """"LMLO", "settling: For Processing alone"; empty when complete."""
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """WAITING: when it is read or skipped as it stands. READY: not before this time; None: now."""
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_status: Mapped[str | None] = mapped_column(String(16))
    """Images changed while READING: what the exam becomes when the worker lets go."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Tries of reading the present choice of images."""
    priority: Mapped[int] = mapped_column(default=5)
    alarm: Mapped[bool] = mapped_column(default=False)
    selection_hash: Mapped[str] = mapped_column(String(HASH_LENGTH), default="")
    """exam.selection_hash of the present choice."""
    last_image_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    explain_due_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    """SKIPPED and FAILED: when destinations are to be told why, at the earliest; None: that is done with."""


class ReadingRow(Table):
    """One stored reading, or why there is none; a later number supersedes an earlier one."""

    __tablename__ = "readings"
    __table_args__ = (
        UniqueConstraint("study_instance_uid", "number"),
        UniqueConstraint("study_instance_uid", "identity_hash"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(ForeignKey("exams.study_instance_uid"))
    number: Mapped[int]
    read_at: Mapped[datetime] = mapped_column(UtcDateTime)
    identity_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    """Over selection, model and settings: the same reading is never stored twice."""
    selection_json: Mapped[list[list[str]]] = mapped_column(JSON)
    """Sorted [SOP Instance UID, content hash] of the images read."""
    model_name: Mapped[str] = mapped_column(Text)
    model_version: Mapped[str] = mapped_column(Text)
    model_variant: Mapped[str] = mapped_column(Text)
    model_weights_hash: Mapped[str] = mapped_column(Text)
    settings_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    prediction_json: Mapped[dict[str, Any]] = mapped_column(JSON)
    seconds_json: Mapped[dict[str, float]] = mapped_column(JSON)
    """Seconds in each stage."""
    supersedes_id: Mapped[int | None] = mapped_column(ForeignKey("readings.id"))
    outcome: Mapped[str] = mapped_column(String(32), server_default="read")
    """results.reading.Outcome."""
    reason: Mapped[str] = mapped_column(Text, server_default=NOTHING)
    """Why the exam was not read; empty where it was."""
    candidate: Mapped[str] = mapped_column(String(NAME_LENGTH), server_default=NOTHING, index=True)
    """Name of the candidate that read it as canary; empty: the first model did."""


class ModelDecisionRow(Table):
    """What a person decided of a candidate, who and when. Only ever added to; the latest one of a candidate holds."""

    __tablename__ = "model_decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    candidate: Mapped[str] = mapped_column(String(NAME_LENGTH), index=True)
    decision: Mapped[str] = mapped_column(String(16))
    """decisions.Decision."""
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)
    decided_by: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text, default="")


class ShadowRow(Table):
    """What a candidate says of the images of one reading, beside what was said and sent. No delivery refers to it."""

    __tablename__ = "shadows"
    __table_args__ = (UniqueConstraint("reading_id", "candidate"), Index(None, "candidate", "status", "due_at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    reading_id: Mapped[int] = mapped_column(ForeignKey("readings.id"))
    candidate: Mapped[str] = mapped_column(String(NAME_LENGTH))
    status: Mapped[str] = mapped_column(String(16))
    """shadows.ShadowStatus."""
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it failed, or why it was tried in vain last; empty otherwise."""
    read_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    model_name: Mapped[str] = mapped_column(Text, default="")
    model_version: Mapped[str] = mapped_column(Text, default="")
    model_variant: Mapped[str] = mapped_column(Text, default="")
    model_weights_hash: Mapped[str] = mapped_column(Text, default="")
    settings_hash: Mapped[str] = mapped_column(String(HASH_LENGTH), default="")
    prediction_json: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """As ReadingRow.prediction_json."""
    seconds_json: Mapped[dict[str, float]] = mapped_column(JSON, default=dict)


class ResultRow(Table):
    """One object made from a reading; with a problem it never leaves the node."""

    __tablename__ = "results"

    id: Mapped[int] = mapped_column(primary_key=True)
    reading_id: Mapped[int] = mapped_column(ForeignKey("readings.id"), index=True)
    kind: Mapped[str] = mapped_column(String(8))
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), unique=True)
    transfer_syntax_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    path: Mapped[str] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    series_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), server_default=NOTHING)
    form: Mapped[str] = mapped_column(String(32), server_default=NOTHING)
    """results.reading.EncodedResult.form."""
    problem: Mapped[str] = mapped_column(Text, server_default=NOTHING)
    """Why it must not leave; empty where it may."""


class DeliveryRow(Table):
    """One result to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("result_id", "destination"), Index(None, "status", "due_at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id"))
    reading_id: Mapped[int] = mapped_column(ForeignKey("readings.id"), index=True)
    destination: Mapped[str] = mapped_column(String(128))
    status: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(Text, default="")
    only_if_taken: Mapped[str] = mapped_column(String(UID_LENGTH), server_default=NOTHING)
    """Sent only where the destination takes this SOP Class UID; empty: always."""
    only_if_refused: Mapped[str] = mapped_column(String(UID_LENGTH), server_default=NOTHING)
    """Sent only where the destination does not take it; empty: always."""
