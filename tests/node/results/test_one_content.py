"""One UID names one content: over readings, destinations, profiles, forms and refusals of the gate, in one heap."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO

import pydicom
import pytest
from pydicom import Dataset

from node.destinations import PRESETS, CadProfile, Destination
from node.mammography.views import LMLO, RCC, View
from node.results.reading import EncodedResult, InstanceReference, Outcome, Reading, ResultKind
from node.results.rendering import Rendering
from tests.node.results import cad_exams, exams, report_exams

PICTURES = {"SC", "SCVIEW"}
"""Left out: they take long, have one form, and hold what the presentation states say."""
PROFILES = (
    CadProfile(),
    CadProfile((("mass", 0.5),), "optional", "number"),
    CadProfile((("mass", 0.9),), "not", "none"),
    CadProfile((("mass", 0.9),), "omit"),
)
Sources = dict[View, Dataset]


def with_spacing() -> Reading:
    """A reading whose segmentations have a form with a frame of their own."""
    made = exams.reading()
    return replace(made, views=tuple(replace(view, spacing_mm=(0.14, 0.14)) for view in made.views))


def unread(*reasons: str) -> Iterator[Reading]:
    """The same exam, LMLO not assessed for one reason or another."""
    rest = tuple(view for view in exams.sources() if view != LMLO)
    for reason in reasons:
        yield replace(
            exams.reading(views=rest), selection=exams.reading().selection, unread=(cad_exams.unread(LMLO, reason),)
        )


def twins() -> Iterator[Reading]:
    for number in (1, 2):
        raw = InstanceReference(cad_exams.FOR_PROCESSING, f"{exams.STUDY}.3.{number}", f"{exams.STUDY}.3")
        yield cad_exams.with_view(with_spacing(), RCC, read_from=raw)


def readings() -> Iterator[Reading]:
    """Readings of one exam by one model and settings that differ in what became of it."""
    yield with_spacing()
    yield replace(with_spacing(), allow_probability=True)
    yield from unread("pixels cannot be decoded", "constant image")
    yield from twins()
    later = report_exams.later()
    assert later.predecessor is not None
    yield later
    yield replace(later, predecessor=replace(later.predecessor, documents=later.predecessor.documents[:1]))
    yield replace(later, number=3, predecessor=replace(later.predecessor, number=2))
    for outcome in (Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED):
        yield cad_exams.not_read(outcome, "views missing: LMLO")
    yield cad_exams.not_read(Outcome.NOT_ATTEMPTED, "views missing: LCC")


def destinations() -> Iterator[Destination]:
    for name, preset in PRESETS.items():
        objects = tuple(kind for kind in preset.objects if kind not in PICTURES)
        frames = ("source", "own") if {"SEG", "LABELMAP", "HEATMAP"} & set(objects) else ("source",)
        for frame in frames:
            yield exams.destination(
                *objects, preset=name, segmentation_frame=frame, retract=name == "general-pacs", explain_unread=True
            )
    for profile in PROFILES:
        yield exams.destination("CADSR", cad=profile, explain_unread=True)
    yield Destination("ris", "hl7", host="localhost", port=2575, explain_unread=True)


def gates() -> Iterator[Callable[[EncodedResult], str]]:
    """All pass; no segmentation of the right CC; no label map."""
    yield lambda result: ""
    yield (
        lambda result: "refused" if result.kind is ResultKind.SEGMENTATION and b"RCC regions" in result.content else ""
    )
    yield lambda result: "refused" if result.kind is ResultKind.LABELMAP else ""


def encoded(made: Reading, gate: Callable[[EncodedResult], str]) -> list[EncodedResult]:
    rendering = Rendering(made, exams.sources(), gate)
    for destination in destinations():
        rendering.shipments(destination)
    return list(rendering.results())


@pytest.fixture(scope="module")
def results() -> list[EncodedResult]:
    """All objects of all readings, of one reading past each gate."""
    first, *others = readings()
    everywhere = [result for made in others for result in encoded(made, lambda result: "")]
    return [*(result for gate in gates() for result in encoded(first, gate)), *everywhere]


def test_no_uid_names_two_contents(results):
    contents: defaultdict[str, set[bytes]] = defaultdict(set)
    for result in results:
        contents[result.sop_instance_uid].add(result.content)
    kinds = {result.kind for result in results}
    assert kinds == set(ResultKind) - {ResultKind.SECONDARY_CAPTURE, ResultKind.VIEW_CAPTURE}
    assert len(contents) > 150
    assert [uid for uid, found in contents.items() if len(found) > 1] == []


def test_equal_readings_give_equal_bytes(results):
    stored = {result.sop_instance_uid: result.content for result in results}
    again = {result.sop_instance_uid: result.content for result in encoded(with_spacing(), lambda result: "")}
    assert {uid: stored.get(uid) for uid in again} == again


def test_instances_of_one_series_agree_in_what_is_the_series(results):
    agreed: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    frames: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for result in {result.sop_instance_uid: result for result in results}.values():
        if result.kind is ResultKind.MESSAGE:
            continue
        dataset = pydicom.dcmread(BytesIO(result.content), stop_before_pixels=True)
        series = (
            "Modality",
            "SeriesDescription",
            "SeriesNumber",
            "Laterality",
            "FrameOfReferenceUID",
            "StudyInstanceUID",
        )
        agreed[str(dataset.SeriesInstanceUID)].add(tuple(str(dataset.get(keyword, "")) for keyword in series))
        if "FrameOfReferenceUID" in dataset:
            shared = dataset.SharedFunctionalGroupsSequence[0]
            shape = (dataset.Rows, dataset.Columns, shared.PixelMeasuresSequence[0].PixelSpacing)
            frames[str(dataset.FrameOfReferenceUID)].add((*map(str, shape), str(shared.PlaneOrientationSequence[0])))
    assert {uid: found for uid, found in agreed.items() if len(found) > 1} == {}
    assert {uid: found for uid, found in frames.items() if len(found) > 1} == {}
    assert len(frames) >= 4
