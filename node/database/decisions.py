"""What was decided of candidates: who, when, why. The latest decision of a name holds, for every worker at once."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from node.database.engine import Database
from node.database.schema import ModelDecisionRow


class Decision(StrEnum):
    """What holds for a candidate from then on."""

    ROLLBACK = "rollback"
    """It reads no exam in place of the first model, whatever its share in the settings."""
    PROMOTE = "promote"
    """It reads every exam."""
    RESUME = "resume"
    """Its share in the settings holds again, as before any decision."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision."""

    candidate: str
    decision: Decision
    at: datetime
    by: str
    reason: str


def decide(database: Database, decided: Decided) -> None:
    """Record a decision; it holds from the commit on."""
    with database.write() as session:
        session.add(
            ModelDecisionRow(
                candidate=decided.candidate,
                decision=decided.decision.value,
                decided_at=decided.at,
                decided_by=decided.by,
                reason=decided.reason,
            )
        )


def decisions_of(database: Database, candidate: str | None = None) -> tuple[Decided, ...]:
    """Of one candidate, or of all; the first decision first."""
    wanted = select(ModelDecisionRow).order_by(ModelDecisionRow.id)
    if candidate is not None:
        wanted = wanted.where(ModelDecisionRow.candidate == candidate)
    with database.read() as session:
        return tuple(_decided(row) for row in session.scalars(wanted))


def latest_decision(database: Database, candidate: str) -> Decided | None:
    """The decision that holds, None where there was none."""
    with database.read() as session:
        return standing_decision(session, candidate)


def standing_decision(session: Session, candidate: str) -> Decided | None:
    """`latest_decision` within a transaction."""
    row = session.scalars(
        select(ModelDecisionRow)
        .where(ModelDecisionRow.candidate == candidate)
        .order_by(ModelDecisionRow.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else _decided(row)


def is_rolled_back(session: Session, candidate: str) -> bool:
    """Whether what this candidate read must not be stored any more; never for the first model, whose name is empty."""
    standing = standing_decision(session, candidate) if candidate else None
    return standing is not None and standing.decision is Decision.ROLLBACK


def _decided(row: ModelDecisionRow) -> Decided:
    return Decided(row.candidate, Decision(row.decision), row.decided_at, row.decided_by, row.reason)
