"""What answers the exams of a bundle: a plan by trtexec, a server by Triton's client, a file by ONNX Runtime."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.acceptance.bundle import OUTPUTS, Bundle, outputs_of
from deploy.tensorrt.plan import PlanError, read_build
from node.inference.agreement import ExamOutputs

RUN_SECONDS = 600
Arrays = dict[str, NDArray[Any]]


def answers_of_plan(bundle: Bundle, trtexec: str) -> ExamOutputs:
    """The plan's, in batches as large as it takes."""
    most = next(iter(bundle.inputs.values()))["max"][0]
    rows = []
    for first in range(0, bundle.exams, most):
        chosen = range(first, min(first + most, bundle.exams))
        rows.append(_run_plan(bundle, trtexec, chosen))
    return joined(rows)


def _run_plan(bundle: Bundle, trtexec: str, exams: Sequence[int]) -> Arrays:
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name in bundle.inputs:
            files[name] = Path(folder) / name
            files[name].write_bytes(b"".join(bundle.input_file(exam, name).read_bytes() for exam in exams))
        answer = Path(folder) / "answer.json"
        command = [
            *plan_command(bundle, trtexec, len(exams)),
            f"--loadInputs={','.join(f'{name}:{file}' for name, file in files.items())}",
            f"--exportOutput={answer}",
            *("--iterations=1", "--duration=0", "--warmUp=0", "--avgRuns=1"),
        ]
        run(command)
        return parse_outputs(answer.read_text(encoding="utf-8"))


def plan_command(bundle: Bundle, trtexec: str, batch: int) -> list[str]:
    """trtexec on the bundle's plan with a batch of this size."""
    shapes = ",".join(f"{name}:{'x'.join(map(str, [batch, *one['min'][1:]]))}" for name, one in bundle.inputs.items())
    return [trtexec, f"--loadEngine={bundle.model / '1/model.plan'}", f"--shapes={shapes}"]


def run(command: list[str]) -> str:
    """What a command prints. Raises PlanError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PlanError(f"{command[0]}: {error}") from error
    if done.returncode:
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-3:]
        raise PlanError(f"{command[0]} ended with {done.returncode}: {' '.join(last)}")
    return done.stdout


def parse_outputs(written: str) -> Arrays:
    """trtexec's --exportOutput: a list of name, dimensions as 1x4x2, values. Raises PlanError."""
    try:
        document = json.loads(written.replace("-nan", "NaN").replace(" nan", " NaN").replace("inf", "Infinity"))
        return {
            one["name"]: np.array(one["values"], np.float32).reshape([int(n) for n in one["dimensions"].split("x")])
            for one in document
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"trtexec's outputs cannot be understood: {error}") from error


def answers_of_file(bundle: Bundle, file: Path) -> ExamOutputs:
    """Those of an ONNX, by ONNX Runtime with what it has: CUDA, else the CPU. Raises PlanError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PlanError("onnxruntime is not installed: pip install onnxruntime, or onnxruntime-gpu") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=onnxruntime.get_available_providers())
        names = [output.name for output in session.get_outputs()]
        rows = [dict(zip(names, session.run(names, bundle.inputs_of(at)), strict=True)) for at in range(bundle.exams)]
    except _onnxruntime_errors() as error:
        raise PlanError(f"{file}: ONNX Runtime: {str(error).partition(chr(10))[0]}") from error
    return joined(rows)


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions have no common parent but Exception; with those of numpy."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception)]
    return (RuntimeError, ValueError, *own)


def answers_of_server(bundle: Bundle, url: str, model: str) -> ExamOutputs:
    """Those of a Triton over gRPC, which must serve the bundle's weights. Raises PlanError."""
    try:
        from tritonclient import grpc
        from tritonclient.utils import InferenceServerException, np_to_triton_dtype
    except ImportError as error:
        raise PlanError("tritonclient is not installed: pip install 'tritonclient[grpc]'") from error
    client = grpc.InferenceServerClient(url)
    try:
        _check_served(bundle, client.get_model_config(model, client_timeout=30).config)
        rows = []
        for at in range(bundle.exams):
            tensors = []
            for name, value in bundle.inputs_of(at).items():
                tensor = grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
                tensor.set_data_from_numpy(value)
                tensors.append(tensor)
            result = client.infer(model, tensors, client_timeout=60)
            rows.append({name: found for name in OUTPUTS if (found := result.as_numpy(name)) is not None})
    except InferenceServerException as error:
        raise PlanError(f"Triton at {url}: {error.message()}") from error
    finally:
        client.close()
    return joined(rows)


def _check_served(bundle: Bundle, config: Any) -> None:
    try:
        served = json.loads(config.parameters["contract"].string_value)["weights_hash"]
    except (ValueError, KeyError) as error:
        raise PlanError(f"Triton: the configuration of {config.name} carries no contract") from error
    if served != bundle.weights_hash:
        raise PlanError(f"Triton serves weights {served[:12]}; the bundle is of {bundle.weights_hash[:12]}")


def joined(rows: Sequence[Arrays]) -> ExamOutputs:
    """Answers one after the other."""
    return outputs_of(
        {name: np.concatenate([row[name].reshape(_batched(name, row)) for row in rows]) for name in rows[0]}
    )


def _batched(name: str, row: Arrays) -> tuple[int, ...]:
    """Triton sends exam_logit as (B, 1)."""
    return (-1,) if name == "exam_logit" else row[name].shape


def build_facts(bundle: Bundle) -> dict[str, Any]:
    """build.json of the bundle's derived model. Raises PlanError where the bundle is of other weights."""
    facts = read_build(bundle.model)
    if facts["weights_hash"] != bundle.weights_hash:
        raise PlanError(
            f"{bundle.model}: is of weights {facts['weights_hash'][:12]}, the bundle of others; make it again"
        )
    return facts
