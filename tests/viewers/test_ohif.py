"""What OHIF 3.12.10 shows of our objects: its pictures, by their pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from node.mammography.findings import Finding, FindingKind
from node.mammography.views import LMLO, RCC, View
from node.results.reading import EncodedResult, ResultKind
from node.results.segmentation import region_mask
from tests.viewers.conftest import Objects
from tests.viewers.ohif import Ohif, OhifPage
from tests.viewers.phantom import PhantomReading
from tests.viewers.picture import Fit, coloured, fit, grown

pytestmark = [pytest.mark.viewers, pytest.mark.timeout(180)]

Keep = Callable[[str], Path]
BADGES_END = 45
"""Rows at the top of the viewport where OHIF's own badges stand."""


def _of_view(results: list[EncodedResult], case: PhantomReading, view: View) -> EncodedResult:
    """The object of a view: there is one for each view with findings, in their order."""
    with_findings = [each.view for each in case.reading.views if _findings(case, each.view)]
    assert len(results) == len(with_findings)
    return results[with_findings.index(view)]


def _findings(case: PhantomReading, view: View) -> list[Finding]:
    return [finding for finding in case.reading.findings if finding.view == view]


def _new_colours(shown: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Coloured pixels that the plain picture has not; OHIF's badges left out."""
    made = coloured(shown) & ~grown(coloured(plain), 3)
    made[:BADGES_END] = False
    return made


def _check_region(new: np.ndarray, fitted: Fit, case: PhantomReading, view: View) -> None:
    """The overlay covers the finding's region and nothing else, and lies on the lesion."""
    (finding,) = _findings(case, view)
    region = fitted.mask(region_mask(finding, *case.display[view].shape), new.shape)
    assert new[~grown(~region, 2)].mean() > 0.99, "the region is not covered"
    assert not (new & ~grown(region, 4)).any(), "there is colour elsewhere"
    lesion = fitted.mask(case.truth[view][finding.kind], new.shape)
    rows, columns = np.nonzero(new)
    assert lesion[int(rows.mean()), int(columns.mean())], "the overlay is not on the lesion"


@pytest.mark.parametrize(
    ("destination", "kind"),
    [("ohif", ResultKind.SEGMENTATION), ("labels", ResultKind.LABELMAP)],
    ids=["SEG", "LABELMAP"],
)
def test_segmentations_with_a_frame_of_their_own_lie_on_the_lesions(
    ohif: Ohif, case: PhantomReading, objects: Objects, keep: Keep, destination: str, kind: ResultKind
) -> None:
    results = {view: _of_view(objects(destination, kind), case, view) for view in (RCC, LMLO)}
    sources = {view: str(case.sources[view].SOPInstanceUID) for view in results}
    wanted = [*sources.values(), *(result.sop_instance_uid for result in results.values())]
    with ohif.study(case.reading.study_instance_uid, wanted) as page:
        for view, result in results.items():
            plain = page.show_image(sources[view])
            segments = page.open_segmentation(result, sources[view])
            shown = page.settled()
            page.keep(keep(f"ohif-{kind.value.lower()}-{view}"))
            assert (1, f"{view} {_NAMES[_findings(case, view)[0].kind]} 1") in segments
            _check_region(_new_colours(shown, plain), fit(plain, case.display[view]), case, view)
        _nothing_wrong(page)


_NAMES = {FindingKind.MASS: "Mass", FindingKind.SUSPICIOUS_CALCIFICATION: "Calcification cluster"}


def _nothing_wrong(page: OhifPage) -> None:
    assert page.errors == []
    assert page.outside == [], "something outside was asked for"


def test_the_contour_of_the_report_lies_on_the_lesion(
    ohif: Ohif, case: PhantomReading, objects: Objects, keep: Keep
) -> None:
    """OHIF shows the image of the first finding of a report; its arrows lead to no other image of a mammogram."""
    (report,) = objects("ohif", ResultKind.STRUCTURED_REPORT)
    finding = case.reading.findings[0]
    source = str(case.sources[finding.view].SOPInstanceUID)
    with ohif.study(case.reading.study_instance_uid, [source, report.sop_instance_uid]) as page:
        plain = page.show_image(source)
        page.open_report(report, source)
        shown = page.settled()
        lines, words = page.contours(), page.annotation_words()
        text_boxes = page.annotation_boxes()
        page.keep(keep("ohif-sr"))
    fitted = fit(plain, case.display[finding.view])
    (line,) = lines
    contour = np.array(finding.contour) * fitted.scale + (fitted.left, fitted.top)
    assert np.abs(line[: len(contour)] - contour).max() < 2.0, "the contour lies elsewhere"
    assert any(f"{finding.probability:.2f}" in word for word in words), words
    new = _new_colours(shown, plain)
    drawn = np.zeros_like(new)
    rows, columns = np.round(contour.T[::-1]).astype(int)
    drawn[rows, columns] = True
    assert new[grown(drawn, 3)].any(), "no contour is drawn"
    region = grown(fitted.mask(region_mask(finding, *case.display[finding.view].shape), new.shape), 4)
    for left, top, right, bottom in text_boxes:
        region[int(top) - 2 : int(bottom) + 3, int(left) - 2 : int(right) + 3] = True
    assert not (new & ~region).any(), "there is colour elsewhere"
    _nothing_wrong(page)


def test_what_ohif_does_not_show_it_says(ohif: Ohif, case: PhantomReading, objects: Objects, keep: Keep) -> None:
    """CAD SR, presentation states and key objects are listed with a warning; heat ends in an error message."""
    marked = [
        objects("workstation", ResultKind.CAD_REPORT)[0],
        objects("pacs", ResultKind.PRESENTATION_STATE)[0],
        objects("pacs", ResultKind.KEY_OBJECTS)[0],
    ]
    heat = objects("labels", ResultKind.HEATMAP)[0]
    wanted = [result.sop_instance_uid for result in (*marked, heat)]
    with ohif.study(case.reading.study_instance_uid, wanted) as page:
        assert [page.entry(result.sop_instance_uid)[1] for result in marked] == [True, True, True]
        page.double_click(heat.sop_instance_uid)
        page.wait_for_error("Fractional segmentations are not yet supported")
        page.keep(keep("ohif-heatmap"))


def test_ohif_cannot_open_a_segmentation_without_a_frame_of_its_own(
    ohif: Ohif, case: PhantomReading, objects: Objects, keep: Keep
) -> None:
    """Why the preset `ohif` exists: this double click leaves an empty page."""
    first, *_ = objects("pacs", ResultKind.SEGMENTATION)
    with ohif.study(case.reading.study_instance_uid, [first.sop_instance_uid]) as page:
        page.double_click(first.sop_instance_uid)
        page.wait_for_error("PixelMeasuresSequence")
        page.page.locator("[data-cy=viewport-pane]").first.wait_for(state="detached", timeout=30_000)
        assert page.page.get_by_text("Studies").count() == 0, "the page is empty"
        page.keep(keep("ohif-seg-source"))


def test_ohif_cannot_open_a_report_with_values_of_the_whole_exam(
    ohif: Ohif, case: PhantomReading, objects: Objects, keep: Keep
) -> None:
    """Why the preset `ohif` has a report of the regions alone."""
    (report,) = objects("pacs", ResultKind.STRUCTURED_REPORT)
    with ohif.study(case.reading.study_instance_uid, [report.sop_instance_uid]) as page:
        page.double_click(report.sop_instance_uid)
        page.page.get_by_text("Something went wrong").first.wait_for(timeout=30_000)
        page.keep(keep("ohif-sr-full"))
        assert page.contours() == []


def test_a_report_without_findings_is_shown_as_text(
    ohif: Ohif, case: PhantomReading, objects: Objects, keep: Keep
) -> None:
    (report,) = objects("no finding", ResultKind.STRUCTURED_REPORT)
    with ohif.study(case.reading.study_instance_uid, [report.sop_instance_uid]) as page:
        page.double_click(report.sop_instance_uid)
        page.page.get_by_text("All algorithms succeeded; without findings").wait_for(timeout=30_000)
        assert page.page.get_by_text("No region marked.").count() == 1
        page.keep(keep("ohif-sr-nothing"))
        _nothing_wrong(page)


def test_a_secondary_capture_is_shown_like_any_image(
    ohif: Ohif, case: PhantomReading, objects: Objects, keep: Keep
) -> None:
    (capture,) = objects("ohif", ResultKind.SECONDARY_CAPTURE)
    with ohif.study(case.reading.study_instance_uid, [capture.sop_instance_uid]) as page:
        shown = page.show_image(capture.sop_instance_uid)
        page.keep(keep("ohif-sc"))
    assert coloured(shown).sum() > 200, "the marks of the page are coloured"
    _nothing_wrong(page)
