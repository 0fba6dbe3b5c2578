"""Sides and views of a mammogram, and how a data set states them (PS3.3 C.8.11.7, CID 4014, CID 4015)."""

import re
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset
from pydicom.multival import MultiValue

from node.errors import ViewError
from node.mammography.view_codes import (
    EXCLUDING_IMAGE_TYPES,
    MODIFIERS,
    NOT_OF_A_BREAST,
    SPECIMEN,
    SYNTHETIC_IMAGE_TYPES,
    SYNTHETIC_PRODUCTS,
    TOMOSYNTHESIS_SOP_CLASSES,
    VIEWS,
    is_coded,
)


class Laterality(StrEnum):
    """Side of one breast, Image Laterality (0020,0062). B (both) has no member: it is refused."""

    RIGHT = "R"
    LEFT = "L"


class ViewPosition(StrEnum):
    """View of CID 4014, by the defined term of View Position (0018,5101)."""

    CC = "CC"
    MLO = "MLO"
    ML = "ML"
    LM = "LM"
    LMO = "LMO"
    FB = "FB"
    SIO = "SIO"
    ISO = "ISO"
    XCC = "XCC"
    XCCL = "XCCL"
    XCCM = "XCCM"


@dataclass(frozen=True, slots=True)
class View:
    """A side and a projection, named as radiologists do: RCC, LCC, RMLO, LMLO."""

    laterality: Laterality
    position: ViewPosition

    @property
    def name(self) -> str:
        """The view in one word, for example LMLO."""
        return f"{self.laterality.value}{self.position.value}"

    def __str__(self) -> str:
        return self.name


RCC = View(Laterality.RIGHT, ViewPosition.CC)
LCC = View(Laterality.LEFT, ViewPosition.CC)
RMLO = View(Laterality.RIGHT, ViewPosition.MLO)
LMLO = View(Laterality.LEFT, ViewPosition.MLO)

STANDARD_VIEWS: tuple[View, View, View, View] = (RCC, LCC, RMLO, LMLO)
"""The view axis (V) of every tensor, in this order: as hung, right before left, CC before MLO."""

BREASTS: tuple[Laterality, Laterality] = (Laterality.RIGHT, Laterality.LEFT)
"""The breast axis of `breast_logits`."""


_POSITIONS = "|".join(sorted((position.value for position in ViewPosition), key=len, reverse=True))
_VIEW_POSITION = re.compile(
    rf"(?P<side>[RL])?[ _-]?(?P<prefix>[MS])?[ _-]?(?P<position>{_POSITIONS})"
    r"[ _-]?(?P<suffix>ID|RL|RM|RI|RS|NP|AC|IMF|AX|AT|CV|TAN|M|S)?"
)
"""View Position as machines write it: the defined term, or ACR MQCM forms such as MCC, CCID, LMLO."""


@dataclass(frozen=True, slots=True)
class WrittenView:
    """A view's name taken apart: "LMLOID" is left, MLO, implant displaced. `modifier` is ACR's letters or empty."""

    position: ViewPosition
    laterality: Laterality | None
    modifier: str


def read_view_name(name: str) -> WrittenView | None:
    """A view's name as View Position (0018,5101) has it, None if it names no view of CID 4014."""
    word = name.strip().upper()
    if word in ViewPosition.__members__:
        return WrittenView(ViewPosition(word), None, "")
    match = _VIEW_POSITION.fullmatch(word)
    if match is None:
        return None
    side = Laterality(match["side"]) if match["side"] else None
    return WrittenView(ViewPosition(match["position"]), side, match["suffix"] or match["prefix"] or "")


def view_of(dataset: Dataset, *, from_patient_orientation: bool = False) -> View:
    """Side and view that a data set states, by its header alone.

    Side: Image Laterality (0020,0062), else Laterality (0020,0060), else Frame Laterality; R or L. View: View Code
    Sequence (0054,0220) by CID 4014, else View Position (0018,5101), else, where the caller allows it, a view's name
    in Patient Orientation (0020,0020). Raises ViewError where either is missing, is no side or view of one breast,
    or is stated differently by two of these.
    """
    return View(_laterality(dataset), _position(dataset, from_patient_orientation))


def _laterality(dataset: Dataset) -> Laterality:
    stated = [(source, value) for source, value in _stated_sides(dataset) if value]
    sides = [(source, value) for source, value in stated if value in ("R", "L")]
    if not sides or (stated[0][0] == "Image Laterality" and stated[0][1] not in ("R", "L")):
        raise ViewError(
            f"{stated[0][0]} is {stated[0][1]}, not R or L" if stated else "no side: Image Laterality is missing"
        )
    if len({value for _, value in sides}) > 1:
        raise ViewError("sides contradict: " + ", ".join(f"{source} {value}" for source, value in sides))
    return Laterality(sides[0][1])


def _stated_sides(dataset: Dataset) -> list[tuple[str, str]]:
    """Every attribute that can state a side, in the order of preference; empty where absent."""
    sides = [
        ("Image Laterality", _word(dataset, "ImageLaterality")),
        ("Laterality", _word(dataset, "Laterality")),
    ]
    for group in dataset.get("SharedFunctionalGroupsSequence") or []:
        sides += [
            ("Frame Laterality", _word(item, "FrameLaterality")) for item in group.get("FrameAnatomySequence") or []
        ]
    written = read_view_name(_word(dataset, "ViewPosition"))
    if written is not None and written.laterality is not None:
        sides.append(("View Position", written.laterality.value))
    return sides


