"""What the client makes of a real Triton: wire types, shared memory, full batches, priorities, versions."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from node import pipeline
from node.errors import InferenceUnavailableError, ModelWaitError, NodeError, NotServedError
from node.exam import ExamStatus
from node.inference import breaker, shared_memory
from node.inference.openvino_model import OpenVinoModel
from node.inference.tensors import wire_inputs
from node.inference.triton_config import write_config
from node.inference.triton_failures import error_of
from node.inference.triton_model import TritonModel
from node.owner import owner_name
from node.settings import InferenceSettings
from tests import mammograms
from tests.integration.desk import Desk
from tests.integration.triton_exams import EVERY, change, change_contract, differ, some_views
from tests.integration.triton_server import Repository, TritonServer
from tests.models import make_tiny_model

RETROSPECTIVE = 9
SLOW = """
    def execute(self, requests):
        import time
        time.sleep({seconds})
        return self.execute_at_once(requests)

    def execute_at_once("""


def slowed(seconds: float) -> Callable[[Path], None]:
    return lambda folder: change(folder / "1/model.py", "\n    def execute(", SLOW.format(seconds=seconds))


def as_bytes(folder: Path) -> None:
    """uint8 is for the 8-bit preset, which has one size."""
    make_tiny_model(folder, height=1520, width=912)
    cast(folder, TensorProto.UINT8, ("Div", ["cast", "full"]))
    change_contract(folder, "fit-1520x912", "mammo-clip")
    change_contract(folder, '"float32"', '"uint8"')
    write_config(folder)


def as_halves(folder: Path) -> None:
    cast(folder, TensorProto.FLOAT16, ("Identity", ["cast"]))
    change_contract(folder, '"float32"', '"float16"')
    write_config(folder)


def cast(folder: Path, element_type: int, then: tuple[str, list[str]]) -> None:
    """The same network behind a cast of its input."""
    model = onnx.load(folder / "1/model.onnx")
    [views] = [value for value in model.graph.input if value.name == "views"]
    views.type.tensor_type.elem_type = element_type
    model.graph.initializer.append(helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]))
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "views" else name for name in node.input]
    kind, inputs = then
    model.graph.node.insert(0, helper.make_node(kind, inputs, ["pixels"]))
    model.graph.node.insert(0, helper.make_node("Cast", ["views"], ["cast"], to=TensorProto.FLOAT))
    onnx.save(model, folder / "1/model.onnx")


def registered(server: TritonServer) -> set[str]:
    """Names of the regions that the server holds."""
    return set(server.client.get_system_shared_memory_status().regions)


def in_the_folder() -> list[Path]:
    """What this process has there."""
    return list(shared_memory.FOLDER.glob(f"{shared_memory.PREFIX}*~{os.getpid()}~*"))


@pytest.fixture(scope="module")
def plain(triton: TritonServer) -> InferenceSettings:
    return Repository(triton).serve("client")


@pytest.fixture
def model(plain: InferenceSettings) -> Iterator[TritonModel]:
    made = TritonModel(plain)
    yield made
    made.close()


@pytest.mark.parametrize(("wire_type", "changed"), [("float16", as_halves), ("uint8", as_bytes)])
def test_other_wire_types_give_what_the_same_graph_gives_in_process(
    wire_type: str, changed: Callable[[Path], None], repository: Repository
) -> None:
    settings = repository.serve(f"wire_{wire_type}", changed)
    asked, here = TritonModel(settings), OpenVinoModel(settings)
    present = np.array([True, False, True, True])
    views = np.random.default_rng(1).random((4, 1, *asked.contract.input_shape), dtype=np.float32)
    assert wire_inputs(views, present, asked.contract)["views"].dtype == np.dtype(wire_type)
    assert differ(asked.infer(views, present), here.infer(views, present)) < 1e-5
    asked.close()


def test_shared_memory_and_grpc_give_the_same_bits(plain: InferenceSettings, model: TritonModel) -> None:
    travels = TritonModel(replace(plain, shared_memory="never"))
    assert (model.server, travels.server) == ("triton 2.51.0, shared memory", "triton 2.51.0, gRPC")
    for seed in (1, 2, 1):
        assert differ(model.infer(some_views(seed), EVERY), travels.infer(some_views(seed), EVERY)) == 0
    travels.close()


def test_a_region_is_kept_for_the_next_exam_and_nothing_is_left(triton: TritonServer, plain: InferenceSettings) -> None:
    before = registered(triton)
    model = TritonModel(plain)
    for seed in range(4):
        model.infer(some_views(seed), EVERY)
    assert len(registered(triton) - before) == 1
    assert in_the_folder() == []
    model.close()
    assert registered(triton) == before


def test_a_server_that_knows_the_region_no_longer_gets_another(triton: TritonServer, model: TritonModel) -> None:
    first = model.infer(some_views(1), EVERY)
    triton.client.unregister_system_shared_memory()
    assert differ(model.infer(some_views(1), EVERY), first) == 0
    assert model.server.endswith("shared memory")


def test_memory_of_an_inference_that_was_given_up_is_not_used_again(
    triton: TritonServer, repository: Repository
) -> None:
    settings = repository.serve("late", slowed(1.0))
    here = OpenVinoModel(settings)
    others = registered(triton)
    model = TritonModel(replace(settings, urgent_deadline_seconds=0.3))
    [before] = registered(triton) - others
    with pytest.raises(InferenceUnavailableError, match=r"did not answer within 0\.3 s"):
        model.infer(some_views(1), EVERY, priority=0)
    for seed in (2, 3):
        assert differ(model.infer(some_views(seed), EVERY), here.infer(some_views(seed), EVERY)) < 1e-4
    assert before not in registered(triton)  # the server lets go of it when that inference has ended
    assert len(registered(triton) - others) == 1
    model.close()


def test_what_a_dead_process_left_is_swept(triton: TritonServer, plain: InferenceSettings) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    host, namespace, _, _ = owner_name().split("/")
    name = "~".join((shared_memory.PREFIX, host, namespace, str(gone.pid), "1", "abcd"))
    (shared_memory.FOLDER / name).write_bytes(bytes(64))
    triton.client.register_system_shared_memory(name, f"/{name}", 64)
    model = TritonModel(plain)
    assert name not in registered(triton)
    assert not (shared_memory.FOLDER / name).exists()
    model.close()


def test_without_common_memory_tensors_travel_and_the_log_says_why_once(
    plain: InferenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)  # as in a container of its own
    model = TritonModel(plain)
    model.infer(some_views(1), EVERY)
    assert model.server.endswith("gRPC")
    said = [record.getMessage() for record in caplog.records if "no shared memory" in record.getMessage()]
    assert len(said) == 1
    assert "tensors go over gRPC: " in said[0]
    with pytest.raises(
        InferenceUnavailableError, match=r"shared_memory is always, and Triton at .* cannot use it: Unable to open"
    ):
        TritonModel(replace(plain, shared_memory="always"))
    assert list(tmp_path.iterdir()) == []
    model.close()


def test_a_version_that_is_not_there(plain: InferenceSettings) -> None:
    assert TritonModel(replace(plain, triton_version="1")).variant.endswith("v1")
    with pytest.raises(NotServedError, match="serves no model client"):
        TritonModel(replace(plain, triton_version="7"))


def test_exams_of_many_clients_fill_batches_and_urgent_ones_overtake(repository: Repository) -> None:
    settings = repository.serve("busy", slowed(0.5))
    ended: list[int] = []
    full: list[ModelWaitError] = []
    models = [TritonModel(replace(settings, shared_memory="never")) for _ in range(3)]
    lock = threading.Lock()

    def read(number: int) -> None:
        try:
            models[number % 3].infer(some_views(abs(number)), EVERY, 0 if number < 0 else RETROSPECTIVE)
        except ModelWaitError as error:
            full.append(error)
        with lock:
            ended.append(number)

    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(read, number) for number in range(36)]
        urgent = pool.submit(read, -1)
        expired = _expired(repository.server, models[0])
        urgent.result(60)
        for each in waiting:
            each.result(60)
    assert ended.index(-1) < 36
    assert all("is busy: its queue for busy is full" in str(error) for error in full)
    assert full
    assert "is busy: the request waited too long in its queue for busy" in str(expired)
    [stats] = repository.server.client.get_inference_statistics("busy").model_stats
    assert max(batch.batch_size for batch in stats.batch_stats) > 1
    assert not models[0]._breaker.is_open
    for each in models:
        each.close()


def _expired(server: TritonServer, model: TritonModel) -> Exception:
    """What the node makes of a request that a full server has let wait for longer than the request allows."""
    inputs = wire_inputs(some_views(1), EVERY, model.contract)
    tensors = []
    for name, array in inputs.items():
        tensor = grpc.InferInput(name, list(array.shape), "BOOL" if name == "present" else "FP32")
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    with pytest.raises(InferenceServerException) as caught:
        server.client.infer("busy", tensors, priority=1, timeout=1)
    return error_of(str(caught.value.status()), caught.value.message(), server.url, "busy", 1.0)


def test_exams_wait_while_the_model_fails_and_are_read_after_a_probe(
    repository: Repository, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PROBE_SECONDS", 0.3)
    model = TritonModel(replace(repository.serve("vanishing"), attempts=1))
    repository.server.client.unload_model("vanishing")
    studies = [desk.receive(mammograms.exam()) for _ in range(breaker.FAILURES + 2)]
    for study in studies:
        read(desk, model, study)
    waiting = [desk.exam(study) for study in studies]
    assert {exam.status for exam in waiting} == {ExamStatus.READY}
    assert [exam.attempts for exam in waiting] == [1] * breaker.FAILURES + [0, 0]
    assert all("serves no model vanishing" in exam.reason for exam in waiting)
    assert all("the model server does not work and is probed" in exam.reason for exam in waiting[-2:])
    repository.load("vanishing")
    time.sleep(0.3)
    read(desk, model, studies[-1], datetime.now(UTC) + timedelta(minutes=2))
    assert desk.exam(studies[-1]).status is ExamStatus.READ
    model.close()


def read(desk: Desk, model: TritonModel, study: str, now: datetime | None = None) -> None:
    """What a worker's task does, at that time."""
    when = now or datetime.now(UTC)
    leased = pipeline.lease(desk.bench, study, when)
    assert leased is not None
    try:
        pipeline.read_exam(desk.bench, leased, lambda: model)
    except NodeError as error:
        pipeline.give_up(desk.bench, leased, error, when)
