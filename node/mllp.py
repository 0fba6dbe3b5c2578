"""HL7 messages by MLLP: one message on one connection, and its acknowledgement sorted.

HL7 Minimal Lower Layer Protocol, releases 1 and 2; acknowledgements as in HL7 v2.5.1 section 2.9, table 0008.
"""

import re
import socket
import time

from node.errors import DestinationRefusedError, DestinationUnavailableError

START_BLOCK, END_BLOCK, CARRIAGE_RETURN = b"\x0b", b"\x1c", b"\r"
ACKNOWLEDGED, NOT_ACKNOWLEDGED = b"\x06", b"\x15"
"""Blocks of release 2 that tell of the transfer alone; the acknowledgement of the message follows the first."""
LONGEST_ANSWER = 1 << 20
_LONGEST_WORDS = 200
_TAKEN, _TRY_AGAIN, _REFUSED = ("AA", "CA"), ("AE", "CE"), ("AR", "CR")


def send(message: bytes, host: str, port: int, timeout_seconds: float) -> None:
    """Send `message` and wait until the listener has taken it, `timeout_seconds` in all.

    Raises DestinationUnavailableError where a later try may work: no connection, no answer in time, an answer to
    another message, MSA-1 AE. The same bytes sent again have the same control id, by which a listener knows them.
    Raises DestinationRefusedError for MSA-1 AR, and for an answer that is no acknowledgement.
    """
    where, deadline = f"{host}:{port}", time.monotonic() + timeout_seconds
    try:
        with socket.create_connection((host, port), timeout=timeout_seconds) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(START_BLOCK + message + END_BLOCK + CARRIAGE_RETURN)
            answer = _answer(connection, deadline, where)
    except TimeoutError as error:
        raise DestinationUnavailableError(f"{where} did not answer within {timeout_seconds:g} s") from error
    except OSError as error:
        raise DestinationUnavailableError(f"{where}: {error.strerror or type(error).__name__}") from error
    _sort(answer, message, where)


def _left(deadline: float) -> float:
    """Seconds left. Raises TimeoutError where there are none."""
    left = deadline - time.monotonic()
    if left <= 0.0:
        raise TimeoutError
    return left


def _answer(connection: socket.socket, deadline: float, where: str) -> bytes:
    """The block with the acknowledgement of the message."""
    received = b""
    while True:
        block, ends, rest = received.partition(END_BLOCK)
        if ends and block.lstrip(CARRIAGE_RETURN + b"\n") == START_BLOCK + ACKNOWLEDGED:
            received = rest
            continue
        if ends:
            return block.lstrip(CARRIAGE_RETURN + b"\n")
        if len(received) > LONGEST_ANSWER:
            raise DestinationRefusedError(f"{where} answered with more than {LONGEST_ANSWER} bytes")
        connection.settimeout(_left(deadline))
        more = connection.recv(65536)
        if not more:
            return _cut_off(received, where)
        received += more


def _cut_off(received: bytes, where: str) -> bytes:
    """What was received of a listener that closed the connection: an answer without its end, or nothing."""
    if received.strip(CARRIAGE_RETURN + b"\n"):
        return received
    raise DestinationUnavailableError(f"{where} closed the connection without an acknowledgement")


def _sort(answer: bytes, message: bytes, where: str) -> None:
    """Raises what the acknowledgement says, nothing where the message was taken."""
    if answer == START_BLOCK + NOT_ACKNOWLEDGED:
        raise DestinationUnavailableError(f"{where} could not take the message (NAK)")
    segments = _segments(answer.removeprefix(START_BLOCK))
    status, identifier, *said = [*segments.get("MSA", [])[1:], "", "", ""][:3]
    if "MSH" not in segments or status not in (*_TAKEN, *_TRY_AGAIN, *_REFUSED):
        raise DestinationRefusedError(f"{where} answered with something that is no acknowledgement")
    sent = _segments(message)["MSH"][9]
    if identifier != sent:
        raise DestinationUnavailableError(f"{where} acknowledged another message than {sent}")
    if status in _TAKEN:
        return
    words = f"{where} answered {status} to {sent}{_reason([*said, *segments.get('ERR', [])[1:]], message)}"
    raise DestinationUnavailableError(words) if status in _TRY_AGAIN else DestinationRefusedError(words)


def _segments(message: bytes) -> dict[str, list[str]]:
    """The first segment of each name, as fields; MSH-2 stands at index 1. Empty where it is no HL7."""
    text = message.decode("utf-8", "replace").lstrip("\n").replace("\n", "\r")
    separator = text[3:4] if text.startswith("MSH") else ""
    if not separator.strip():
        return {}
    found: dict[str, list[str]] = {}
    for line in text.split("\r"):
        fields = line.split(separator)
        found.setdefault(fields[0], fields)
    return found


def _reason(fields: list[str], message: bytes) -> str:
    """What MSA-3 and ERR say, without words of the message's own PID: a listener may quote the patient."""
    patient = {word.casefold() for field in _segments(message).get("PID", []) for word in re.findall(r"\w{3,}", field)}
    words = re.sub(r"\W*\w+", lambda word: _unless(word.group(), patient), " ".join(filter(None, fields)))
    return f": {words.strip()[:_LONGEST_WORDS]}" if words.strip() else ""


def _unless(word: str, patient: set[str]) -> str:
    return " ..." if re.sub(r"\W", "", word).casefold() in patient else word
