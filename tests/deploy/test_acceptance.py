"""What a GPU host is tried with, as far as it runs without one: bundle, comparison, words, forms of trtexec."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deploy.acceptance.answers import answers_of_file, parse_outputs, plan_command
from deploy.acceptance.bundle import read_bundle
from deploy.acceptance.speed import speed_of
from deploy.tensorrt.plan import Machine, PlanError, build_command, check, read_build, shapes_option, version_in
from node.inference.triton_targets import TARGETS
from tests.models import make_tiny_model
from training.acceptance import write_bundle
from training.cache import CachedExam, TruthBox, save_exam
from training.derived import derive

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH, EXAMS = 152, 96, 8
HERE = Machine("NVIDIA L4", "8.9", "570.1", "10.9.0")


def phantom(seed: int) -> CachedExam:
    """A soft breast, and in every second exam a blob that is a malignant mass of the right breast."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    breast = (y / HEIGHT - 0.5) ** 2 * 4 + (x / WIDTH) ** 2 < 0.8
    images = np.repeat((breast * 90)[None], 4, 0) + generator.integers(0, 12, (4, HEIGHT, WIDTH)) * breast
    sick, boxes = seed % 2 == 1, []
    for view in (0, 2) if sick else ():
        top, left = generator.integers(50, 90), generator.integers(20, 50)
        images[view] += (120 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 60)).astype(images.dtype)
        boxes.append(TruthBox(view, 0, True, int(left) - 8, int(top) - 8, int(left) + 8, int(top) + 8))
    flags = np.zeros((4, HEIGHT, WIDTH), np.uint8)
    return CachedExam(seed, images.clip(0, 255).astype(np.uint8), flags, tuple(boxes), (sick, False), 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, a model, the same derived in float32 for tensorrt_plan, and the bundle of both."""
    root = tmp_path_factory.mktemp("acceptance")
    make_tiny_model(root / "model", height=HEIGHT, width=WIDTH)
    derive(root / "model", root / "derived", TARGETS["tensorrt_plan"], "f32")
    (root / "cache").mkdir()
    for seed in range(EXAMS):
        save_exam(root / "cache", phantom(seed))
    write_bundle(root / "model", root / "derived", root / "cache", (0, EXAMS), root / "bundle", threads=1)
    return root


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.acceptance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def spoiled(file: Path, out: Path, initialiser: str, value: float) -> Path:
    """The same graph with another number in it."""
    graph = onnx.load(file)
    for tensor in graph.graph.initializer:
        if tensor.name == initialiser:
            tensor.CopyFrom(numpy_helper.from_array(np.float32(value), initialiser))
    onnx.save(graph, out)
    return out


def test_a_bundle_holds_inputs_reference_and_truth(made: Path) -> None:
    bundle = read_bundle(made / "bundle")
    assert bundle.exams == EXAMS
    assert bundle.truth.exam.tolist() == [seed % 2 == 1 for seed in range(EXAMS)]
    assert bundle.truth.findings[1, :, 0].tolist() == [True, False, True, False]
    assert bundle.inputs_of(3)["views"].shape == (1, 4, 1, HEIGHT, WIDTH)
    answers = answers_of_file(bundle, bundle.model / "1/model.onnx")
    np.testing.assert_allclose(answers.exam, bundle.reference.exam, atol=1e-5)


def test_the_same_network_passes_line_by_line(made: Path, tmp_path: Path) -> None:
    bundle = made / "bundle"
    done = run(bundle, "--onnx", bundle / "models/exam_encoder/1/model.onnx", "--out", tmp_path / "report.json")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines[-1] == "PASS"
    assert all(line.startswith("PASS  ") for line in lines[:-1])
    assert any(line.startswith("PASS  area under the curve of exam_logit +0.0000 (within") for line in lines)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"]
    assert report["agreement"]["exams"] == EXAMS


def test_another_network_fails_with_the_numbers(made: Path, tmp_path: Path) -> None:
    other = spoiled(made / "bundle/models/exam_encoder/1/model.onnx", tmp_path / "other.onnx", "middle", -2.0)
    done = run(made / "bundle", "--onnx", other)
    assert done.returncode == 1
    assert "FAIL  mean change of probability 0." in done.stdout
    assert "(at most 0.001)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("FAIL: ")


def test_without_a_gpu_the_words_say_where_to_run(made: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU here")
    done = run(made / "bundle")
    assert done.returncode == 1
    assert "error: no NVIDIA driver here (nvidia-smi is missing); run this on the GPU host" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "error: nowhere/bundle.json: No such file or directory; make a bundle with"),
        (["BUNDLE", "--onnx", "nothing.onnx"], "error: nothing.onnx: ONNX Runtime: "),
        (["BUNDLE", "--triton", "127.0.0.1:1"], "error: Triton at 127.0.0.1:1: "),
    ],
)
def test_what_is_missing_is_named(made: Path, arguments: list[str], words: str) -> None:
    done = run(*[made / "bundle" if one == "BUNDLE" else one for one in arguments])
    assert done.returncode == 1
    assert words in done.stdout
    assert "Traceback" not in done.stderr


def test_two_sources_at_once_are_refused(made: Path) -> None:
    done = run(made / "bundle", "--onnx", "a", "--triton", "b")
    assert done.returncode == 2
    assert "give --triton or --onnx, not both" in done.stderr


def test_a_bundle_without_an_exam_is_named(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "bundle", tmp_path / "bundle")
    (tmp_path / "bundle/exams/0002.views").write_bytes(b"short")
    with pytest.raises(PlanError, match=r"0002\.views: .*make the bundle again"):
        read_bundle(tmp_path / "bundle").inputs_of(2)
    (tmp_path / "bundle/reference.npz").write_bytes(b"nothing")
    with pytest.raises(PlanError, match="is no bundle"):
        read_bundle(tmp_path / "bundle")


def test_trtexec_is_told_shapes_and_types(made: Path) -> None:
    facts = read_build(made / "derived")
    command = build_command("trtexec", made / "derived", facts, "  --stronglyTyped  Create", Path("cache"))
    assert f"--optShapes=views:4x4x1x{HEIGHT}x{WIDTH},present:4x4" in command
    assert f"--maxShapes=views:8x4x1x{HEIGHT}x{WIDTH},present:8x4" in command
    assert command[-2:] == ["--stronglyTyped", "--timingCacheFile=cache"]
    assert "--stronglyTyped" not in build_command("trtexec", made / "derived", facts, "", None)  # TensorRT 11
    assert shapes_option(facts["inputs"], "min") == f"views:1x4x1x{HEIGHT}x{WIDTH},present:1x4"
    assert plan_command(read_bundle(made / "bundle"), "trtexec", 3)[-1].startswith("--shapes=views:3x4x1x")


def test_trtexec_s_files_are_understood() -> None:
    written = '[\n  { "name" : "exam_logit"\n  , "dimensions" : "2"\n  , "values" : [ 0.5, -nan ]\n  }\n]\n'
    np.testing.assert_array_equal(parse_outputs(written)["exam_logit"], np.array([0.5, np.nan], np.float32))
    times = (
        '[ { "startEnqMs" : 0.1, "computeMs" : 2.5, "latencyMs" : 3.0 }\n, { "computeMs" : 2.5, "latencyMs" : 5.0 } ]'
    )
    speed = speed_of(4, "[I] Throughput: 250.5 qps\n", times)
    assert (speed.exams_per_second, speed.p50_ms) == (1002.0, 4.0)
    with pytest.raises(PlanError, match="measured nothing"):
        speed_of(4, "", times)
    with pytest.raises(PlanError, match="outputs cannot be understood"):
        parse_outputs("[1]")


def test_the_library_s_version_is_in_its_name() -> None:
    paths = ["/lib/libcudart.so.13.0", "/usr/lib/x86_64-linux-gnu/libnvinfer.so.10.9.0"]
    assert version_in(paths) == "10.9.0"
    assert version_in(paths[:1]) is None


def test_a_plan_of_another_tensorrt_or_card_is_refused(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exam_encoder"
    shutil.copytree(made / "derived", folder)
    with pytest.raises(PlanError, match=r"plan\.json: No such file or directory; build the plan"):
        check(folder, HERE)
    facts = read_build(folder)
    built = {"tensorrt": "10.8.0", "capability": "8.6", "onnx_sha256": facts["onnx_sha256"]}
    (folder / "plan.json").write_text(json.dumps(built))
    (folder / "1/model.plan").write_bytes(b"plan")
    lines = [str(line) for line in check(folder, HERE)]
    assert lines == [
        "FAIL  exam_encoder: TensorRT 10.8.0, here 10.9.0: build the plan again with the TensorRT of this Triton",
        "FAIL  exam_encoder: compute capability 8.6, here 8.9: build the plan on this card",
        f"PASS  exam_encoder: ONNX {facts['onnx_sha256'][:12]}",
    ]


def test_an_onnx_that_was_changed_afterwards_is_refused(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exam_encoder"
    shutil.copytree(made / "derived", folder)
    spoiled(folder / "1/model.onnx", folder / "1/model.onnx", "middle", -2.0)
    with pytest.raises(PlanError, match=r"is not the one that build\.json was written for"):
        read_build(folder)


def test_the_scripts_find_their_way(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    for script in ("deploy/gpu-acceptance", "deploy/tensorrt/build"):
        done = subprocess.run([ROOT / script, "--help"], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        assert script in done.stdout
