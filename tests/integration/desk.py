"""One database, one model, real destinations: the steps of a worker, called by hand."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset

from node import explaining, outbox, pipeline
from node.database import Database, open_database, upgrade
from node.database.exams import ExamRecord, exam_record
from node.destinations import Destination
from node.inference.model import Model
from node.instance import instance_of
from node.intake import receive
from node.owner import owner_name
from node.settings import ExamSettings, Settings
from node.status import ExamState, exam_state


@dataclass
class Desk:
    """A worker's bench with the folder that its images and results lie in."""

    bench: pipeline.Bench
    model: Model
    folder: Path

    @property
    def database(self) -> Database:
        return self.bench.database

    def set(self, *destinations: Destination, **changes: object) -> None:
        """Other settings from now on; `exam` may be a dict of changes."""
        settings = self.bench.settings
        if "exam" in changes:
            exam: ExamSettings = replace(settings.exam, **changes.pop("exam"))  # type: ignore[arg-type]
            settings = replace(settings, exam=exam)
        settings = replace(settings, destinations=destinations or settings.destinations, **changes)  # type: ignore[arg-type]
        self.bench = replace(self.bench, settings=settings)

    def receive(self, images: Sequence[Dataset]) -> str:
        for image in images:
            path = self.folder / f"{image.SOPInstanceUID}.dcm"
            image.save_as(path, enforce_file_format=True)
            instance = instance_of(
                image,
                content_hash=hashlib.sha256(path.read_bytes()).hexdigest(),
                path=str(path),
                received_at=datetime.now(UTC),
                from_patient_orientation=False,
            )
            receive(self.database, instance, self.bench.settings.exam, self.bench.settings.rules, datetime.now(UTC))
        return str(images[0].StudyInstanceUID)

    def lease(self, study: str) -> ExamRecord | None:
        return pipeline.lease(self.bench, study, datetime.now(UTC))

    def read(self, study: str) -> int | None:
        """What the task `read_exam` does."""
        leased = self.lease(study)
        assert leased is not None
        try:
            return pipeline.read_exam(self.bench, leased, lambda: self.model)
        except Exception as error:  # noqa: BLE001 - as in the task
            pipeline.give_up(self.bench, leased, error, datetime.now(UTC))
            return None

    def explain(self, study: str) -> int | None:
        """What the task `explain` does; None where nothing is due or wanted."""
        leased = explaining.lease(self.bench, study, datetime.now(UTC))
        return None if leased is None else explaining.explain(self.bench, leased, lambda: self.model)

    def exam(self, study: str) -> ExamRecord:
        record = exam_record(self.database, study)
        assert record is not None
        return record

    def state(self, study: str) -> ExamState:
        state = exam_state(self.database, study)
        assert state is not None
        return state

    def deliver(self, reading_id: int, destination: str, now: datetime | None = None) -> tuple[int, int]:
        bench = self.bench
        when = now or datetime.now(UTC)
        return outbox.deliver_due(bench.database, bench.settings, bench.owner, reading_id, destination, when)


def make_desk(settings: Settings, model: Model, folder: Path, database_url: str | None = None) -> Desk:
    """A desk with a migrated database of its own; `database.close()` ends it."""
    database = open_database(database_url or f"sqlite:///{folder / 'node.db'}")
    upgrade(database)
    bench = pipeline.Bench(database, replace(settings, data_folder=folder), owner_name())
    return Desk(bench, model, folder)
