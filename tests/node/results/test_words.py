"""The report in words: what is said of a lesion, of a view that nobody looked at, of an exam that was not read."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from node.mammography.findings import BreastDensity, Correspondence, Depth, FindingKind, Place, Sector
from node.mammography.quality import QualityFinding, QualityReason
from node.mammography.views import LCC, LMLO, RCC, RMLO
from node.results import words
from node.results.reading import Outcome, Predecessor, Reading, UnreadView
from tests.node.results import exams

CC_PLACE = Place(0.45, 38.0, Depth.MIDDLE, Sector.OUTER)
MLO_PLACE = Place(0.48, 41.0, Depth.MIDDLE, Sector.UPPER)


def placed(*places: Place | None, **changes: object) -> Reading:
    """The reading of exams.py, its findings RCC, RMLO, LMLO at `places`."""
    made = exams.reading()
    assert [finding.view for finding in made.findings] == [RCC, RMLO, LMLO]
    findings = tuple(
        replace(finding, place=place, probability=probability)
        for finding, place, probability in zip(made.findings, places, (0.87, 0.8, 0.6), strict=True)
    )
    return replace(made, findings=findings, **changes)


def unread(reading: Reading, outcome: Outcome, reason: str, *quality: QualityFinding) -> Reading:
    views = tuple(
        UnreadView(each.view, each.sop_instance_uid, each.sop_class_uid, each.rows, each.columns, (), reason, quality)
        for each in reading.views
    )
    breasts = tuple(replace(breast, probability=None) for breast in reading.breasts)
    return replace(
        reading, outcome=outcome, reason=reason, views=(), unread=views, findings=(), exam_probability=None,
        breasts=breasts, not_assessed=(),
    )  # fmt: skip


def test_a_lesion_of_two_views_has_a_quadrant_and_is_said_once() -> None:
    made = placed(CC_PLACE, MLO_PLACE, None, correspondences=(Correspondence(0, 1),))
    sentence = (
        "Right breast, upper outer quadrant, middle third, 38 mm from the nipple in CC, 41 mm in MLO: mass, "
        "seen in CC and MLO, index 0.87 in CC, 0.80 in MLO."
    )
    assert words.finding_sentence(made, 0) == words.finding_sentence(made, 1) == sentence
    assert words.report_text(made).count("mass, seen in") == 1


def test_what_is_seen_beside_a_mass_is_named_with_it() -> None:
    made = placed(CC_PLACE, MLO_PLACE, None, correspondences=(Correspondence(0, 1),))
    with_both = replace(made.findings[1], associated=(FindingKind.ARCHITECTURAL_DISTORTION,))
    made = replace(made, findings=(made.findings[0], with_both, made.findings[2]))
    assert "in MLO: mass with architectural distortion, seen in CC and MLO" in words.finding_sentence(made, 0)
    assert "calcification cluster, seen" in words.finding_sentence(made, 2)


def test_a_lesion_of_one_view_has_a_half_and_says_in_which_view() -> None:
    made = placed(None, None, replace(MLO_PLACE, depth=Depth.POSTERIOR, sector=Sector.LOWER))
    assert words.finding_sentence(made, 2) == (
        "Left breast, lower half, posterior third, 41 mm from the nipple in MLO: calcification cluster, "
        "seen in MLO only, index 0.60."
    )


def test_a_view_that_was_not_read_is_no_view_that_shows_nothing() -> None:
    lesions = {RMLO: (FindingKind.MASS, 760.0, 620.0), LCC: exams.LESIONS[LMLO]}
    made = exams.reading(views=(RCC, LCC, RMLO), lesions=lesions)
    assert [finding.view for finding in made.findings] == [LCC, RMLO]
    assert "seen in CC, MLO not assessed," in words.finding_sentence(made, 0)
    assert "seen in MLO only," in words.finding_sentence(made, 1)


def test_without_spacing_nothing_is_said_in_millimetres() -> None:
    made = placed(replace(CC_PLACE, nipple_distance_mm=None), MLO_PLACE, None, correspondences=(Correspondence(0, 1),))
    sentence = words.finding_sentence(made, 0)
    assert "mm" not in sentence
    assert "45 % of the depth from the nipple in CC, 48 % of the depth in MLO" in sentence


@pytest.mark.parametrize(
    ("cc", "mlo", "said"),
    [
        (Sector.OUTER, Sector.UPPER, "upper outer quadrant"),
        (Sector.INNER, Sector.LOWER, "lower inner quadrant"),
        (Sector.CENTRAL, Sector.UPPER, "upper central"),
        (Sector.OUTER, Sector.CENTRAL, "outer central"),
        (Sector.CENTRAL, Sector.CENTRAL, "central"),
        (Sector.INNER, None, "inner half"),
    ],
)
def test_sectors_of_both_views_make_a_quadrant(cc: Sector, mlo: Sector | None, said: str) -> None:
    made = placed(
        replace(CC_PLACE, sector=cc),
        replace(MLO_PLACE, sector=mlo, depth=Depth.POSTERIOR),
        None,
        correspondences=(Correspondence(0, 1),),
    )
    assert f"Right breast, {said}, middle to posterior third," in words.finding_sentence(made, 0)


def test_a_sector_that_cannot_be_told_is_left_out() -> None:
    made = placed(replace(CC_PLACE, sector=None), None, None)
    assert words.finding_sentence(made, 0).startswith("Right breast, middle third, 38 mm")
    assert words.finding_sentence(made, 1).startswith("Right breast, place not measured: mass")


def test_values_are_an_index_unless_calibrated_on_patients() -> None:
    text = words.report_text(exams.reading())
    assert "probability of cancer" not in text.lower()
    assert "%" not in text.replace("% of the depth", "")
    assert "Suspicion index (0 to 1): exam" in text
    allowed = words.report_text(exams.reading(allow_probability=True))
    assert "Probability of cancer: exam 82 %; right breast 82 %, left breast 60 %." in allowed


def test_density_where_the_model_gives_it() -> None:
    assert "composition" not in words.report_text(exams.reading())
    made = exams.reading(density=BreastDensity("B", 0.71), allow_probability=True)
    assert "Breast composition: ACR BI-RADS B, 71 %." in words.report_text(made)


def test_nothing_marked_is_said_and_what_was_looked_for() -> None:
    lines = words.report_lines(exams.reading(lesions={}))
    assert "Looked for in RCC, LCC, RMLO, LMLO: mass, calcification cluster." in lines
    assert "No region marked." in lines


def test_what_was_not_assessed_stands_there_once_with_its_reason() -> None:
    made = exams.reading(views=(RCC, LCC, RMLO))
    source = exams.source(LMLO)
    quality = (QualityFinding(QualityReason.CONSTANT_IMAGE, "every pixel has the value 0", True),)
    gone = UnreadView(LMLO, source.SOPInstanceUID, source.SOPClassUID, 10, 10, (), "constant image", quality)
    lines = words.report_lines(replace(made, unread=(gone,), not_assessed=("LMLO: no image", "left breast: no image")))
    assert [line for line in lines if line.startswith("Not assessed")] == [
        "Not assessed: LMLO: constant image; every pixel has the value 0.",
        "Not assessed: left breast: no image.",
    ]


def test_a_reason_that_holds_its_quality_finding_is_said_once() -> None:
    source = exams.source(LMLO)
    quality = (QualityFinding(QualityReason.CONSTANT_IMAGE, "every pixel has the value 0", True),)
    reason = "constant image: every pixel has the value 0"
    gone = UnreadView(LMLO, source.SOPInstanceUID, source.SOPClassUID, 10, 10, (), reason, quality)
    lines = words.report_lines(replace(exams.reading(views=(RCC, LCC, RMLO)), unread=(gone,), not_assessed=()))
    assert [line for line in lines if line.startswith("Not assessed")] == [f"Not assessed: LMLO: {reason}."]


def test_flags_of_a_view_that_was_read_are_notes() -> None:
    made = exams.reading(views=(RCC,))
    made = replace(made, views=(replace(made.views[0], flags=("For Processing image",)),))
    assert "Note on RCC: For Processing image." in words.report_lines(made)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome.NOT_ATTEMPTED, "The exam was not read: views missing: LMLO."),
        (Outcome.FAILED, "The reading failed: views missing: LMLO."),
        (Outcome.REFUSED, "The images were refused for quality, none was read: views missing: LMLO."),
    ],
)
def test_an_exam_that_was_not_read_says_why_and_nothing_of_findings(outcome: Outcome, said: str) -> None:
    lines = words.report_lines(unread(exams.reading(), outcome, "views missing: LMLO"))
    assert lines[1:3] == (said, words.NO_STATEMENT)
    assert not any("marked" in line or "index" in line for line in lines)
    assert "Not assessed: RCC: views missing: LMLO." in lines


def test_a_later_reading_names_the_one_before_in_local_time() -> None:
    made = exams.reading(number=2, predecessor=Predecessor(1, datetime(2026, 3, 14, 14, 5, tzinfo=UTC), ()))
    assert "AI reading 2 replaces reading 1 of 14:05 UTC." in words.report_lines(made)
    source = exams.source(RCC, TimezoneOffsetFromUTC="+0100")
    assert "AI reading 2 replaces reading 1 of 15:05." in words.report_lines(made, source)


def test_every_report_says_first_what_it_is_and_no_report_names_the_patient() -> None:
    for made in (exams.reading(), exams.reading(lesions={}), unread(exams.reading(), Outcome.FAILED, "no model")):
        lines = words.report_lines(made)
        assert lines[0] == "AI research result, not for diagnosis."
        assert not any(word in words.report_text(made) for word in ("Müller", "P-000123", "1961", "A4711"))


def test_lines_are_parted_as_dicom_parts_them() -> None:
    made = exams.reading()
    assert words.report_text(made).split("\r\n") == list(words.report_lines(made))
