"""DICOMweb as a client: STOW-RS (PS3.18 10.5), and a QIDO-RS search that tells whether the server is there."""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from node.errors import DeliveryError, DestinationRefusedError, DestinationUnavailableError, RequestRefusedError
from node.settings import Destination

DICOM_JSON = "application/dicom+json"
FAILED_SOP_SEQUENCE = "00081198"
REFERENCED_SOP_SEQUENCE = "00081199"
REFERENCED_SOP_INSTANCE_UID = "00081155"
FAILURE_REASON = "00081197"
WARNING_REASON = "00081196"
BUSY = frozenset({408, 425, 429})
"""HTTP answers below 500 that a later try may change."""
ABOUT_THE_CALLER = frozenset({401, 403, 404, 405, 407})
"""HTTP answers below 500 that mean whoever asks or what address is asked, whatever objects the request holds."""
LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class StowAnswer:
    """What a STOW-RS answer says of each instance (PS3.18 annex I.2).

    `stored` maps SOP Instance UID to a Warning Reason or 0; `failed` maps SOP Instance UID to its Failure Reason.
    """

    stored: dict[str, int]
    failed: dict[str, int]


def open_client(destination: Destination) -> httpx.Client:
    """A client for one destination, with its user and time limits."""
    return httpx.Client(
        auth=(destination.username, destination.password) if destination.username else None,
        timeout=httpx.Timeout(destination.timeout_seconds),
        headers={"Accept": DICOM_JSON},
    )


def store(client: httpx.Client, url: str, instances: Sequence[bytes]) -> StowAnswer:
    """Store Part 10 files at the DICOMweb root `url`, and say what became of each.

    A 200 without a body that can be read gives an empty answer: everything was stored. Raises DestinationRefusedError
    or DestinationUnavailableError where the answer is about the request and not about instances.
    """
    boundary = uuid.uuid4().hex
    try:
        response = client.post(
            f"{url.rstrip('/')}/studies",
            content=_multipart(instances, boundary),
            headers={"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'},
        )
    except httpx.HTTPError as error:
        raise DestinationUnavailableError(f"{url}: {type(error).__name__}: {error}") from error
    if response.status_code not in (200, 202, 409):
        raise _error_of(url, response)
    answer = _read_answer(response)
    if response.status_code != 200 and not answer.stored and not answer.failed:
        raise DestinationUnavailableError(f"{url}: HTTP {response.status_code} that names no instance")
    return answer


def check_reachable(client: httpx.Client, url: str) -> httpx.Response:
    """Ask for one study. Raises DestinationRefusedError or DestinationUnavailableError."""
    try:
        response = client.get(f"{url.rstrip('/')}/studies", params={"limit": "1"})
    except httpx.HTTPError as error:
        raise DestinationUnavailableError(f"{url}: {type(error).__name__}: {error}") from error
    if response.status_code not in (200, 204):
        raise _error_of(url, response)
    return response


def check_may_store(client: httpx.Client, url: str) -> None:
    """Ask to store nothing: whoever may not is told so, whoever may is told that nothing came. Raises as `store`."""
    try:
        response = client.post(
            f"{url.rstrip('/')}/studies",
            content=b"--none--\r\n",
            headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=none'},
        )
    except httpx.HTTPError as error:
        raise DestinationUnavailableError(f"{url}: {type(error).__name__}: {error}") from error
    if response.status_code in (401, 403, 404, 405):
        raise _error_of(url, response)


def _multipart(instances: Sequence[bytes], boundary: str) -> bytes:
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(part for content in instances for part in (head, content, b"\r\n")) + f"--{boundary}--\r\n".encode()


def _error_of(url: str, response: httpx.Response) -> DeliveryError:
    said = f"{url}: HTTP {response.status_code} {response.reason_phrase}{_reason_of(response)}"
    if response.status_code >= 500 or response.status_code in BUSY:
        return DestinationUnavailableError(said)
    if response.status_code < 400 or response.status_code in ABOUT_THE_CALLER:
        return DestinationRefusedError(said)
    return RequestRefusedError(said)


def _reason_of(response: httpx.Response) -> str:
    """The server's own words: a Warning header (PS3.18 8.4.2), a problem or message in JSON, or a line of text."""
    text = response.headers.get("Warning", "")
    kind = response.headers.get("Content-Type", "")
    if not text and "json" in kind:
        try:
            body = response.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            body = None
        words = [body.get(key) for key in _REASON_KEYS] if isinstance(body, dict) else []
        text = next((word for word in words if isinstance(word, str) and word), "")
    elif not text and kind.startswith("text/plain"):
        text = response.text.strip().partition("\n")[0]
    text = "".join(character for character in text if character.isprintable())[:LONGEST_REASON].strip()
    return f": {text}" if text else ""


_REASON_KEYS = ("detail", "Details", "details", "title", "Message", "message", "errorMessage", "error")


def _read_answer(response: httpx.Response) -> StowAnswer:
    try:
        body = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return StowAnswer({}, {})
    data_set = body[0] if isinstance(body, list) and body else body
    if not isinstance(data_set, dict):
        return StowAnswer({}, {})
    return StowAnswer(
        stored=dict(_reasons(data_set, REFERENCED_SOP_SEQUENCE, WARNING_REASON)),
        failed=dict(_reasons(data_set, FAILED_SOP_SEQUENCE, FAILURE_REASON)),
    )


def _reasons(data_set: dict[str, Any], sequence: str, reason: str) -> Iterable[tuple[str, int]]:
    """(SOP Instance UID, reason or 0) of each item; an empty sequence, as Orthanc writes it, has none."""
    for item in _values(data_set, sequence):
        if not isinstance(item, dict):
            continue
        uids, reasons = _values(item, REFERENCED_SOP_INSTANCE_UID), _values(item, reason)
        if uids:
            yield str(uids[0]), int(reasons[0]) if reasons else 0


def _values(data_set: dict[str, Any], tag: str) -> list[Any]:
    element = data_set.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else []
