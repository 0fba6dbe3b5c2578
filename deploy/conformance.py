"""The generated part of docs/conformance.md, from the tables that the listener itself uses.

`python -m deploy.conformance` writes it anew.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from pydicom.uid import UID

from node.supported import MAMMOGRAPHY, RESULTS, SECONDARY_CAPTURE, STORAGE_CLASSES, TRANSFER_SYNTAXES

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
_BEGIN, _END = "<!-- generated: begin -->\n", "<!-- generated: end -->\n"
_UNNAMED = {"1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage"}
"""Classes that pydicom's table does not know yet."""


def generated() -> str:
    """The tables of SOP classes and transfer syntaxes, as Markdown."""
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


def _syntaxes(uids: Sequence[str]) -> list[str]:
    return ["| transfer syntax | UID |", "|---|---|", *(f"| {_name(uid)} | {uid} |" for uid in uids)]


def _name(uid: str) -> str:
    return _UNNAMED.get(uid, UID(uid).name)


def with_generated(page: str) -> str:
    """The page with its generated part made anew. Raises ValueError where the two marks are missing."""
    pattern = re.compile(f"({re.escape(_BEGIN)}).*?({re.escape(_END)})", re.DOTALL)
    if not pattern.search(page):
        raise ValueError("docs/conformance.md has no generated part")
    return pattern.sub(lambda match: match[1] + generated() + match[2], page)


if __name__ == "__main__":
    PAGE.write_text(with_generated(PAGE.read_text()))