def _position(dataset: Dataset, from_patient_orientation: bool) -> ViewPosition:
    coded = _coded_position(dataset)
    word = _word(dataset, "ViewPosition")
    written = read_view_name(word)
    if coded is None and written is None and word in NOT_OF_A_BREAST:
        raise ViewError(f"View Position {word} is no view of a breast")
    if coded is None and written is None and from_patient_orientation:
        written = read_view_name(" ".join(_words(dataset, "PatientOrientation")))
    if coded is not None and (word in NOT_OF_A_BREAST or (written is not None and not _agree(coded, written.position))):
        raise ViewError(f"views contradict: View Code {coded}, View Position {word}")
    if coded is not None:
        return coded
    if written is not None:
        return written.position
    raise ViewError(_no_view_reason(dataset, word))


def _coded_position(dataset: Dataset) -> ViewPosition | None:
    items = dataset.get("ViewCodeSequence") or []
    if any(is_coded(item, SPECIMEN) for item in items):
        raise ViewError("tissue specimen, no view of a breast")
    positions = [ViewPosition(term) for item in items for term, codes in VIEWS.items() if is_coded(item, codes)]
    if len(set(positions)) > 1:
        raise ViewError("views contradict: View Code " + ", View Code ".join(positions))
    return positions[0] if positions else None


def _agree(coded: ViewPosition, written: ViewPosition) -> bool:
    """XCC is what View Position calls both exaggerated views."""
    return coded is written or (written is ViewPosition.XCC and coded in (ViewPosition.XCCL, ViewPosition.XCCM))


def _no_view_reason(dataset: Dataset, word: str) -> str:
    items = dataset.get("ViewCodeSequence") or []
    if items:
        return (
            f"View Code {_word(items[0], 'CodeValue')} ({_word(items[0], 'CodingSchemeDesignator')}) is not of CID 4014"
        )
    return f"View Position {word} is no view of CID 4014" if word else "no view: View Code Sequence is missing"


def modifiers_of(dataset: Dataset) -> frozenset[str]:
    """Names of the view modifiers (CID 4015) that View Code Sequence or the data set itself carry, and View Position.

    The names are the keys of view_codes.MODIFIERS.
    """
    items = list(dataset.get("ViewModifierCodeSequence") or [])
    for view in dataset.get("ViewCodeSequence") or []:
        items += list(view.get("ViewModifierCodeSequence") or [])
    names = {name for item in items for name, modifier in MODIFIERS.items() if is_coded(item, modifier.codes)}
    written = read_view_name(_word(dataset, "ViewPosition"))
    if written is not None and written.modifier:
        names |= {name for name, modifier in MODIFIERS.items() if written.modifier in modifier.letters}
    return frozenset(names)


def excluding_modifier(dataset: Dataset) -> str | None:
    """Why the image is none of a screening set, in one or two words: magnification, spot compression, specimen, ...

    None where it may be one. From the modifiers, the specimen code of CID 4014 and Image Type (PS3.3 C.8.11.7.1.4).
    """
    if any(is_coded(item, SPECIMEN) for item in dataset.get("ViewCodeSequence") or []):
        return "specimen"
    present = modifiers_of(dataset)
    for name, modifier in MODIFIERS.items():
        if modifier.excludes and name in present:
            return name
    image_type = _words(dataset, "ImageType")
    return next((reason for term, reason in EXCLUDING_IMAGE_TYPES.items() if term in image_type), None)


def is_implant_displaced(dataset: Dataset) -> bool:
    """The implant was pushed back (Eklund view), by modifier code or by View Position such as CCID."""
    return "implant displaced" in modifiers_of(dataset)


def has_implant(dataset: Dataset) -> bool:
    """Breast Implant Present (0028,1300) is YES, or the view is implant displaced."""
    return _word(dataset, "BreastImplantPresent") == "YES" or is_implant_displaced(dataset)


def is_partial_view(dataset: Dataset) -> bool:
    """Partial View (0028,1350) is YES: one tile of a breast that is larger than the detector."""
    return _word(dataset, "PartialView") == "YES"


def is_quality_control_image(dataset: Dataset) -> bool:
    """Quality Control Image (0028,0300) is YES or BOTH: a test object is in the image."""
    return _word(dataset, "QualityControlImage") in ("YES", "BOTH")


def is_tomosynthesis(dataset: Dataset) -> bool:
    """A tomosynthesis volume or its projections: by SOP class, Image Type, or more than one frame."""
    frames = dataset.get("NumberOfFrames")
    return (
        str(dataset.get("SOPClassUID", "")) in TOMOSYNTHESIS_SOP_CLASSES
        or "TOMO_PROJ" in _words(dataset, "ImageType")
        or (frames is not None and int(frames) > 1)
    )


def is_synthetic_2d(dataset: Dataset) -> bool:
    """A 2D image computed from tomosynthesis, not acquired: DERIVED, and said so by Image Type or by a product's name.

    TOMO_2D is Hologic's word for the acquired 2D image of a combined procedure; from anyone else it counts as computed.
    """
    image_type = _words(dataset, "ImageType")
    if image_type and image_type[0] != "DERIVED":
        return False
    if any(term in image_type for term in SYNTHETIC_IMAGE_TYPES):
        return True
    if "TOMO_2D" in image_type:
        return not re.search("HOLOGIC|LORAD", _word(dataset, "Manufacturer"))
    described = " ".join(_word(dataset, keyword) for keyword in _DESCRIPTIONS)
    return bool(image_type) and any(re.search(rf"\b{name}\b", described) for name in SYNTHETIC_PRODUCTS)


_DESCRIPTIONS = ("SeriesDescription", "AcquisitionDeviceProcessingDescription", "ProtocolName")


def _word(dataset: Dataset, keyword: str) -> str:
    """One value, upper case, without padding; the first of several; empty where absent."""
    words = _words(dataset, keyword)
    return words[0] if words else ""


def _words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    value = dataset.get(keyword)
    if value is None:
        return ()
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return tuple(str(part).strip(" \0").upper() for part in values)
