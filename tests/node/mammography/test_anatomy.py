"""Where a finding lies in its breast: the same words however the image was stored, and never a mirrored one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from node.mammography.anatomy import (
    CENTRAL_SHARE,
    SAME_LESION_SHARE,
    Landmarks,
    correspondences,
    find_landmarks,
    place,
    spacing_mm,
)
from node.mammography.findings import Box, Correspondence, Depth, Finding, FindingKind, Place, Sector
from node.mammography.pixels import prepare_display, preset
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality, View, ViewPosition

ROWS, COLUMNS = 1400, 1000
NIPPLE, DEPTH = (620.0, 760.0), 620.0
OPPOSITE = {"A": "P", "P": "A", "R": "L", "L": "R", "H": "F", "F": "H"}
STORINGS = list(itertools.product((False, True), (False, True)))
"""Mirrored left to right, upside down: against a left breast as hung."""
MUSCLE_TOP, MUSCLE_BOTTOM = 330.0, 900.0
"""The muscle's edge in a drawn MLO: x at the top, y at the chest wall."""


def drawn(position: ViewPosition) -> np.ndarray:
    """A left breast as hung, [0, 1]: chest wall on the left; in MLO with its muscle."""
    y, x = np.mgrid[:ROWS, :COLUMNS] + 0.5
    inside = 1 - (x / NIPPLE[0]) ** 2 - ((y - NIPPLE[1]) / 560.0) ** 2
    if position is ViewPosition.MLO:
        above = 1 - (x / (NIPPLE[0] - 0.15 * (NIPPLE[1] - y))) ** 2
        inside = np.where(y < NIPPLE[1], above, inside)
    texture = np.random.default_rng(3).normal(0.0, 0.02, (ROWS, COLUMNS))
    breast = np.where(inside > 0, 0.18 + 0.3 * np.sqrt(np.clip(inside, 0, 1)) + texture, 0.0)
    if position is ViewPosition.MLO:
        breast = np.where(x / MUSCLE_TOP + y / MUSCLE_BOTTOM < 1.0, 0.75 + texture, breast)
    return np.clip(breast, 0.0, 1.0).astype(np.float32)


DRAWN = {position: drawn(position) for position in (ViewPosition.CC, ViewPosition.MLO)}


def orientation(view: View, mirrored: bool, upside_down: bool) -> tuple[str, str]:
    """Of a left breast's picture as hung when it stands for `view`: lateral or head up, then stored otherwise."""
    medial = "R" if view.laterality is Laterality.LEFT else "L"
    row, column = "A", medial if view.position is ViewPosition.CC else f"F{medial}"
    turned = "".join(OPPOSITE[letter] for letter in column)
    return OPPOSITE[row] if mirrored else row, turned if upside_down else column


def stored_point(x: float, y: float, mirrored: bool, upside_down: bool) -> tuple[float, float]:
    return (COLUMNS - x if mirrored else x), (ROWS - y if upside_down else y)


