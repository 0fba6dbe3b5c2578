"""What each destination gets: only what passed the gate, and nothing that names what it does not get."""

from dataclasses import replace
from io import BytesIO

import pydicom
import pytest

from node.destinations import Destination
from node.results import rendering, structured_report
from node.results.reading import EncodedResult, Outcome, Reading, ResultKind
from node.results.rendering import LABEL_MAP_SEGMENTATION_STORAGE, Rendering, Shipment
from tests.node.results import cad_exams, exams, report_exams

LABELS = LABEL_MAP_SEGMENTATION_STORAGE


@pytest.fixture(scope="module")
def made() -> Reading:
    return report_exams.whole()


def passes(result: EncodedResult) -> str:
    return ""


def refusing(*kinds: ResultKind, first: bool = False):
    """A gate that refuses all objects of `kinds`, or the first of them alone."""
    seen: list[str] = []

    def gate(result: EncodedResult) -> str:
        if result.kind not in kinds or (first and seen):
            return ""
        seen.append(result.sop_instance_uid)
        return "attribute missing"

    return gate


def shipped(made: Reading, *objects: str, gate=passes, **changes: object) -> tuple[Shipment, ...]:
    return Rendering(made, exams.sources(), gate).shipments(exams.destination(*objects, **changes))


def of_kind(shipments: tuple[Shipment, ...], *kinds: str) -> list[EncodedResult]:
    return [shipment.result for shipment in shipments if shipment.result.kind.value in kinds]


def named_by(result: EncodedResult) -> set[str]:
    """Every instance in the evidence of a report or of key objects."""
    (study,) = pydicom.dcmread(BytesIO(result.content)).CurrentRequestedProcedureEvidenceSequence
    series = study.ReferencedSeriesSequence
    return {str(item.ReferencedSOPInstanceUID) for each in series for item in each.ReferencedSOPSequence}


def ours_named_by(result: EncodedResult) -> set[str]:
    return {uid for uid in named_by(result) if uid.startswith("2.25.")}


def uids_of(results: list[EncodedResult]) -> set[str]:
    return {result.sop_instance_uid for result in results}


def taking(shipments: tuple[Shipment, ...], takes_labels: bool) -> list[EncodedResult]:
    """What a destination gets that takes the label map SOP class, or refuses it."""
    return [
        shipment.result
        for shipment in shipments
        if not (shipment.only_if_taken and not takes_labels) and not (shipment.only_if_refused and takes_labels)
    ]


def test_the_report_follows_what_it_refers_to_and_the_key_objects_come_last(made):
    kinds = [shipment.result.kind.value for shipment in shipped(made, "KOS", "SR", "SC", "SEG", "HEATMAP")]
    assert kinds == ["SEG"] * 3 + ["HEATMAP"] * kinds.count("HEATMAP") + ["SC", "SR", "KOS"]


def test_the_report_refers_to_the_segmentations_and_the_key_objects_to_all(made):
    everything = shipped(made, "SEG", "HEATMAP", "SC", "SR", "KOS")
    (report,), (key_objects,) = of_kind(everything, "SR"), of_kind(everything, "KOS")
    assert ours_named_by(report) == uids_of(of_kind(everything, "SEG", "HEATMAP"))
    assert ours_named_by(key_objects) == uids_of(of_kind(everything, "SEG", "HEATMAP", "SC", "SR"))


def test_a_destination_without_segmentations_gets_a_report_that_names_none(made):
    (report,) = of_kind(shipped(made, "SR", "SC"), "SR")
    assert report.form == ""
    assert ours_named_by(report) == set()


def test_where_segmentations_have_a_frame_of_their_own_the_report_is_of_regions_alone(made):
    (report,) = of_kind(shipped(made, preset="ohif"), "SR")
    segmentations = of_kind(shipped(made, preset="ohif"), "SEG")
    assert report.form == structured_report.form(segmentations, regions_only=True)
    assert ours_named_by(report) == uids_of(segmentations)


def test_an_object_that_the_gate_refused_is_shipped_with_its_problem_and_named_by_none(made):
    everything = shipped(made, "SEG", "SR", "KOS", gate=refusing(ResultKind.SEGMENTATION, first=True))
    refused, *others = of_kind(everything, "SEG")
    (report,), (key_objects,) = of_kind(everything, "SR"), of_kind(everything, "KOS")
    assert refused.problem == "attribute missing"
    assert [each.problem for each in others] == ["", ""]
    assert ours_named_by(report) == uids_of(others)
    assert ours_named_by(key_objects) == uids_of([*others, report])


def test_a_report_that_the_gate_refused_is_not_among_the_key_objects(made):
    everything = shipped(made, "SC", "SR", "KOS", gate=refusing(ResultKind.STRUCTURED_REPORT))
    (key_objects,) = of_kind(everything, "KOS")
    assert ours_named_by(key_objects) == uids_of(of_kind(everything, "SC"))


def test_no_key_objects_where_nothing_else_leaves(made):
    everything = shipped(made, "SC", "KOS", gate=refusing(ResultKind.SECONDARY_CAPTURE))
    assert [shipment.result.kind.value for shipment in everything] == ["SC"]


@pytest.mark.parametrize(("takes_labels", "regions"), [(True, "LABELMAP"), (False, "SEG")])
def test_both_ends_of_a_negotiation_get_a_set_that_names_itself_alone(made, takes_labels, regions):
    got = taking(shipped(made, "LABELMAP", "SR", "SC", "KOS"), takes_labels)
    assert sorted({result.kind.value for result in got}) == sorted({regions, "SC", "SR", "KOS"})
    (report,) = [result for result in got if result.kind is ResultKind.STRUCTURED_REPORT]
    (key_objects,) = [result for result in got if result.kind is ResultKind.KEY_OBJECTS]
    assert ours_named_by(report) == uids_of([result for result in got if result.kind.value == regions])
    assert ours_named_by(key_objects) == uids_of(got) - {key_objects.sop_instance_uid}
    assert len(uids_of(got)) == len(got)


