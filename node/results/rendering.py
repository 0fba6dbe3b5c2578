"""What each destination gets of a reading: its kinds of object, each in the form it wants, each past the gate.

Objects of one kind and one form are made once, however many destinations get them. What refers to other objects (the
report to segmentations, the key objects to everything) is made after them and names only those that may leave.
"""

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset

from node.destinations import Destination
from node.errors import EncodeError
from node.mammography.views import View
from node.results import (
    cad_report,
    heatmap_segmentation,
    key_objects,
    labelmap,
    message,
    presentation_state,
    secondary_capture,
    segmentation,
    structured_report,
    uids,
    view_capture,
)
from node.results.document import UNREADABLE
from node.results.labelmap import LABEL_MAP_SEGMENTATION_STORAGE
from node.results.reading import EncodedResult, Outcome, Reading, ResultKind
from node.results.segmentation_frames import OWN_FRAME

Sources = Mapping[View, Dataset]
_OWN_FOLDER = Path(__file__).parents[1]
Gate = Callable[[EncodedResult], str]
"""What is wrong with an object, in words; "" where it may leave."""


@dataclass(frozen=True, slots=True, eq=False)
class Shipment:
    """One object on its way to one destination.

    `only_if_taken` and `only_if_refused` are SOP Class UIDs: the object goes only where the destination takes the one,
    or only where it refuses the other; "" always. That is how BINARY segmentations stand in for LABELMAP.
    """

    result: EncodedResult
    only_if_taken: str = ""
    only_if_refused: str = ""


@dataclass(frozen=True, slots=True)
class Encoder:
    """How one kind is made: `form` gives the form's name for a destination, `encode` the objects in that form."""

    encode: Callable[[Reading, Sources, Destination], tuple[EncodedResult, ...]]
    form: Callable[[Destination], str] = lambda destination: ""


def _frame_form(destination: Destination) -> str:
    """The form of segmentations; views that cannot be written in it have form "" all the same."""
    return OWN_FRAME if destination.frame == OWN_FRAME else ""


ENCODERS: dict[ResultKind, Encoder] = {
    ResultKind.CAD_REPORT: Encoder(
        lambda reading, sources, destination: (cad_report.encode(reading, sources, destination.cad),),
        lambda destination: cad_report.form(destination.cad),
    ),
    ResultKind.SEGMENTATION: Encoder(
        lambda reading, sources, destination: segmentation.encode(reading, sources, destination.frame), _frame_form
    ),
    ResultKind.LABELMAP: Encoder(
        lambda reading, sources, destination: labelmap.encode(reading, sources, destination.frame), _frame_form
    ),
    ResultKind.HEATMAP: Encoder(
        lambda reading, sources, destination: heatmap_segmentation.encode(reading, sources, destination.frame),
        _frame_form,
    ),
    ResultKind.PRESENTATION_STATE: Encoder(lambda reading, sources, _: presentation_state.encode(reading, sources)),
    ResultKind.SECONDARY_CAPTURE: Encoder(lambda reading, sources, _: (secondary_capture.encode(reading, sources),)),
    ResultKind.VIEW_CAPTURE: Encoder(lambda reading, sources, _: view_capture.encode(reading, sources)),
    ResultKind.MESSAGE: Encoder(lambda reading, sources, _: (message.encode(reading, sources),)),
}
"""Kinds that refer to no other of our objects, in the order in which they are sent."""

WITHOUT_A_READING = frozenset({ResultKind.CAD_REPORT, ResultKind.STRUCTURED_REPORT, ResultKind.MESSAGE})
"""What an exam that was not read gives where the destination wants it explained."""


SEGMENTATIONS = frozenset({ResultKind.SEGMENTATION, ResultKind.LABELMAP, ResultKind.HEATMAP})
"""What the report refers to."""

UNWRITABLE = (EncodeError, *UNREADABLE)
"""What an encoder raises at a header that nobody foresaw: that object is not made, the others are."""

NEVER_WITHDRAWN = frozenset({ResultKind.REJECTION, ResultKind.MESSAGE})
"""What no rejection note names: a note, and what is no DICOM object."""


