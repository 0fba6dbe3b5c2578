"""What result objects mark, read back from their bytes by raw attributes: nothing of the code that wrote them.

Points are (x, y) = (column, row) in stored pixels of the image that the object names, 0.0\\0.0 at its top-left corner.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from node.mammography.findings import FindingKind

Points = NDArray[np.float64]

KIND_COLOURS = {
    FindingKind.MASS: (64, 224, 255),
    FindingKind.SUSPICIOUS_CALCIFICATION: (186, 255, 96),
    FindingKind.ARCHITECTURAL_DISTORTION: (255, 255, 255),
    FindingKind.ASYMMETRY: (255, 160, 235),
}
"""Of the contours in pictures, as a reader sees them."""


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """One thing that one object says about one place of one image."""

    what: str
    image_uid: str
    points: Points
    """(N, 2): the outline, the single centre, or the centres of all pixels of a region."""
    weights: Points | None = None
    """(N,) of the pixels; None: all alike."""

    @property
    def middle(self) -> Points:
        """The centre itself, the middle of the area inside an outline, the weighted mean of a region's pixels."""
        x, y = self.points[:, 0], self.points[:, 1]
        if len(self.points) < 4 or "outline" not in self.what:
            return np.average(self.points, axis=0, weights=self.weights)
        turn = x[:-1] * y[1:] - x[1:] * y[:-1]
        sums = ((x[:-1] + x[1:]) * turn).sum(), ((y[:-1] + y[1:]) * turn).sum()
        return np.array(sums) / (3.0 * turn.sum())


def marks_in(content: bytes) -> list[Mark]:
    """The marks of any object that refers to stored pixels; none for pictures."""
    dataset = pydicom.dcmread(BytesIO(content))
    readers = {"SR": _document_marks, "PR": _state_marks, "SEG": _segment_marks}
    return list(readers[dataset.Modality](dataset)) if dataset.Modality in readers else []


def _walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", []):
        yield from _walk(child)


def _document_marks(dataset: Dataset) -> Iterator[Mark]:
    """SCOORD items of a CAD SR or a TID 1500 report, their image by value or by reference."""
    kind = "CAD SR" if dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.50" else "report"
    for item in _walk(dataset):
        if item.get("ValueType") != "SCOORD":
            continue
        assert item.get("PixelOriginInterpretation", "FRAME") == "FRAME"
        (image,) = item.ContentSequence
        if "ReferencedContentItemIdentifier" in image:
            first, *path = image.ReferencedContentItemIdentifier
            assert first == 1
            image = dataset
            for number in path:
                image = image.ContentSequence[number - 1]
        uid = image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        points = np.array(item.GraphicData, dtype=np.float64).reshape(-1, 2)
        name = {"POINT": "centre", "POLYLINE": "outline"}[item.GraphicType]
        yield Mark(f"{kind} {name}", str(uid), points)


def _state_marks(dataset: Dataset) -> Iterator[Mark]:
    """Graphics of a presentation state; the arms of the cross count as centres."""
    for annotation in dataset.GraphicAnnotationSequence:
        (image,) = annotation.ReferencedImageSequence
        for graphic in annotation.get("GraphicObjectSequence", []):
            assert graphic.GraphicAnnotationUnits == "PIXEL"
            points = np.array(graphic.GraphicData, dtype=np.float64).reshape(-1, 2)
            name = "outline" if len(points) > 2 else "centre"
            yield Mark(f"GSPS {name}", str(image.ReferencedSOPInstanceUID), points)


def _segment_marks(dataset: Dataset) -> Iterator[Mark]:
    """Every segment; of a FRACTIONAL one the pixels above a third of its greatest value, weighted by what is above."""
    frames = dataset.pixel_array.reshape(dataset.NumberOfFrames, dataset.Rows, dataset.Columns).astype(np.float64)
    kind = dataset.SegmentationType
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        levels = [frame == value for value in range(1, int(frame.max()) + 1)] if kind != "FRACTIONAL" else [frame]
        for level in levels:
            above = np.maximum(level - level.max() / 3, 0.0)
            rows, columns = np.nonzero(above)
            pixels = np.stack([columns, rows], axis=1) + 0.5
            plane = _check_plane(dataset, groups, pixels)
            yield Mark(f"{kind} region{plane}", str(source), pixels, above[rows, columns])


def _check_plane(dataset: Dataset, groups: Dataset, pixels: Points) -> str:
    """Where there is a plane, its first pixel's centre is the origin, and rows and columns step by the spacing."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if "PlaneOrientationSequence" not in shared:
        return ""
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, across = (float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing)
    origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
    steps = pixels - 0.5
    places = origin + steps[:, :1] * across * directions[0] + steps[:, 1:] * down * directions[1]
    back = np.stack([(places - origin) @ directions[0] / across, (places - origin) @ directions[1] / down], axis=1)
    assert np.allclose(back, steps)
    return " with a plane"


def contour_in_picture(pixels: NDArray[np.uint8], around: Points) -> Points:
    """The middle of the mass's contour that goes round a point (x, y) of an RGB picture; fails without one."""
    near = _drawn(pixels, KIND_COLOURS[FindingKind.MASS])
    labels, count = ndimage.label(near, structure=np.ones((3, 3)))
    column, row = np.floor(around).astype(int)
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        filled = ndimage.binary_fill_holes(labels[where] == label)
        at = row - where[0].start, column - where[1].start
        if 0 <= at[0] < filled.shape[0] and 0 <= at[1] < filled.shape[1] and filled[at] and labels[row, column] == 0:
            return _middle(filled, where)
    raise AssertionError(f"no contour goes round {around}: {count} drawn things of its colour")


def contours_in_picture(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> list[Points]:
    """The middles of all contours of one colour in an RGB picture: rings with tissue inside, which labels have not."""
    labels, _ = ndimage.label(_drawn(pixels, colour), structure=np.ones((3, 3)))
    found = []
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        ring = labels[where] == label
        filled = ndimage.binary_fill_holes(ring)
        inside = pixels[where][ndimage.binary_erosion(filled & ~ring, iterations=4)]
        if len(inside) and np.percentile(inside.max(axis=1), 5) > 30:
            found.append(_middle(filled, where))
    return found


def _drawn(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Pixels of nearly that colour, a little more of them: a smoothed line has gaps."""
    near = (np.abs(pixels.astype(np.int16) - colour) < 70).all(axis=2)
    return np.asarray(ndimage.binary_dilation(near, structure=np.ones((3, 3))))


def _middle(filled: NDArray[np.bool_], where: tuple[slice, slice]) -> Points:
    rows, columns = np.nonzero(filled)
    return np.array([columns.mean() + where[1].start + 0.5, rows.mean() + where[0].start + 0.5])
