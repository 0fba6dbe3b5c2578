"""A real Triton that changes under the node: another version, a killed process, a restart; no exam is lost."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from node import pipeline
from node.database.readings import readings_of
from node.errors import InferenceUnavailableError, NodeError
from node.exam import ExamStatus
from node.inference.openvino_model import OpenVinoModel
from node.inference.triton_config import write_config
from node.inference.triton_model import TritonModel
from node.mammography.contract import Prediction
from node.settings import InferenceSettings
from tests import mammograms
from tests.integration.desk import Desk
from tests.integration.triton_exams import EVERY, HEIGHT, WIDTH, change, differ, some_views
from tests.integration.triton_server import Repository, TritonServer, install_triton
from tests.models import make_tiny_model
from tests.servers import wait_until

SLOWER = """
    def execute(self, requests):
        import time
        time.sleep(0.2)
        return self.execute_at_once(requests)

    def execute_at_once("""
CLIENTS = 6


def slowed(folder: Path) -> None:
    """An inference takes long enough to be in the middle of."""
    change(folder / "1/model.py", "\n    def execute(", SLOWER)


def add_version_2(folder: Path) -> None:
    """Other weights beside the first version; Triton serves the latest of a folder and then lets go of the other."""
    make_tiny_model(folder / "new", height=HEIGHT, width=WIDTH)
    (folder / "new/1").rename(folder / "2")
    model = onnx.load(folder / "2/model.onnx")
    [slope] = [tensor for tensor in model.graph.initializer if tensor.name == "slope"]
    slope.CopyFrom(numpy_helper.from_array(np.array(5.0, np.float32), "slope"))
    contract = model.metadata_props[0]
    contract.value = contract.value.replace("0.0.1-tiny", "0.0.2-tiny")
    onnx.save(model, folder / "2/model.onnx")
    write_config(folder)


def answers_in_process(folder: Path, version: str) -> "OpenVinoModel":
    """The same version computed here."""
    alone = folder.with_name(f"{folder.name}-alone-{version}")
    make_tiny_model(alone, height=HEIGHT, width=WIDTH)
    (alone / "1/model.onnx").write_bytes((folder / version / "model.onnx").read_bytes())
    return OpenVinoModel(InferenceSettings("openvino", alone, "f32", 1, "", "", 20.0, 1))


@contextmanager
def reading(settings: InferenceSettings, seen: list[tuple[int, Prediction]], ended: list[Exception]) -> Iterator[None]:
    """Clients that read one exam after the other, each with a connection of its own, until the block ends."""
    stop = threading.Event()

    def read(client: int) -> None:
        model = TritonModel(settings)
        for number in range(client, 100_000, CLIENTS):
            if stop.is_set():
                break
            try:
                seen.append((number, model.infer(some_views(number), EVERY)))
            except NodeError as error:
                ended.append(error)
        model.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(read, client) for client in range(CLIENTS)]
        try:
            yield
        finally:
            stop.set()
        for client in clients:
            client.result(60)


def test_version_2_is_loaded_under_load_without_a_failed_exam(repository: Repository) -> None:
    settings = repository.serve("rolling")
    folder = repository.server.repository / "rolling"
    seen: list[tuple[int, Prediction]] = []
    ended: list[Exception] = []
    with reading(settings, seen, ended):
        wait_until(lambda: len(seen) > 2 * CLIENTS, 60, f"{ended}")
        add_version_2(folder)
        repository.load("rolling")
        after = len(seen)
        wait_until(lambda: len(seen) > after + 3 * CLIENTS, 60, f"{ended}")
    assert ended == []
    models = {f"0.0.{version}-tiny": answers_in_process(folder, version) for version in ("1", "2")}
    versions = []
    for number, prediction in seen:
        assert prediction.answered_by is not None
        contract, variant = prediction.answered_by
        versions.append(contract.version)
        assert variant.endswith(f"v{contract.version[4]}")
        assert differ(prediction, models[contract.version].infer(some_views(number), EVERY)) < 1e-4
    assert set(versions) == set(models)
    assert set(versions[-CLIENTS:]) == {"0.0.2-tiny"}
    assert [each.version for each in repository.server.client.get_inference_statistics("rolling").model_stats] == ["2"]


def test_a_killed_process_is_seen_by_its_answer_and_mended(repository: Repository) -> None:
    model = TritonModel(repository.serve("fragile"))
    before = model.infer(some_views(1), EVERY)
    repository.server.kill_stub("fragile")
    with pytest.raises(InferenceUnavailableError, match="process of model fragile has died"):
        model.infer(some_views(1), EVERY)
    assert repository.server.client.is_model_ready("fragile")  # what a probe of readiness alone would believe
    assert differ(model.infer(some_views(1), EVERY), before) < 1e-5  # unloaded and loaded by the node itself
    model.close()


def test_a_restart_in_the_middle_of_a_batch_loses_no_exam(desk: Desk, tmp_path: Path) -> None:
    install_triton()
    slowed(make_tiny_model(tmp_path / "models/exam_encoder", height=HEIGHT, width=WIDTH))
    studies = [desk.receive(mammograms.exam()) for _ in range(6)]
    with TritonServer(tmp_path / "models", tmp_path / "log") as server:
        settings = InferenceSettings("triton", tmp_path, "f32", 1, server.url, "exam_encoder", 10.0, 2)
        model = TritonModel(settings)
        read(desk, model, studies[0])
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(lambda: [read(desk, model, study) for study in studies[1:]])
            time.sleep(0.3)
            server.kill()
            rest.result(60)
        waiting = [study for study in studies if desk.exam(study).status is ExamStatus.READY]
        assert waiting
        assert all("Triton at" in desk.exam(study).reason for study in waiting)
        server.start()
        later, ends = datetime.now(UTC), time.monotonic() + 90
        while waiting:
            later += timedelta(minutes=2)  # past every due_at
            for study in waiting:
                read(desk, model, study, later)
            waiting = [study for study in waiting if desk.exam(study).status is ExamStatus.READY]
            assert time.monotonic() < ends, [desk.exam(study).reason for study in waiting]
            time.sleep(0.5)  # the server is probed every few seconds of real time
        model.close()
    for study in studies:
        assert desk.exam(study).status not in (ExamStatus.FAILED, ExamStatus.SKIPPED)
        assert len(readings_of(desk.database, study)) == 1


def read(desk: Desk, model: TritonModel, study: str, now: datetime | None = None) -> None:
    """What a worker's task does, at that time."""
    when = now or datetime.now(UTC)
    leased = pipeline.lease(desk.bench, study, when)
    if leased is None:
        return
    try:
        pipeline.read_exam(desk.bench, leased, lambda: model)
    except NodeError as error:
        pipeline.give_up(desk.bench, leased, error, when)
