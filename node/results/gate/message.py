"""The HL7 message: it parses, its segments are there in order, and nothing in it breaks the encoding rules."""

from collections.abc import Iterator

_SEGMENTS = ("MSH", "PID", "OBR", "OBX")
_FIELD_SEPARATOR, _ENCODING = "|", "^~\\&"


def problems(content: bytes) -> Iterator[str]:
    """What is wrong with an ORU^R01 (HL7 v2.5.1 chapters 2 and 7)."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        yield "the message is not UTF-8"
        return
    lines = text.split("\r")
    if lines[-1] or not text.startswith(f"MSH{_FIELD_SEPARATOR}{_ENCODING}{_FIELD_SEPARATOR}"):
        yield "the message does not begin with MSH and end with a carriage return"
        return
    segments = [line.split(_FIELD_SEPARATOR) for line in lines[:-1]]
    names = [segment[0] for segment in segments]
    for name in _SEGMENTS:
        if name not in names:
            yield f"segment {name} is missing"
