"""Where tensors lie in shared memory, and what is said where there is none."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from node.inference import shared_memory
from node.inference.shared_memory import ALIGNMENT, NoSharedMemoryError, SharedTensors
from node.inference.tensors import signature_of
from node.owner import owner_name
from tests.node.inference.test_tensors import contract, valid

NOBODY = "127.0.0.1:9"


def exchange(inputs: dict[str, np.ndarray]) -> None:
    """Where no server listens: memory is made before anything is sent."""
    with InferenceServerClient(NOBODY) as client:
        SharedTensors().exchange(client, 0.5, inputs, signature_of(contract())[1], lambda tensors, wanted: None)


def test_tensors_lie_one_after_the_other_and_come_back_as_they_were() -> None:
    inputs = {"views": np.random.default_rng(1).random((1, 4, 1, 16, 8), np.float32), "present": np.ones((1, 4), bool)}
    places = shared_memory._places(inputs, signature_of(contract())[1])
    memory = mmap.mmap(-1, max(place.offset + place.size for place in places.values()))
    wanted = {**inputs, **valid()}
    for name, place in places.items():
        assert place.offset % ALIGNMENT == 0
        np.copyto(place.of(memory), wanted[name])
    assert {name: place.shape for name, place in places.items()} == {n: a.shape for n, a in wanted.items()}
    for name, place in places.items():
        np.testing.assert_array_equal(place.of(memory), wanted[name])


def test_too_little_room_is_said_and_nothing_is_left() -> None:
    before = set(shared_memory.FOLDER.glob(f"{shared_memory.PREFIX}*"))
    much = np.broadcast_to(np.float32(0), (1, 4, 1, 1_000_000, 1_000_000))
    with pytest.raises(NoSharedMemoryError, match="/dev/shm: there is no room for 16000000 MB"):
        exchange({"views": much})
    assert set(shared_memory.FOLDER.glob(f"{shared_memory.PREFIX}*")) == before


def test_a_host_without_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "absent")
    with pytest.raises(NoSharedMemoryError, match="absent: No such file or directory"):
        exchange({"views": np.zeros((1, 4, 1, 16, 8), np.float32)})


def test_only_names_of_processes_that_are_gone_are_swept() -> None:
    host, namespace, pid, started = owner_name().split("/")

    def name(*owner: str) -> str:
        return "~".join(("mammoclip", *owner, "abcd"))

    mine, gone = name(host, namespace, pid, started), name(host, namespace, pid, "1")
    elsewhere, other = name("another-host", namespace, pid, "1"), "triton_python_backend_shm_region_1"
    assert list(shared_memory._dead({mine, gone, elsewhere, other, "mammoclip"})) == [gone]
