"""config.pbtxt of each target, read back by the definition that Triton itself uses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from node.errors import ContractError, SettingsError
from node.inference.triton_config import write_config
from node.inference.triton_targets import PRIORITIES, TARGETS, priority_of, target_of
from node.inference.warm_up import write_sample
from tests.models import make_tiny_model, make_tiny_phrase_models

HEIGHT, WIDTH = 152, 96


def config_of(folder: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "exam_encoder", height=HEIGHT, width=WIDTH)


def exam() -> dict[str, np.ndarray]:
    views = np.random.default_rng(1).integers(0, 256, (4, 1, HEIGHT, WIDTH)).astype(np.uint8)
    return {"views": views, "present": np.array([True, True, False, True])}


@pytest.mark.parametrize(
    ("name", "backend", "file", "kind", "instances", "most", "preferred"),
    [
        ("tensorrt_plan", "tensorrt", "model.plan", "KIND_GPU", 2, 8, [4, 8]),
        ("onnxruntime", "onnxruntime", "model.onnx", "KIND_AUTO", 1, 8, [4, 8]),
        ("python", "python", "model.py", "KIND_CPU", 1, 4, [2]),
    ],
)
def test_a_target_s_row_is_what_triton_reads(
    folder: Path, name: str, backend: str, file: str, kind: str, instances: int, most: int, preferred: list[int]
) -> None:
    write_config(folder, target_of(name))
    config = config_of(folder)
    group = config.instance_group[0]
    assert (config.backend, config.default_model_filename, config.max_batch_size) == (backend, file, most)
    assert (model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind), group.count) == (kind, instances)
    assert list(config.dynamic_batching.preferred_batch_size) == preferred
    assert config.version_policy.latest.num_versions == 1


@pytest.mark.parametrize("name", list(TARGETS))
def test_queues_by_priority(folder: Path, name: str) -> None:
    write_config(folder, target_of(name))
    batching = config_of(folder).dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (3, 2)
    policies = {level: batching.priority_queue_policy[level] for level in (1, 2, 3)}
    assert [policies[level].default_timeout_microseconds for level in (1, 2, 3)] == [
        20_000_000,
        60_000_000,
        180_000_000,
    ]
    assert [policies[level].max_queue_size for level in (1, 2, 3)] == [32, 64, 16]
    assert all(one.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT for one in policies.values())
    assert all(one.allow_timeout_override for one in policies.values())


@pytest.mark.parametrize(("rule", "level"), [(0, 1), (2, 1), (3, 2), (6, 2), (7, 3), (9, 3)])
def test_a_rule_s_priority_has_its_level(rule: int, level: int) -> None:
    assert priority_of(rule).level == level
    assert [one.level for one in PRIORITIES] == [1, 2, 3]


def test_a_plan_has_cuda_graphs_for_whole_batches_of_fixed_shapes(tmp_path: Path) -> None:
    make_tiny_phrase_models(tmp_path, height=HEIGHT, width=WIDTH)
    for name in ("exam_encoder", "exam_query"):
        write_config(tmp_path / name, TARGETS["tensorrt_plan"])
    cuda = config_of(tmp_path / "exam_encoder").optimization.cuda
    assert cuda.graphs
    assert [spec.batch_size for spec in cuda.graph_spec] == [1, 4, 8]
    assert list(cuda.graph_spec[0].input["views"].dim) == [4, 1, HEIGHT, WIDTH]
    assert not config_of(tmp_path / "exam_query").optimization.cuda.graphs  # any number of phrases


def test_models_on_one_processor_take_turns(tmp_path: Path) -> None:
    make_tiny_phrase_models(tmp_path, height=HEIGHT, width=WIDTH)
    limits = {}
    for name in ("exam_encoder", "exam_query", "text_encoder"):
        limits[name] = config_of(tmp_path / name).instance_group[0].rate_limiter
    assert {limit.resources[0].name for limit in limits.values()} == {"cpu"}
    assert limits["exam_encoder"].priority < limits["text_encoder"].priority < limits["exam_query"].priority


def test_labels_of_the_metrics_say_which_model_it_is(folder: Path) -> None:
    tags = dict(config_of(folder).metric_tags)
    assert tags["release"] == "0.0.1-tiny"
    assert tags["precision"] == "f32"
    assert len(tags["weights"]) == 12


@pytest.mark.parametrize("name", ["tensorrt_plan", "onnxruntime"])
def test_warm_up_is_the_sample_s_own_numbers(folder: Path, name: str) -> None:
    sample = exam()
    write_sample(folder, sample)
    write_config(folder, target_of(name))
    warm_up = config_of(folder).model_warmup[0]
    assert warm_up.inputs["views"].input_data_file == "views"
    assert list(warm_up.inputs["views"].dims) == [4, 1, HEIGHT, WIDTH]
    views = np.fromfile(folder / "warmup/views", np.float32).reshape(4, 1, HEIGHT, WIDTH)
    np.testing.assert_allclose(views * 255, sample["views"], atol=1e-4)
    np.testing.assert_array_equal(np.fromfile(folder / "warmup/present", np.bool_), sample["present"])


def test_without_a_sample_there_is_no_warm_up(folder: Path) -> None:
    write_config(folder, TARGETS["tensorrt_plan"])
    assert not config_of(folder).model_warmup


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda sample: {"views": sample["views"]}, "is no sample of views, present"),
        (lambda sample: sample | {"views": sample["views"][:3]}, r"views has shape \(3, 1, 152, 96\)"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(folder: Path, spoil: object, words: str) -> None:
    write_sample(folder, spoil(exam()))  # type: ignore[operator]
    with pytest.raises(ContractError, match=words):
        write_config(folder, TARGETS["onnxruntime"])


def test_versions_served_together_carry_their_contracts(folder: Path, tmp_path: Path) -> None:
    newer = make_tiny_model(tmp_path / "newer", height=HEIGHT, width=WIDTH, contract={"version": "0.0.2-tiny"})
    (newer / "1").rename(folder / "2")
    write_config(folder, keep=2)
    config = config_of(folder)
    assert config.version_policy.latest.num_versions == 2
    assert "0.0.2-tiny" in config.parameters["contract"].string_value
    assert "0.0.1-tiny" in config.parameters["contract.1"].string_value
    write_config(folder)
    assert config_of(folder).version_policy.latest.num_versions == 1
    assert "contract.1" not in config_of(folder).parameters


def test_versions_with_other_tensors_cannot_share_a_name(folder: Path, tmp_path: Path) -> None:
    kinds = ("mass", "suspicious_calcification", "architectural_distortion", "asymmetry")
    (make_tiny_model(tmp_path / "newer", height=HEIGHT, width=WIDTH, kinds=kinds) / "1").rename(folder / "2")
    with pytest.raises(ContractError, match="version 1 has other tensors than the highest"):
        write_config(folder, keep=2)


def test_a_contract_that_does_not_fit_its_graph_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "exam_encoder", height=HEIGHT, width=WIDTH, contract={"embed_dim": 9})
    with pytest.raises(ContractError, match=r"tensor exam_embedding has shape \(-1, 8\); the contract says \(-1, 9\)"):
        write_config(folder)


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(SettingsError, match="target is openvino; known are tensorrt_plan, onnxruntime, python"):
        target_of("openvino")


def test_the_command_ends_with_words_alone(folder: Path) -> None:
    (folder / "1/model.onnx").write_bytes(b"\x00broken")
    command = [sys.executable, "-m", "node.inference.triton_config", str(folder), "--target", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: model: model.onnx cannot be read as ONNX"
    assert "Traceback" not in done.stderr
