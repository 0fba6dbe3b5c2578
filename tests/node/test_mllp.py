"""MLLP against the listeners of two libraries: what is sent arrives, and every kind of answer is sorted."""

import asyncio
import time
from typing import Any

import hl7
import pytest

from node import mllp
from node.errors import DeliveryError, DestinationRefusedError, DestinationUnavailableError
from node.results import message
from tests.node.listeners import Answer, hl7_listener, hl7apy_listener
from tests.node.results import exams
from tests.servers import free_port

ORU = message.encode(exams.reading(), exams.sources()).content
CONTROL_ID = hl7.parse(ORU.decode()).segment("MSH")[10][0]


def says(*segments: str) -> Answer:
    """An answer of these segments after MSH, in a block."""

    async def answer(_: hl7.Message, writer: Any) -> None:
        text = "\r".join(("MSH|^~\\&|||||20260101||ACK|9|P|2.5.1", *segments, ""))
        writer.write(b"\x0b" + text.encode() + b"\x1c\r")
        await writer.drain()

    return answer


def writes(*pieces: bytes, pause_seconds: float = 0.0) -> Answer:
    """These bytes, one packet after the other, as they are."""

    async def answer(_: hl7.Message, writer: Any) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return answer


def test_a_listener_of_hl7_takes_the_message_as_it_was_sent() -> None:
    with hl7_listener() as listener:
        mllp.send(ORU, "127.0.0.1", listener.port, 5.0)
    assert [received.encode() for received in listener.received] == [ORU]


def test_a_listener_of_hl7apy_takes_the_message_as_it_was_sent() -> None:
    with hl7apy_listener() as listener:
        mllp.send(ORU, "127.0.0.1", listener.port, 5.0)
    assert [received.encode() for received in listener.received] == [ORU]


@pytest.mark.parametrize("status", ["AA", "CA"])
def test_accepted_is_taken(status: str) -> None:
    with hl7_listener(says(f"MSA|{status}|{CONTROL_ID}")) as listener:
        mllp.send(ORU, "127.0.0.1", listener.port, 5.0)
    assert len(listener.received) == 1


ACCEPTED = f"MSH|^~\\&|||||20260101||ACK|9|P|2.5.1\rMSA|AA|{CONTROL_ID}\r".encode()


@pytest.mark.parametrize(
    "pieces",
    [
        [bytes([byte]) for byte in b"\x0b" + ACCEPTED + b"\x1c\r"],
        [b"\x0b\x06\x1c\r", b"\x0b" + ACCEPTED + b"\x1c\r"],
        [b"\x0b\x06\x1c\r\x0b" + ACCEPTED + b"\x1c\r"],
        [b"\x0b" + ACCEPTED + b"\x1c"],
        [b"\x0b" + ACCEPTED.replace(b"\r", b"\r\n") + b"\x1c\r"],
        [b"\x0b" + ACCEPTED.replace(b"|", b"#") + b"\x1c\r"],
        [ACCEPTED],
    ],
    ids=["bytewise", "commit first", "commit in one packet", "no CR", "CR LF", "other separator", "no block"],
)
def test_an_acknowledgement_in_any_shape_is_read(pieces: list[bytes]) -> None:
    with hl7_listener(writes(*pieces)) as listener:
        mllp.send(ORU, "127.0.0.1", listener.port, 5.0)
    assert len(listener.received) == 1


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (says(f"MSA|AE|{CONTROL_ID}|database locked"), DestinationUnavailableError, "answered AE .*: database locked"),
        (says(f"MSA|CE|{CONTROL_ID}"), DestinationUnavailableError, f"answered CE to {CONTROL_ID}$"),
        (says(f"MSA|AR|{CONTROL_ID}", "ERR|||200^Unsupported"), DestinationRefusedError, "AR .*: 200.Unsupported"),
        (says("MSA|AA|SOMEBODY-ELSE"), DestinationUnavailableError, "acknowledged another message"),
        (says(), DestinationRefusedError, "no acknowledgement"),
        (says(f"MSA|OK|{CONTROL_ID}"), DestinationRefusedError, "no acknowledgement"),
        (writes(b"\x0b\x15\x1c\r"), DestinationUnavailableError, "NAK"),
        (writes(b"HTTP/1.1 400 Bad Request\r\n\r\n"), DestinationRefusedError, "no acknowledgement"),
        (writes(b"\x0b\xff\xfe\x00\x1c\r"), DestinationRefusedError, "no acknowledgement"),
        (writes(b"x" * (mllp.LONGEST_ANSWER + 100_000)), DestinationRefusedError, "more than"),
        (writes(), DestinationUnavailableError, "closed the connection without"),
    ],
)
def test_every_other_answer_is_sorted(answer: Answer, error: type[DeliveryError], words: str) -> None:
    with hl7_listener(answer) as listener, pytest.raises(error, match=words):
        mllp.send(ORU, "127.0.0.1", listener.port, 5.0)


@pytest.mark.parametrize("answer", [writes(b"", pause_seconds=3.0), writes(*[b"x"] * 30, pause_seconds=0.1)])
def test_the_limit_is_for_all_of_it_and_not_for_each_packet(answer: Answer) -> None:
    began = time.monotonic()
    with hl7_listener(answer) as listener:
        with pytest.raises(DestinationUnavailableError, match=r"did not answer within 0\.5 s"):
            mllp.send(ORU, "127.0.0.1", listener.port, 0.5)
        assert time.monotonic() - began < 2.0


def test_an_answer_that_takes_its_time_is_waited_for() -> None:
    with hl7_listener(writes(b"\x0b", ACCEPTED, b"\x1c\r", pause_seconds=0.2)) as listener:
        mllp.send(ORU, "127.0.0.1", listener.port, 5.0)
    assert len(listener.received) == 1


def test_nobody_there_may_be_tried_again() -> None:
    with pytest.raises(DestinationUnavailableError, match="Connection refused"):
        mllp.send(ORU, "127.0.0.1", free_port(), 5.0)


def test_a_name_that_nobody_has_may_be_tried_again() -> None:
    with pytest.raises(DestinationUnavailableError, match=r"nobody\.invalid:2575"):
        mllp.send(ORU, "nobody.invalid", 2575, 5.0)


def test_a_listener_that_quotes_the_patient_is_not_quoted() -> None:
    quoting = says(f"MSA|AR|{CONTROL_ID}|no order for Müller, Änne born 19610504 id P-000123")
    with hl7_listener(quoting) as listener, pytest.raises(DestinationRefusedError) as refused:
        mllp.send(ORU, "127.0.0.1", listener.port, 5.0)
    assert "no order for" in str(refused.value)
    assert not any(word in str(refused.value) for word in ("Müller", "Änne", "19610504", "000123"))
