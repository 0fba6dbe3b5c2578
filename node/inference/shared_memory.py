"""Tensors in memory that this process and a server on the same host share (POSIX, Triton's extension of the protocol).

A region's name is removed as soon as the server has opened it: whatever ends this process, nothing is left in /dev/shm.
What a dead process left registered with the server is unregistered by the next one that starts.
"""

import errno
import logging
import mmap
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from node.errors import InferenceError
from node.inference.tensors import Outputs, Signature
from node.owner import is_dead, owner_name

logger = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")
PREFIX = "mammoclip"
SEPARATOR = "~"
ALIGNMENT = 64
UNREGISTER_SECONDS = 0.5

Send = Callable[[list[Any], list[Any]], Any]
"""Inputs and requested outputs of tritonclient -> its InferResult."""


class NoSharedMemoryError(Exception):
    """The server cannot open our memory, or there is none; says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor lies in a region."""

    offset: int
    shape: tuple[int, ...]
    element_type: str

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.dtype(self.element_type).itemsize * np.prod(self.shape, dtype=np.int64))

    def of(self, memory: mmap.mmap) -> NDArray[Any]:
        """The tensor in that memory, not copied."""
        return np.ndarray(self.shape, self.element_type, memory, self.offset)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Memory that the server has opened under `name`."""

    name: str
    size: int
    memory: mmap.mmap


class SharedTensors:
    """The regions of one client: each serves one inference at a time and is kept for the next."""

    def __init__(self) -> None:
        self._free: list[Region] = []
        self._abandoned: list[str] = []
        self._lock = Lock()

    def exchange(
        self,
        client: triton.InferenceServerClient,
        seconds: float,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Signature,
        send: Send,
    ) -> tuple[Any, Outputs]:
        """One inference. Raises NoSharedMemoryError, InferenceServerException, InferenceError.

        A region that the server no longer knows, since it was started anew, is replaced. One of an inference that
        failed is never used again: the server may still write into it.
        """
        places = _places(inputs, outputs)
        try:
            return self._exchanged(self._taken(client, seconds, places), client, inputs, places, send)
        except InferenceServerException as error:
            if not _is_unknown(error):
                raise
        with self._lock:
            self._free.clear()  # the server that knew them has gone
            self._abandoned.clear()
        return self._exchanged(self._taken(client, seconds, places), client, inputs, places, send)

    def close(self, client: triton.InferenceServerClient) -> None:
        """Let go of all regions and let the server do so too."""
        with self._lock:
            self._abandoned += [region.name for region in self._free]
            self._free.clear()
        self._unregister_abandoned(client)

    def _exchanged(
        self,
        region: Region,
        client: triton.InferenceServerClient,
        inputs: Mapping[str, NDArray[Any]],
        places: Mapping[str, Place],
        send: Send,
    ) -> tuple[Any, Outputs]:
        for name, array in inputs.items():
            np.copyto(places[name].of(region.memory), array)
        try:
            result = send(*_requests(region, inputs, places))
        except InferenceServerException:
            with self._lock:
                self._abandoned.append(region.name)
            raise
        answer = {name: _answered(result, name, places[name], region.memory) for name in places if name not in inputs}
        with self._lock:
            self._free.append(region)
        self._unregister_abandoned(client)
        return result, answer

    def _unregister_abandoned(self, client: triton.InferenceServerClient) -> None:
        """The server refuses that while an inference uses the memory; then it is tried again after the next one."""
        with self._lock:
            names, self._abandoned = self._abandoned, []
        left = [name for name in names if not _unregister(client, name)]
        with self._lock:
            self._abandoned += left

    def _taken(self, client: triton.InferenceServerClient, seconds: float, places: Mapping[str, Place]) -> Region:
        size = max(place.offset + place.size for place in places.values())
        with self._lock:
            region = self._free.pop() if self._free else None
        if region is not None and region.size >= size:
            return region
        if region is not None:
            with self._lock:
                self._abandoned.append(region.name)
        return _made(client, size, seconds)


def sweep(client: triton.InferenceServerClient) -> None:
    """Unregister what processes of this host registered that are gone. Raises InferenceServerException."""
    known = client.get_system_shared_memory_status(client_timeout=UNREGISTER_SECONDS).regions
    names = {*known, *(file.name for file in FOLDER.glob(f"{PREFIX}{SEPARATOR}*"))}
    for name in _dead(names):
        if name in known:
            _unregister(client, name)
        with suppress(OSError):
            (FOLDER / name).unlink()
        logger.warning("shared memory of a process that is gone was let go of: %s", name)


def _dead(names: set[str]) -> Iterator[str]:
    for name in sorted(names):
        prefix, _, rest = name.partition(SEPARATOR)
        if prefix == PREFIX and is_dead(rest.rpartition(SEPARATOR)[0].replace(SEPARATOR, "/")):
            yield name


def _places(inputs: Mapping[str, NDArray[Any]], outputs: Signature) -> dict[str, Place]:
    """One after the other; the batch of an output is the inputs' own, 1."""
    places, offset = {}, 0
    wanted = {name: (array.dtype.name, array.shape) for name, array in inputs.items()}
    wanted |= {name: (element_type, (1, *shape[1:])) for name, (element_type, shape) in outputs.items()}
    for name, (element_type, shape) in wanted.items():
        places[name] = Place(offset, shape, element_type)
        offset += -(-places[name].size // ALIGNMENT) * ALIGNMENT
    return places


def _requests(
    region: Region, inputs: Mapping[str, NDArray[Any]], places: Mapping[str, Place]
) -> tuple[list[Any], list[Any]]:
    tensors: list[Any] = [
        triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)) for name, array in inputs.items()
    ]
    wanted: list[Any] = [triton.InferRequestedOutput(name) for name in places if name not in inputs]
    for tensor in (*tensors, *wanted):
        place = places[tensor.name()]
        tensor.set_shared_memory(region.name, place.size, place.offset)
    return tensors, wanted


