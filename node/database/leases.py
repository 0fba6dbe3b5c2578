"""Who holds which exam."""

from sqlalchemy import select

from node.database.engine import Database
from node.database.schema import ExamRow
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
