"""Patient Orientation (0020,0020) of a mammogram: copied where it is one, else from side, view and chest wall."""

from pydicom import Dataset

from node.mammography.views import Laterality, View, ViewPosition

_LETTERS = frozenset("APRLHF")
_OPPOSITE = {"A": "P", "P": "A", "R": "L", "L": "R", "H": "F", "F": "H"}

_DOWN: dict[Laterality, dict[ViewPosition, str]] = {
    Laterality.RIGHT: {
        ViewPosition.CC: "L",
        ViewPosition.XCC: "L",
        ViewPosition.XCCL: "L",
        ViewPosition.XCCM: "L",
        ViewPosition.MLO: "FL",
        ViewPosition.ML: "F",
        ViewPosition.LM: "F",
    },
    Laterality.LEFT: {
        ViewPosition.CC: "R",
        ViewPosition.XCC: "R",
        ViewPosition.XCCL: "R",
        ViewPosition.XCCM: "R",
        ViewPosition.MLO: "FR",
        ViewPosition.ML: "F",
        ViewPosition.LM: "F",
    },
}
"""Direction of the columns, top to bottom, of an image as hung: CC with the lateral side up, the others head up."""


def patient_orientation(dataset: Dataset, view: View, chest_wall: Laterality | None) -> tuple[str, ...]:
    """Row and column direction of the stored image, or () where they cannot be told.

    The data set's own value, if it is two strings of A P R L H F that mean two directions (old scans hold a view's
    name there). Else, as mammograms are hung (PS3.3 C.8.11.7, IHE MAMMO): the right breast with its chest wall on the
    right edge, the left breast on the left. `chest_wall` is the image edge where it was found, LEFT or RIGHT; where it
    is the other edge, the image may be mirrored or rotated, and nothing is claimed.
    """
    stated = _stated(dataset)
    if stated:
        return stated
    down = _DOWN[view.laterality].get(view.position)
    if chest_wall is not view.laterality or down is None:
        return ()
    return ("A" if chest_wall is Laterality.LEFT else "P", down)


def is_upside_down(orientation: tuple[str, ...], view: View) -> bool:
    """Whether a stored image of this Patient Orientation stands on its head, as against how the view is hung.

    False where either is not known.
    """
    hung = _DOWN[view.laterality].get(view.position)
    return len(orientation) == 2 and hung is not None and orientation[1][0] == _OPPOSITE[hung[0]]


def turned(orientation: tuple[str, ...], flipped: bool, upside_down: bool) -> tuple[str, ...]:
    """Patient Orientation of the picture that is made by flipping an image left to right, top to bottom, or both."""
    if len(orientation) != 2:
        return ()
    row, column = orientation
    return (_reversed(row) if flipped else row, _reversed(column) if upside_down else column)


def _reversed(direction: str) -> str:
    return "".join(_OPPOSITE[letter] for letter in direction)


def _stated(dataset: Dataset) -> tuple[str, ...]:
    value = dataset.get("PatientOrientation")
    if value is None or isinstance(value, str) or len(value) != 2:
        return ()
    row, column = (str(direction) for direction in value)
    return (row, column) if _is_direction(row) and _is_direction(column) and row != column else ()


def _is_direction(word: str) -> bool:
    """One to three letters, none twice and none beside its opposite (PS3.3 C.7.6.1.1.1)."""
    letters = set(word)
    return (
        1 <= len(word) <= 3
        and len(letters) == len(word)
        and letters <= _LETTERS
        and not any(_OPPOSITE[letter] in letters for letter in letters)
    )