def placed(view: View, x: float, y: float, mirrored: bool, upside_down: bool, model: str = "fit-380x228") -> Place:
    """The place of the point (x, y) of the drawn breast, stored and prepared as said, 0.1 mm a pixel."""
    picture = DRAWN[view.position][:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    stated = orientation(view, mirrored, upside_down)
    prepared = prepare_display(np.ascontiguousarray(picture), view.laterality, preset(model))
    landmarks = find_landmarks(prepared, view, stated, (0.1, 0.1))
    found = place(stored_point(x, y, mirrored, upside_down), view, landmarks, stated, (0.1, 0.1))
    assert found is not None
    return found


@pytest.mark.parametrize("view", STANDARD_VIEWS, ids=str)
@pytest.mark.parametrize(("mirrored", "upside_down"), STORINGS)
def test_side_of_the_nipple_line_however_the_image_was_stored(view: View, mirrored: bool, upside_down: bool) -> None:
    above, below = placed(view, 330.0, 430.0, mirrored, upside_down), placed(view, 330.0, 1130.0, mirrored, upside_down)
    is_cc = view.position is ViewPosition.CC
    assert (above.sector, below.sector) == ((Sector.OUTER, Sector.INNER) if is_cc else (Sector.UPPER, Sector.LOWER))


@pytest.mark.parametrize("view", STANDARD_VIEWS, ids=str)
@pytest.mark.parametrize(("mirrored", "upside_down"), STORINGS)
def test_distance_from_the_nipple_however_the_image_was_stored(view: View, mirrored: bool, upside_down: bool) -> None:
    found = placed(view, 330.0, 700.0, mirrored, upside_down)
    as_hung = placed(view, 330.0, 700.0, False, False)
    assert found.nipple_distance == pytest.approx(as_hung.nipple_distance, abs=0.02)


@pytest.mark.parametrize("model", ["fit-380x228", "fit-190x114", "mammo-clip"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_depth_of_a_cc_in_millimetres(model: str, mirrored: bool) -> None:
    found = placed(LCC, 220.0, NIPPLE[1], mirrored, False, model)
    assert found.nipple_distance_mm == pytest.approx(40.0, abs=2.5)
    assert found.nipple_distance == pytest.approx(40.0 / 62.0, abs=0.03)
    assert (found.depth, found.sector) == (Depth.MIDDLE, Sector.CENTRAL)


@pytest.mark.parametrize("mirrored", [False, True])
def test_depth_axis_of_an_mlo_is_at_right_angles_to_the_muscle(mirrored: bool) -> None:
    prepared = prepare_display(
        np.ascontiguousarray(DRAWN[ViewPosition.MLO][:, :: -1 if mirrored else 1]),
        Laterality.LEFT,
        preset("fit-380x228"),
    )
    found = find_landmarks(prepared, LMLO)
    assert found is not None
    assert found.pectoral_edge is not None
    edge = np.subtract(*found.pectoral_edge) * (-1.0 if mirrored else 1.0, 1.0)
    axis = np.subtract(found.posterior, found.nipple) * (-1.0 if mirrored else 1.0, 1.0)
    assert np.degrees(np.arctan2(edge[0], -edge[1])) == pytest.approx(
        np.degrees(np.arctan2(MUSCLE_TOP, MUSCLE_BOTTOM)), abs=2.0
    )
    assert float(edge @ axis) == pytest.approx(0.0, abs=1e-6 * np.hypot(*edge) * np.hypot(*axis))
    assert axis[1] < 0.0


def test_an_mlo_without_muscle_is_measured_as_a_cc() -> None:
    prepared = prepare_display(DRAWN[ViewPosition.CC], Laterality.LEFT, preset("fit-380x228"))
    assert find_landmarks(prepared, LMLO) == find_landmarks(prepared, LCC)


def test_pixels_that_are_not_square() -> None:
    """Every second row left out: the same breast, the same millimetres."""
    tall, flat = (
        find_landmarks(
            prepare_display(np.ascontiguousarray(picture), Laterality.LEFT, preset("fit-380x228")), LMLO, (), spacing
        )
        for picture, spacing in ((DRAWN[ViewPosition.MLO], (0.1, 0.1)), (DRAWN[ViewPosition.MLO][::2], (0.2, 0.1)))
    )
    one = place((300.0, 600.0), LMLO, tall, ("A", "F"), (0.1, 0.1))
    other = place((300.0, 300.0), LMLO, flat, ("A", "F"), (0.2, 0.1))
    assert one is not None
    assert other is not None
    assert other.nipple_distance_mm == pytest.approx(one.nipple_distance_mm, abs=2.0)


def test_nothing_is_said_of_an_image_without_a_breast() -> None:
    black = prepare_display(np.zeros((ROWS, COLUMNS), np.float32), Laterality.LEFT, preset("fit-380x228"))
    assert find_landmarks(black, LCC) is None
    assert place((10.0, 10.0), LCC, None, ("A", "R")) is None


LINE = Landmarks(nipple=(600.0, 700.0), posterior=(0.0, 700.0), pectoral_edge=None)


@pytest.mark.parametrize(
    ("x", "depth", "share"),
    [(700.0, Depth.ANTERIOR, 0.0), (600.0, Depth.ANTERIOR, 0.0), (402.0, Depth.ANTERIOR, 0.33),
     (398.0, Depth.MIDDLE, 0.3367), (202.0, Depth.MIDDLE, 0.6633), (198.0, Depth.POSTERIOR, 0.67),
     (0.0, Depth.POSTERIOR, 1.0)],
)  # fmt: skip
def test_thirds(x: float, depth: Depth, share: float) -> None:
    found = place((x, 500.0), LCC, LINE)
    assert found == Place(pytest.approx(share, abs=1e-3), None, depth, None)


@pytest.mark.parametrize(("off", "sector"), [(-61.0, Sector.OUTER), (-59.0, Sector.CENTRAL), (61.0, Sector.INNER)])
def test_the_central_band(off: float, sector: Sector) -> None:
    assert pytest.approx(0.1) == CENTRAL_SHARE
    found = place((300.0, 700.0 + off), LCC, LINE, ("A", "R"))
    assert found is not None
    assert found.sector is sector


@pytest.mark.parametrize(
    "stated",
    [(), ("CC",), ("P", "R"), ("R", "A"), ("A", "A"), ("A", "F"), ("LCC", "X"), ("", "")],
    ids=["none", "a view's name", "chest wall elsewhere", "turned by 90 degrees", "twice", "of another view", "letters",
         "empty"],
)  # fmt: skip
def test_no_sector_where_the_orientation_cannot_be_trusted(stated: tuple[str, ...]) -> None:
    found = place((300.0, 300.0), LCC, LINE, stated)
    assert found is not None
    assert found.sector is None


def test_oblique_letters_of_an_mlo() -> None:
    found = [place((300.0, y), RMLO, LINE, ("AFL", "FRP")) for y in (300.0, 1100.0)]
    assert [where and where.sector for where in found] == [Sector.UPPER, Sector.LOWER]


coordinates = st.floats(0.0, 4000.0, allow_nan=False)
points = st.tuples(coordinates, coordinates)


@settings(max_examples=200, deadline=None)
@given(
    nipple=points,
    posterior=points,
    centre=points,
    view=st.sampled_from(STANDARD_VIEWS),
    mirrored=st.booleans(),
    upside_down=st.booleans(),
)
def test_mirroring_image_and_orientation_together_changes_no_word(
    nipple, posterior, centre, view, mirrored, upside_down
) -> None:
    if nipple[0] - posterior[0] < 50.0:
        return

    def turned(point: tuple[float, float]) -> tuple[float, float]:
        return (5000.0 - point[0] if mirrored else point[0]), (5000.0 - point[1] if upside_down else point[1])

    def at(where, stated):
        landmarks = Landmarks(where(nipple), where(posterior), None)
        return place(where(centre), view, landmarks, stated, (0.07, 0.07))

    before = at(lambda point: point, orientation(view, False, False))
    after = at(turned, orientation(view, mirrored, upside_down))
    assert after.nipple_distance == pytest.approx(before.nipple_distance, abs=1e-9)
    assert after.nipple_distance_mm == pytest.approx(before.nipple_distance_mm, abs=1e-6)
    if abs(before.nipple_distance * 3 % 1) > 1e-6:
        assert after.depth is before.depth
    assert {after.sector, before.sector} != {Sector.OUTER, Sector.INNER}
    assert {after.sector, before.sector} != {Sector.UPPER, Sector.LOWER}


# --- one lesion in two views ------------------------------------------------------------------------------------------


def finding(view: View, distance: float | None, kind: FindingKind = FindingKind.MASS) -> Finding:
    where = None if distance is None else Place(distance, None, Depth.MIDDLE, None)
    return Finding(kind, view, 0.5, 1.0, (1.0, 1.0), ((0.0, 0.0),), Box(0.0, 0.0, 1.0, 1.0), where)


CALCIFICATION = FindingKind.SUSPICIOUS_CALCIFICATION
PAIRS = {
    "one in each view": ([finding(RCC, 0.4), finding(RMLO, 0.5)], [(0, 1)]),
    "whatever the order": ([finding(RMLO, 0.4), finding(RCC, 0.5)], [(1, 0)]),
    "too far apart": ([finding(RCC, 0.2), finding(RMLO, 0.2 + 1.01 * SAME_LESION_SHARE)], []),
    "of two breasts": ([finding(RCC, 0.4), finding(LMLO, 0.4)], []),
    "of two kinds": ([finding(RCC, 0.4), finding(RMLO, 0.4, CALCIFICATION)], []),
    "of one view": ([finding(RCC, 0.4), finding(RCC, 0.4)], []),
    "without a place": ([finding(RCC, None), finding(RMLO, 0.4)], []),
    "the closest pair first": ([finding(LCC, 0.4), finding(LCC, 0.5), finding(LMLO, 0.52)], [(1, 2)]),
    "then what is left": (
        [finding(LCC, 0.4), finding(LCC, 0.5), finding(LMLO, 0.52), finding(LMLO, 0.6)],
        [(0, 3), (1, 2)],
    ),
    "equally close: the first": ([finding(LCC, 0.5), finding(LMLO, 0.375), finding(LMLO, 0.625)], [(0, 1)]),
}


@pytest.mark.parametrize("case", PAIRS)
def test_which_findings_are_one_lesion(case: str) -> None:
    findings, pairs = PAIRS[case]
    assert correspondences(findings) == tuple(Correspondence(*pair) for pair in pairs)


many = st.lists(
    st.builds(
        finding,
        st.sampled_from(STANDARD_VIEWS),
        st.one_of(st.none(), st.floats(0.0, 1.2)),
        st.sampled_from([FindingKind.MASS, CALCIFICATION]),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(findings=many)
def test_no_finding_is_in_two_pairs_and_none_is_left_that_could_be_paired(findings: list[Finding]) -> None:
    pairs = correspondences(findings)
    taken = [index for pair in pairs for index in (pair.cc, pair.mlo)]
    assert len(taken) == len(set(taken))
    for pair in pairs:
        cc, mlo = findings[pair.cc], findings[pair.mlo]
        assert (cc.view.position, mlo.view.position) == (ViewPosition.CC, ViewPosition.MLO)
        assert (cc.view.laterality, cc.kind) == (mlo.view.laterality, mlo.kind)
        assert abs(cc.place.nipple_distance - mlo.place.nipple_distance) <= SAME_LESION_SHARE
    left = [finding for index, finding in enumerate(findings) if index not in taken]
    assert correspondences(left) == ()


# --- spacing ----------------------------------------------------------------------------------------------------------

SPACINGS = {
    "at the detector": ({"ImagerPixelSpacing": ["0.07", "0.07"]}, (0.07, 0.07)),
    "magnified": (
        {"ImagerPixelSpacing": ["0.10", "0.05"], "EstimatedRadiographicMagnificationFactor": "1.25"},
        (0.08, 0.04),
    ),
    "unknown": ({}, None),
    "empty": ({"ImagerPixelSpacing": None}, None),
    "one value": ({"ImagerPixelSpacing": "0.07"}, None),
    "zero": ({"ImagerPixelSpacing": ["0", "0"]}, None),
    "negative": ({"ImagerPixelSpacing": ["-0.07", "0.07"]}, None),
    "metres": ({"ImagerPixelSpacing": ["70", "70"]}, None),
    "no factor": (
        {"ImagerPixelSpacing": ["0.07", "0.07"], "EstimatedRadiographicMagnificationFactor": None},
        (0.07, 0.07),
    ),
    "a factor of zero": (
        {"ImagerPixelSpacing": ["0.07", "0.07"], "EstimatedRadiographicMagnificationFactor": "0"},
        None,
    ),
    "a factor below 1": (
        {"ImagerPixelSpacing": ["0.07", "0.07"], "EstimatedRadiographicMagnificationFactor": "0.5"},
        None,
    ),
    "only of the scanned film": ({"NominalScannedPixelSpacing": ["0.05", "0.05"]}, None),
}


@pytest.mark.parametrize("case", SPACINGS)
def test_spacing_in_the_breast(case: str) -> None:
    attributes, expected = SPACINGS[case]
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    assert spacing_mm(dataset) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("raw", [b"0.07\\narrow", b"NaN\\NaN", b"inf\\0.07", b"\\", b"0.07\\0.07\\0.07"])
def test_a_spacing_that_is_none(raw: bytes) -> None:
    """As a file holds it: it is parsed when it is asked for."""
    tag = Tag("ImagerPixelSpacing")
    dataset = Dataset({tag: RawDataElement(tag, "DS", len(raw), raw, 0, False, True)})
    assert spacing_mm(dataset) is None
