"""Real-looking values for the database tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from node.database.readings import Address, StoredResult
from node.exam import Instance
from node.mammography.views import BREASTS, LMLO, View
from node.results.reading import BreastAssessment, ModelIdentity, Reading, ResultKind

NOW = datetime(2026, 11, 22, 8, 30, 0, 125000, tzinfo=UTC)
STUDY = "1.2.840.113619.2.401.1797216842.17044170520074410.1"


def an_instance(number: int = 1, *, content: str = "a", view: View | None = LMLO, study: str = STUDY) -> Instance:
    return Instance(
        sop_instance_uid=f"1.2.840.113619.2.401.1797216842.17044170520074410.2.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2",
        study_instance_uid=study,
        series_instance_uid="1.2.840.113619.2.401.1797216842.17044170520074410.3",
        content_hash=content * 64,
        path=f"instances/{number}.dcm",
        received_at=NOW,
        modality="MG",
        view=view,
        view_problem=None if view else "no view",
        patient_fingerprint="f" * 64,
        presentation_intent_type="FOR PRESENTATION",
        rows=3328,
        columns=2560,
        acquired_at=datetime(2026, 11, 22, 8, 15, 2, 5),
        has_implant=True,
        excluding_modifier="Magnification",
        header=(("Modality", "MG"), ("Manufacturer", "Gerät & Söhne")),
    )


def a_reading(*, number: int = 1, content: str = "a", study: str = STUDY) -> Reading:
    return Reading(
        study_instance_uid=study,
        number=number,
        read_at=NOW,
        model=ModelIdentity("exam_encoder", "1", "w" * 64, "openvino f32", "fit-760x456", False),
        settings_hash="5" * 64,
        selection=((an_instance().sop_instance_uid, content * 64),),
        exam_probability=0.25,
        breasts=(BreastAssessment(BREASTS[0], None), BreastAssessment(BREASTS[1], 0.25)),
        views=(),
        not_assessed=("RCC",),
        findings=(),
    )


def a_result(kind: ResultKind = ResultKind.STRUCTURED_REPORT, *, number: int = 1) -> StoredResult:
    return StoredResult(
        kind=kind,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid=f"2.25.3297416589247163985216374{number}{len(kind)}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"results/{number}.dcm",
        content_hash="c" * 64,
    )


def addresses(results: Sequence[StoredResult], destinations: Mapping[str, Sequence[ResultKind]]) -> list[Address]:
    """Each result to the destinations that take its kind."""
    return [
        Address(result.sop_instance_uid, name)
        for result in results
        for name, kinds in destinations.items()
        if result.kind in kinds
    ]