def _answered(result: Any, name: str, place: Place, memory: mmap.mmap) -> NDArray[Any]:
    """A copy, in the shape that was told: the next inference writes here. Raises InferenceError."""
    told = result.get_output(name)
    if told is None:
        raise InferenceError(f"Triton: output {name} is missing")
    shape, wanted = tuple(told.shape), np_to_triton_dtype(np.dtype(place.element_type))
    if told.datatype != wanted:
        raise InferenceError(f"Triton: output {name} is {told.datatype}; the contract says {wanted}")
    answered = Place(place.offset, shape, place.element_type)
    if answered.size > place.size:
        raise InferenceError(f"output {name} has shape {shape}; the contract says {place.shape}")
    return answered.of(memory).copy()


def _made(client: triton.InferenceServerClient, size: int, seconds: float) -> Region:
    """A new region that the server has opened. Raises NoSharedMemoryError."""
    owner = owner_name().replace("/", SEPARATOR)
    name = SEPARATOR.join((PREFIX, owner, secrets.token_hex(4)))
    try:
        descriptor = os.open(FOLDER / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError as error:
        raise NoSharedMemoryError(f"{FOLDER}: {error.strerror}") from error
    try:
        os.posix_fallocate(descriptor, 0, size)  # a full /dev/shm is told here, and not by SIGBUS later
        memory = mmap.mmap(descriptor, size)
        client.register_system_shared_memory(name, f"/{name}", size, client_timeout=seconds)
    except OSError as error:
        words = f"there is no room for {size / 1e6:.0f} MB" if error.errno == errno.ENOSPC else error.strerror
        raise NoSharedMemoryError(f"{FOLDER}: {words}") from error
    except InferenceServerException as error:
        if error.status() == "StatusCode.UNAVAILABLE" and "restricted" not in error.message():
            raise
        raise NoSharedMemoryError((error.message() or "").strip().partition("\n")[0]) from error
    finally:
        os.close(descriptor)
        (FOLDER / name).unlink()
    return Region(name, size, memory)


def _is_unknown(error: InferenceServerException) -> bool:
    return "unable to find" in (error.message() or "").lower() and "shared memory region" in error.message().lower()


def _unregister(client: triton.InferenceServerClient, name: str) -> bool:
    """Whether the server has let go of it, or never will."""
    try:
        client.unregister_system_shared_memory(name, client_timeout=UNREGISTER_SECONDS)
    except InferenceServerException as error:
        is_used = "in use" in (error.message() or "")
        return not is_used and error.status() not in ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE")
    return True