def test_what_both_get_is_made_and_sent_once(made):
    everything = shipped(made, "LABELMAP", "SR", "SC", "KOS")
    assert {(each.only_if_taken, each.only_if_refused) for each in everything if each.result.kind.value == "SC"} == {
        ("", "")
    }
    assert len(of_kind(everything, "SC")) == 1
    assert {each.only_if_taken for each in everything if each.result.kind.value == "LABELMAP"} == {LABELS}
    assert {each.only_if_refused for each in everything if each.result.kind.value == "SEG"} == {LABELS}


def test_where_no_label_map_may_leave_everybody_gets_binary_regions(made):
    everything = shipped(made, "LABELMAP", "SR", "KOS", gate=refusing(ResultKind.LABELMAP))
    assert {(each.only_if_taken, each.only_if_refused) for each in everything} == {("", "")}
    assert [each.problem for each in of_kind(everything, "LABELMAP")] == ["attribute missing"] * 3
    (report,) = of_kind(everything, "SR")
    assert ours_named_by(report) == uids_of(of_kind(everything, "SEG"))


def test_without_findings_there_is_nothing_to_negotiate():
    everything = shipped(exams.reading(lesions={}), "LABELMAP", "SR", "KOS")
    assert [(each.result.kind.value, each.only_if_taken, each.only_if_refused) for each in everything] == [
        ("SR", "", ""),
        ("KOS", "", ""),
    ]


def test_each_object_is_made_and_asked_about_once_for_all_destinations(made):
    asked: list[str] = []

    def gate(result: EncodedResult) -> str:
        asked.append(result.sop_instance_uid)
        return ""

    rendered = Rendering(made, exams.sources(), gate)
    for objects in (("SEG", "SR", "KOS"), ("SEG", "SR"), ("SR",)):
        rendered.shipments(exams.destination(*objects))
    assert len(asked) == len(set(asked)) == len(rendered.results()) == 3 + 2 + 1


def retracting(name: str = "pacs") -> Destination:
    return exams.destination("SC", "KOS", name=name, retract=True)


def rejection_for(made: Reading, where: Destination, gate=passes) -> list[EncodedResult]:
    return of_kind(Rendering(made, exams.sources(), gate).shipments(where), "REJECT")


@pytest.mark.parametrize(("name", "withdrawn"), [("pacs", {"2.25.12", "2.25.14"}), ("archive", {"2.25.14"})])
def test_a_destination_is_told_of_the_objects_that_it_got(name, withdrawn):
    (note,) = rejection_for(report_exams.later(), retracting(name))
    assert named_by(note) == withdrawn


def test_nothing_is_withdrawn_unless_the_destination_wants_it_and_got_something():
    later = report_exams.later()
    assert rejection_for(later, replace(retracting(), retract=False)) == []
    assert rejection_for(later, retracting("elsewhere")) == []
    assert rejection_for(exams.reading(), retracting()) == []


def test_earlier_marks_stay_where_nothing_of_the_later_reading_leaves():
    assert rejection_for(report_exams.later(), retracting(), refusing(ResultKind.SECONDARY_CAPTURE)) == []
    failed = replace(
        cad_exams.not_read(Outcome.FAILED, "model"), number=2, predecessor=report_exams.later().predecessor
    )
    where = exams.destination("SR", retract=True, explain_unread=True)
    assert [each.result.kind.value for each in Rendering(failed, exams.sources(), passes).shipments(where)] == ["SR"]


def test_key_objects_name_no_rejection_note():
    everything = Rendering(report_exams.later(), exams.sources(), passes).shipments(retracting())
    (key_objects,), (note,) = of_kind(everything, "KOS"), of_kind(everything, "REJECT")
    assert [each.result.kind.value for each in everything] == ["SC", "KOS", "REJECT"]
    assert note.sop_instance_uid not in named_by(key_objects)


def test_a_rejection_note_goes_last_of_all_also_where_label_maps_may_be_refused():
    where = exams.destination("SR", "LABELMAP", name="pacs", retract=True)
    sent = [
        each.result.kind.value for each in Rendering(report_exams.later(), exams.sources(), passes).shipments(where)
    ]
    assert {"SR", "LABELMAP", "SEG"} == set(sent[:-1])
    assert sent[-1] == "REJECT"


def test_an_exam_that_was_not_read_is_explained_where_the_site_wants_it():
    unread = cad_exams.not_read(Outcome.NOT_ATTEMPTED, "views missing: LMLO")
    wanting = shipped(unread, preset="archive")
    assert {each.result.kind for each in wanting} <= rendering.WITHOUT_A_READING
    assert ResultKind.STRUCTURED_REPORT in {each.result.kind for each in wanting}
    assert shipped(unread, preset="general-pacs") == ()


def test_an_encoder_that_raises_costs_its_own_objects_alone(made, monkeypatch):
    def raises(*_: object) -> tuple[EncodedResult, ...]:
        raise ValueError("Müller^Änne")

    monkeypatch.setitem(rendering.ENCODERS, ResultKind.PRESENTATION_STATE, rendering.Encoder(raises))
    found = [shipment.result for shipment in shipped(made, "GSPS", "SEG", "SR", "KOS")]
    lost = [result for result in found if result.problem]
    assert [(result.kind.value, result.content) for result in lost] == [("GSPS", b"")]
    assert lost[0].problem.startswith("cannot be made: ValueError in ")
    assert "Müller" not in lost[0].problem
    assert {result.kind.value for result in found if not result.problem} == {"SEG", "SR", "KOS"}