def _where(error: Exception) -> str:
    """ " in name of file.py, line 12", where it was raised in the node's own code."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if _OWN_FOLDER in Path(frame.filename).parents
    ]
    return f" in {frames[-1].name} of {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def _leaving(made: Iterable[EncodedResult]) -> list[EncodedResult]:
    return [result for result in made if not result.problem]


class Rendering:
    """The objects of one reading. `gate` is asked once for each object."""

    def __init__(self, reading: Reading, sources: Sources, gate: Gate) -> None:
        self._reading = reading
        self._sources = sources
        self._gate = gate
        self._made: dict[tuple[ResultKind, str], tuple[EncodedResult, ...]] = {}

    def results(self) -> tuple[EncodedResult, ...]:
        """All objects made so far, those that must not leave too."""
        return tuple(result for made in self._made.values() for result in made)

    def shipments(self, destination: Destination) -> tuple[Shipment, ...]:
        """What one destination gets, in the order of sending."""
        kinds = self._kinds(destination)
        if ResultKind.LABELMAP not in kinds:
            return tuple(Shipment(result) for result in self._set(kinds, destination))
        with_regions = kinds - {ResultKind.LABELMAP} | {ResultKind.SEGMENTATION}
        without = {id(result): result for result in self._set(with_regions, destination)}
        labels = self._of_kind(ResultKind.LABELMAP, destination)
        if not _leaving(labels):
            return tuple(Shipment(result) for result in (*labels, *without.values()))
        with_labels = {id(result): result for result in self._set(kinds, destination)}
        shipments = (
            *(Shipment(result) for key, result in with_labels.items() if key in without),
            *(
                Shipment(result, only_if_taken=LABEL_MAP_SEGMENTATION_STORAGE)
                for key, result in with_labels.items()
                if key not in without
            ),
            *(
                Shipment(result, only_if_refused=LABEL_MAP_SEGMENTATION_STORAGE)
                for key, result in without.items()
                if key not in with_labels
            ),
        )
        # Nothing is withdrawn before what replaces it was sent.
        return tuple(sorted(shipments, key=lambda shipment: shipment.result.kind is ResultKind.REJECTION))

    def _kinds(self, destination: Destination) -> frozenset[ResultKind]:
        kinds = frozenset(ResultKind(kind) for kind in destination.kinds)
        if self._reading.outcome is Outcome.READ:
            return kinds
        return kinds & WITHOUT_A_READING if destination.wants_unread else frozenset()

    def _set(self, kinds: frozenset[ResultKind], destination: Destination) -> list[EncodedResult]:
        """One consistent set of objects: the report and the key objects refer to nothing outside it.

        Objects that must not leave stand in it too, for whoever tells of them; no other object names them.
        """
        made = [result for kind in ENCODERS if kind in kinds for result in self._of_kind(kind, destination)]
        if ResultKind.STRUCTURED_REPORT in kinds:
            segmentations = [result for result in _leaving(made) if result.kind in SEGMENTATIONS]
            made += self._report(segmentations, destination)
        named = [result for result in _leaving(made) if result.kind is not ResultKind.MESSAGE]
        if ResultKind.KEY_OBJECTS in kinds and named:
            made += self._key_objects(named)
        if destination.retract and named:
            made += self._rejection(destination)
        return made

    def _report(self, segmentations: Sequence[EncodedResult], destination: Destination) -> tuple[EncodedResult, ...]:
        """Where segmentations have a frame of their own it is OHIF that shows them: the report is as OHIF opens it."""
        regions_only = destination.frame == OWN_FRAME
        return self._once(
            ResultKind.STRUCTURED_REPORT,
            structured_report.form(segmentations, regions_only),
            lambda: (structured_report.encode(self._reading, self._sources, segmentations, regions_only),),
        )

    def _key_objects(self, named: Sequence[EncodedResult]) -> tuple[EncodedResult, ...]:
        return self._once(
            ResultKind.KEY_OBJECTS,
            key_objects.form(named),
            lambda: (key_objects.encode(self._reading, self._sources, named),),
        )

    def _rejection(self, destination: Destination) -> tuple[EncodedResult, ...]:
        """The note that withdraws what this destination got of the reading before.

        Only an exam that was read replaces one that was: where the later reading failed, the earlier marks stay.
        """
        before = self._reading.predecessor
        if before is None or self._reading.outcome is not Outcome.READ:
            return ()
        withdrawn = [
            document
            for document in before.documents
            if destination.name in document.destinations and document.kind not in NEVER_WITHDRAWN
        ]
        if not withdrawn:
            return ()
        return self._once(
            ResultKind.REJECTION,
            key_objects.form(withdrawn),
            lambda: (key_objects.reject(self._reading, self._sources, withdrawn),),
        )

    def _of_kind(self, kind: ResultKind, destination: Destination) -> tuple[EncodedResult, ...]:
        encoder = ENCODERS[kind]
        return self._once(
            kind, encoder.form(destination), lambda: encoder.encode(self._reading, self._sources, destination)
        )

    def _once(
        self, kind: ResultKind, form: str, encode: Callable[[], Sequence[EncodedResult]]
    ) -> tuple[EncodedResult, ...]:
        if (kind, form) not in self._made:
            try:
                made = tuple(self._gated(result) for result in encode())
            except UNWRITABLE as error:
                made = (self._unwritten(kind, form, error),)
            self._made[kind, form] = made
        return self._made[kind, form]

    def _gated(self, result: EncodedResult) -> EncodedResult:
        return replace(result, problem=self._gate(result))

    def _unwritten(self, kind: ResultKind, form: str, error: Exception) -> EncodedResult:
        """An object that could not be made: it has no content, and its problem says why, without words of a header."""
        told = (
            str(error) if isinstance(error, EncodeError) else f"cannot be made: {type(error).__name__}{_where(error)}"
        )
        return EncodedResult(
            kind=kind,
            sop_class_uid="",
            sop_instance_uid=uids.instance_uid(self._reading, kind, None, form),
            transfer_syntax_uid="",
            content=b"",
            form=form,
            problem=told,
        )
