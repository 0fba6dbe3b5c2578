"""The demo's exams: what is sent, what is true of it, and how it should end."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from node.mammography.findings import Box
from node.mammography.views import Laterality, View

READ = "read"
SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class TruthBox:
    """A lesion that is known to lie in one image, in stored pixels."""

    sop_instance_uid: str
    view: str
    box: Box
    label: str
    malignant: bool


@dataclass(frozen=True, slots=True)
class Expected:
    """How an exam should end: status, words that its reason must hold (empty: any), and whether the PACS is told why
    it was not read.
    """

    status: str
    reason: str = ""
    explained: bool = False


SHOULD_BE_READ = Expected(READ)


@dataclass(frozen=True, slots=True)
class DemoExam:
    """One exam as the modality sends it. `files` are Part 10 files in the order of sending."""

    key: str
    title: str
    form: str
    """Transfer syntax and image size, in words."""
    truth: str
    study_instance_uid: str
    files: tuple[Path, ...]
    views: tuple[View, ...]
    """What each file shows; empty where it is no mammogram."""
    expected: Expected
    malignant: tuple[Laterality, ...] = ()
    """Breasts that hold a malignancy."""
    lesions: tuple[TruthBox, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the demo. Its name goes into every UID: a second run sends new exams, as a modality would."""

    name: str
    folder: Path

    def uid(self, *parts: str) -> str:
        """The UID of one thing of this run: 2.25. and a UUIDv5 (PS3.5 B.2)."""
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join((self.name, *parts))).int}"

    def patient_id(self, key: str) -> str:
        """Patient ID of an exam of this run."""
        return f"DEMO-{self.name[:6].upper()}-{key.upper()}"[:64]

    def accession_number(self, key: str) -> str:
        """Accession Number (SH, 16 characters) of an exam of this run."""
        return f"{self.name[:6].upper()}-{key.upper()}"[:16]
