"""Who holds which exam, explanation and delivery, and what was given up."""

from sqlalchemy import select

from node.database.deliveries import DeliveryStatus
from node.database.engine import Database
from node.database.schema import DeliveryRow, ExamRow
from node.exam import ExamStatus


def leased_exams(database: Database) -> list[tuple[str, str]]:
    """(Study Instance UID, owner) of each exam that is being read."""
    with database.read() as session:
        rows = session.execute(
            select(ExamRow.study_instance_uid, ExamRow.lease_owner).where(
                ExamRow.status == ExamStatus.READING, ExamRow.lease_owner.is_not(None)
            )
        )
        return [(uid, owner) for uid, owner in rows if owner is not None]


def leased_deliveries(database: Database) -> list[tuple[int, str]]:
    """(delivery id, owner) of each delivery that is being sent."""
    with database.read() as session:
        rows = session.execute(
            select(DeliveryRow.id, DeliveryRow.lease_owner).where(
                DeliveryRow.status == DeliveryStatus.SENDING, DeliveryRow.lease_owner.is_not(None)
            )
        )
        return [(number, owner) for number, owner in rows if owner is not None]


def failed_exams(database: Database) -> list[str]:
    """Study Instance UIDs of the exams that were given up."""
    with database.read() as session:
        return list(session.scalars(select(ExamRow.study_instance_uid).where(ExamRow.status == ExamStatus.FAILED)))
