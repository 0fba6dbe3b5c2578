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


@pytest.mark.parametrize("view", [RCC, LMLO], ids=str)
@pytest.mark.parametrize(
    ("destination", "kind"),
    [("ohif", ResultKind.SEGMENTATION), ("labels", ResultKind.LABELMAP)],
    ids=["SEG", "LABELMAP"],
)
def test_a_segmentation_with_a_frame_of_its_own_lies_on_the_lesion(
    ohif: Ohif, case: PhantomReading, objects: Objects, keep: Keep, destination: str, kind: ResultKind, view: View
) -> None:
    result = _of_view(objects(destination, kind), case, view)
    source = str(case.sources[view].SOPInstanceUID)
    with ohif.study(case.reading.study_instance_uid, [source, result.sop_instance_uid]) as page:
        plain = page.show_image(source)
        segments = page.open_segmentation(result, source)
        shown = page.settled()
        page.keep(keep(f"ohif-{kind.value.lower()}-{view}"))
    assert (1, f"{view} {_NAMES[_findings(case, view)[0].kind]} 1") in segments
    _check_region(_new_colours(shown, plain), fit(plain, case.display[view]), case, view)
    _nothing_wrong(page)


_NAMES = {FindingKind.MASS: "Mass", FindingKind.SUSPICIOUS_CALCIFICATION: "Calcification cluster"}


def _nothing_wrong(page: OhifPage) -> None:
    assert page.errors == []
    assert page.outside == [], "something outside was asked for"
