"""The HL7 message against the structure, data types and tables of HL7 v2.5.1 that hl7apy has, and what we promise."""

import re
from collections.abc import Iterator

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

SEGMENTS = ("MSH", "PID", "ORC", "OBR", "OBX")
"""In this order; OBX as often as needed."""
_CONTROL_ID_LENGTH = 20
_NEVER = re.compile(r"(?!)")
_VALUES = {
    "NM": re.compile(r"[+-]?\d+(\.\d+)?"),
    "HD": re.compile(r"[0-9.]{1,64}"),
    "ST": re.compile(r"[^|\r]{1,199}"),
    "TX": re.compile(r"[^|\r]{1,65536}"),
}
"""OBX-2 to what OBX-5 looks like; the node writes no other value types. hl7apy leaves this open: its type varies."""


def problems(content: bytes) -> Iterator[str]:
    """What is wrong with an ORU^R01 (HL7 v2.5.1 chapters 2 and 7)."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        yield "the message is not UTF-8"
        return
    lines = [line.split("|") for line in text.split("\r")]
    if lines.pop() != [""] or not text.startswith("MSH|^~\\&|"):
        yield "the message does not begin with MSH and end with a carriage return"
        return
    yield from _of_segments(lines)
    try:
        parse_message(_shortened(lines), validation_level=VALIDATION_LEVEL.STRICT, force_validation=True)
    except (HL7apyException, ValueError, LookupError, AttributeError, TypeError) as error:
        yield f"the message breaks HL7 v2.5.1: {type(error).__name__}"


def _shortened(lines: list[list[str]]) -> str:
    """The message with a word for each TX: hl7apy 1.3.5 takes one in OBX-5 for an ST, which holds 199 characters."""
    texts = ([*line[:5], "text", *line[6:]] if line[0] == "OBX" and line[2:3] == ["TX"] else line for line in lines)
    return "".join("|".join(line) + "\r" for line in texts)


def _of_segments(lines: list[list[str]]) -> Iterator[str]:
    names = [line[0] for line in lines]
    if tuple(dict.fromkeys(names)) != SEGMENTS or names != sorted(names, key=SEGMENTS.index):
        yield f"the segments are not {', '.join(SEGMENTS)} in this order"
        return
    header, observations = lines[0], [line for line in lines if line[0] == "OBX"]
    if header[8:9] != ["ORU^R01^ORU_R01"] or header[11:12] != ["2.5.1"] or header[17:18] != ["UNICODE UTF-8"]:
        yield "MSH does not state ORU^R01, 2.5.1 and UNICODE UTF-8"
    if not 1 <= len("".join(header[9:10])) <= _CONTROL_ID_LENGTH:
        yield f"MSH-10 has no control id of 1 to {_CONTROL_ID_LENGTH} characters"
    if [line[1] for line in observations] != [str(number) for number in range(1, len(observations) + 1)]:
        yield "OBX are not numbered from 1"
    if any(len(line) < 12 or not line[5] or line[11] not in ("P", "X") for line in observations):
        yield "an OBX has no value or no status"
    elif not all(_VALUES.get(line[2], _NEVER).fullmatch(line[5]) for line in observations):
        yield "an OBX has a value that is not of its value type"
