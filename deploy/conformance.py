"""The generated parts of docs/conformance.md, from the tables that the node itself uses.

`python -m deploy.conformance` writes them anew.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from node.destinations import OBJECTS, PRESETS
from node.results.document import SERIES_NUMBERS
from node.results.reading import ResultKind
from node.supported import (
    CLASS_OF_KIND,
    MAMMOGRAPHY,
    RESULTS,
    SECONDARY_CAPTURE,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
)

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
_UNNAMED = {"1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage"}
"""Classes that pydicom's table does not know yet."""

MADE_AS: dict[str, tuple[str, str, str]] = {
    "CADSR": (ExplicitVRLittleEndian, "TID 4000", "every reading; an exam that was not read, where `explain_unread`"),
    "SR": (ExplicitVRLittleEndian, "TID 1500", "every reading; an exam that was not read, where `explain_unread`"),
    "GSPS": (ExplicitVRLittleEndian, "contours, centres, words", "one for each view read"),
    "SC": (ExplicitVRLittleEndian, "the four views as hung, Modality OT, RGB", "every reading"),
    "SCVIEW": (ExplicitVRLittleEndian, "one view, Modality OT, RGB", "one for each view read"),
    "SEG": (ExplicitVRLittleEndian, "BINARY", "one for each view with marked regions"),
    "LABELMAP": (
        JPEGLSLossless,
        "LABELMAP",
        "as SEG, with a frame of its own in Explicit VR Little Endian; SEG instead where the class is not taken",
    ),
    "HEATMAP": (RLELossless, "FRACTIONAL, PROBABILITY", "one for each view with heat"),
    "KOS": (ExplicitVRLittleEndian, "TID 2010, (113000, DCM, Of Interest)", "names all other objects of a reading"),
    "REJECT": (
        ExplicitVRLittleEndian,
        "TID 2010, (113001, DCM, Rejected for Quality Reasons)",
        "a later reading, where `retract`: names our own objects of the earlier one",
    ),
}
"""Kind to transfer syntax, template or type, and when it is made. A test makes each of them and compares."""


def receives() -> str:
    """What the listener takes: SOP classes and transfer syntaxes."""
    others = [uid for uid in STORAGE_CLASSES if uid not in (*MAMMOGRAPHY, *SECONDARY_CAPTURE, *RESULTS)]
    groups = (
        ("Verification", "answered", ("1.2.840.10008.1.1",)),
        ("Mammograms", "read, or skipped with a reason", MAMMOGRAPHY),
        ("Secondary Capture", "read only with Modality MG and a known side and view", SECONDARY_CAPTURE),
        ("Results that come back", "kept and recorded; never a new reading", RESULTS),
        ("Sent along with images", "kept; never a reading", others),
    )
    lines = ["| group | SOP class | UID | what happens |", "|---|---|---|---|"]
    for name, what, classes in groups:
        lines += [f"| {name} | {_name(uid)} | {uid} | {what} |" for uid in classes]
    lines += ["", "Each storage class in each of these transfer syntaxes, preferred in this order:", ""]
    return "\n".join([*lines, *_syntaxes(TRANSFER_SYNTAXES)]) + "\n"


def sends() -> str:
    """What destinations get: objects, and which preset brings which."""
    lines = ["| kind | SOP class | UID | made as | transfer syntax | series | when |", "|---|---|---|---|---|---|---|"]
    for kind, (syntax, made_as, when) in MADE_AS.items():
        uid, series = CLASS_OF_KIND[kind], SERIES_NUMBERS[ResultKind(kind)]
        lines.append(f"| {kind} | {_name(uid)} | {uid} | {made_as} | {_name(syntax)} | {series} | {when} |")
    lines += ["", f"| preset | {' | '.join(OBJECTS)} | segmentation frame | unread exams |"]
    lines.append("|---" * (len(OBJECTS) + 3) + "|")
    for name, preset in PRESETS.items():
        cells = ["yes" if kind in preset.objects else "" for kind in OBJECTS]
        explained = "explained" if preset.explain_unread else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {preset.segmentation_frame} | {explained} |")
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[], str]] = {"receives": receives, "sends": sends}


def _syntaxes(uids: Sequence[str]) -> list[str]:
    return ["| transfer syntax | UID |", "|---|---|", *(f"| {_name(uid)} | {uid} |" for uid in uids)]


def _name(uid: str) -> str:
    return _UNNAMED.get(uid, UID(uid).name)


def with_generated(page: str) -> str:
    """The page with its generated parts made anew. Raises ValueError where the marks of one are missing."""
    for name, part in PARTS.items():
        begin, end = f"<!-- generated: {name} begin -->\n", f"<!-- generated: {name} end -->\n"
        before, begins, rest = page.partition(begin)
        _, ends, after = rest.partition(end)
        if not begins or not ends:
            raise ValueError(f"docs/conformance.md has no generated part {name!r}")
        page = before + begin + part() + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(with_generated(PAGE.read_text()))
