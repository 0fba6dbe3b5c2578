"""Warm-up on a real Triton: the sample is answered before the model is ready; what is served is accepted."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from node.inference.openvino_graph import onnx_file
from node.inference.tensors import signature_of
from node.inference.triton_config import Serving, read_contract, triton_config
from node.inference.triton_targets import TARGETS
from node.inference.warm_up import read_sample, write_files, write_sample
from node.mammography.contract import ModelContract
from tests.deploy.test_acceptance import EXAMS, HEIGHT, ROOT, WIDTH, phantom
from tests.integration.triton_server import TritonServer, install_triton
from tests.models import make_tiny_model
from training.acceptance import write_bundle
from training.cache import save_exam
from training.derived import derive


def sample(value: int = 90) -> dict[str, np.ndarray]:
    return {"views": np.full((4, 1, HEIGHT, WIDTH), value, np.uint8), "present": np.ones(4, np.bool_)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    install_triton()
    folder = tmp_path_factory.mktemp("triton_models")
    for name in ("exam_encoder", "short_sample", "raw"):
        make_tiny_model(folder / name, height=HEIGHT, width=WIDTH)
    write_sample(folder / "exam_encoder", sample())
    write_sample(folder / "short_sample", {"views": sample()["views"]})
    write_raw_warm_up(folder / "raw")
    return folder


def write_raw_warm_up(folder: Path) -> None:
    """Triton's own warm-up, as the other targets have it, with the backend that is at hand."""
    contract = read_contract(onnx_file(folder))
    assert isinstance(contract, ModelContract)
    inputs = signature_of(contract)[0]
    value = read_sample(write_sample(folder, sample()).parents[1], inputs)
    assert value is not None
    write_files(folder, value)
    serving = Serving(samples={name: one.shape for name, one in value.items()})
    (folder / "config.pbtxt").write_text(triton_config(contract, serving))


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with TritonServer(models, tmp_path_factory.mktemp("log") / "triton.log", models=("exam_encoder",)) as running:
        yield running


def test_a_sample_that_does_not_fit_keeps_the_model_from_being_ready(server: TritonServer) -> None:
    assert server.client.is_model_ready("exam_encoder")
    with pytest.raises(InferenceServerException, match="present"):
        server.client.load_model("short_sample")


def test_triton_answers_the_raw_files_before_the_model_is_ready(server: TritonServer) -> None:
    server.client.load_model("raw")
    statistics = server.client.get_inference_statistics("raw").model_stats[0]
    assert (statistics.inference_stats.success.count, statistics.inference_stats.fail.count) == (1, 0)


def test_a_served_model_is_accepted_over_the_wire(server: TritonServer, models: Path, tmp_path: Path) -> None:
    derive(models / "exam_encoder", tmp_path / "derived", TARGETS["onnxruntime"], "f32")
    (tmp_path / "cache").mkdir()
    for seed in range(EXAMS):
        save_exam(tmp_path / "cache", phantom(seed))
    write_bundle(models / "exam_encoder", tmp_path / "derived", tmp_path / "cache", (0, EXAMS), tmp_path / "bundle")
    command = [sys.executable, "-m", "deploy.acceptance", str(tmp_path / "bundle"), "--triton", server.url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "PASS"
