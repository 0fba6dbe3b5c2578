"""A reading's objects: made for its destinations, past the gate, kept on disk, addressed. What fails is quarantined."""

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from node.database import Database
from node.database.readings import Address, StoredResult, predecessor_of, stored_identity
from node.mammography.views import View
from node.result_files import keep_quarantined, keep_result
from node.results.reading import DocumentReference, EncodedResult, Predecessor, Reading
from node.routing import Route, Skip
from node.settings import Destination, Settings

if TYPE_CHECKING:
    from node.results.rendering import Shipment

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """The objects of one reading, each once, and which of them goes where, in the order of sending."""

    results: tuple[StoredResult, ...]
    addresses: tuple[Address, ...]


def destinations_of(taken: Route | Skip, settings: Settings) -> tuple[Destination, ...]:
    """Where the results of an exam go; why it was skipped by a rule concerns all."""
    named = taken.destinations if isinstance(taken, Route) else ()
    return tuple(destination for destination in settings.destinations if not named or destination.name in named)


def keep(
    database: Database,
    data_folder: Path,
    reading: Reading,
    sources: Mapping[View, Dataset],
    destinations: Sequence[Destination],
    seconds: dict[str, float],
) -> Kept:
    """Make what the destinations get, and write it down durably; nothing where the very same reading stands already
    with its own. Raises OutOfResourcesError.
    """
    if stored_identity(database, reading) is not None:
        return Kept((), ())
    # Here and not above: the tables of highdicom take 22 MB, and only a worker that reads has a use for them.
    from node.results.gate import problem_of
    from node.results.rendering import Rendering

    with timed(seconds, "encode"):
        rendering = Rendering(reading, sources, problem_of)
        shipments = [(destination.name, rendering.shipments(destination)) for destination in destinations]
    with timed(seconds, "store"):
        made = {result.sop_instance_uid: result for result in rendering.results()}
        results = tuple(_kept(data_folder, reading, result) for result in made.values())
    addresses = tuple(_address(name, shipment) for name, shipped in shipments for shipment in shipped)
    return Kept(results, tuple({(a.destination, a.sop_instance_uid): a for a in addresses}.values()))


def predecessor(database: Database, study_instance_uid: str) -> Predecessor | None:
    """The reading that the study's next one replaces, with those of its objects that left the node or may have."""
    found = predecessor_of(database, study_instance_uid)
    if found is None:
        return None
    before, results = found
    paths = {result.sop_instance_uid: result.path for result in results}
    documents = (_with_series(document, paths[document.sop_instance_uid]) for document in before.documents)
    return replace(before, documents=tuple(document for document in documents if document is not None))


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took."""
    began = time.monotonic()
    yield
    seconds[stage] = round(time.monotonic() - began, 3)


def _kept(data_folder: Path, reading: Reading, result: EncodedResult) -> StoredResult:
    if result.problem:
        logger.error(
            "ALARM %s: %s %s is quarantined: %s",
            reading.study_instance_uid,
            result.kind,
            result.sop_instance_uid,
            result.problem,
        )
    write = keep_quarantined if result.problem else keep_result
    path = str(write(data_folder, result.sop_instance_uid, result.content, result.kind)) if result.content else ""
    return StoredResult(
        kind=result.kind,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        path=path,
        content_hash=hashlib.sha256(result.content).hexdigest(),
        series_instance_uid=result.series_instance_uid,
        form=result.form,
        problem=result.problem,
    )


def _address(destination: str, shipment: "Shipment") -> Address:
    return Address(shipment.result.sop_instance_uid, destination, shipment.only_if_taken, shipment.only_if_refused)


def _with_series(document: DocumentReference, path: str) -> DocumentReference | None:
    """Rows of version 0001 have no Series Instance UID: it stands in the file. None where that is gone."""
    if document.series_instance_uid:
        return document
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return replace(document, series_instance_uid=str(header.SeriesInstanceUID))
    except (OSError, EOFError, InvalidDicomError, AttributeError):
        return None
