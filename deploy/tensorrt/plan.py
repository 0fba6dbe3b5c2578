"""A derived model's ONNX -> 1/model.plan by trtexec, and what the plan was built by and for, in plan.json beside it.

A plan runs only under the TensorRT that built it, on a card of the same compute capability: `check` says whether this
machine is such a one. Runs with Python's own library, inside NVIDIA's container.
"""

import hashlib
import json
import re
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BUILD, PLAN_FACTS = "build.json", "plan.json"
LIBRARY = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+)")
BUILD_SECONDS = 3600


class PlanError(Exception):
    """Something is missing or does not fit; the words say what, and the cure."""


@dataclass(frozen=True)
class Machine:
    """Where a plan is built or run."""

    gpu: str
    capability: str
    driver: str
    tensorrt: str


@dataclass(frozen=True)
class Line:
    """One line of a check."""

    passed: bool
    words: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.words}"


def this_machine() -> Machine:
    """The first GPU and the TensorRT of this machine. Raises PlanError."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise PlanError("no NVIDIA driver here (nvidia-smi is missing); run this on the GPU host") from error
    row = [part.strip() for part in done.stdout.partition("\n")[0].split(",")]
    if done.returncode or len(row) != 3:
        raise PlanError(f"nvidia-smi finds no GPU: {(done.stderr or done.stdout).strip()}")
    gpu, capability, driver = row
    return Machine(gpu, capability, driver, tensorrt_version())


def tensorrt_version() -> str:
    """Of the TensorRT library that the loader finds. Raises PlanError."""
    try:
        listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, timeout=60).stdout
    except OSError as error:
        raise PlanError("ldconfig is missing; the version of TensorRT cannot be told") from error
    version = version_in(str(Path(line.rpartition("=> ")[2]).resolve()) for line in listed.splitlines())
    if version is None:
        raise PlanError(
            "no TensorRT here (libnvinfer.so is not found); run this in NVIDIA's tritonserver or tensorrt container"
        )
    return version


def version_in(paths: Any) -> str | None:
    """The version in the first path that is TensorRT's library."""
    return next((found.group(1) for path in paths if (found := LIBRARY.search(path))), None)


def read_build(folder: Path) -> dict[str, Any]:
    """build.json of a derived model whose ONNX is the one that it names. Raises PlanError."""
    try:
        facts: dict[str, Any] = json.loads((folder / BUILD).read_text(encoding="utf-8"))
        wanted, found = facts["onnx_sha256"], sha256_of(folder / "1/model.onnx")
        for shape in facts["inputs"].values():
            if not len(shape["min"]) == len(shape["opt"]) == len(shape["max"]):
                raise PlanError(f"{folder / BUILD}: shapes of unequal length; derive the model again")
    except OSError as error:
        raise PlanError(f"{error.filename}: {error.strerror}; derive the model with scripts/compile compile") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"{folder / BUILD}: cannot be understood ({error}); derive the model again") from error
    if wanted != found:
        raise PlanError(f"{folder}/1/model.onnx: is not the one that {BUILD} was written for; derive the model again")
    return facts


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def shapes_option(inputs: dict[str, Any], bound: str) -> str:
    """As trtexec writes shapes: views:1x4x1x760x456,present:1x4."""
    return ",".join(f"{name}:{'x'.join(map(str, shape[bound]))}" for name, shape in inputs.items())


def build_command(trtexec: str, folder: Path, facts: dict[str, Any], options: str, cache: Path | None) -> list[str]:
    """trtexec's command line. `options`: what trtexec --help prints, which differs between its versions."""
    command = [
        trtexec,
        f"--onnx={folder / '1/model.onnx'}",
        f"--saveEngine={folder / '1/model.plan'}",
        *(f"--{bound}Shapes={shapes_option(facts['inputs'], bound)}" for bound in ("min", "opt", "max")),
        "--skipInference",
    ]
    if "--stronglyTyped" in options:  # TensorRT 10; from 11 on nothing else is left
        command.append("--stronglyTyped")
    return command + ([f"--timingCacheFile={cache}"] if cache is not None else [])


def find_trtexec(given: str | None) -> str:
    """Its path. Raises PlanError."""
    for candidate in [given] if given else ["trtexec", "/usr/src/tensorrt/bin/trtexec"]:
        if found := shutil.which(candidate):
            return found
    raise PlanError(
        f"{given or 'trtexec'}: not found; it is in NVIDIA's tensorrt container of the same release as tritonserver's"
    )


def build(folder: Path, trtexec: str | None, cache: Path | None) -> Line:
    """Write 1/model.plan and plan.json. Raises PlanError."""
    facts, program, machine = read_build(folder), find_trtexec(trtexec), this_machine()
    options = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60).stdout
    began = time.monotonic()
    command = build_command(program, folder, facts, options, cache)
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS)
    plan = folder / "1/model.plan"
    (folder / "1/build.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode or not plan.exists():
        last = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line][-3:]
        raise PlanError(f"trtexec built no plan, see {folder}/1/build.log: {' '.join(last)}")
    seconds = time.monotonic() - began
    written = asdict(machine) | {"onnx_sha256": facts["onnx_sha256"], "precision": facts["precision"]}
    (folder / PLAN_FACTS).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return Line(True, f"{folder.name}: plan of {plan.stat().st_size / 1e6:.1f} MB built in {seconds:.0f} s")


def check(folder: Path, machine: Machine) -> list[Line]:
    """Whether the folder's plan runs on `machine`. Raises PlanError where there is none."""
    try:
        built = json.loads((folder / PLAN_FACTS).read_text(encoding="utf-8"))
        facts = read_build(folder)
        pairs = [
            ("TensorRT", built["tensorrt"], machine.tensorrt, "build the plan again with the TensorRT of this Triton"),
            ("compute capability", built["capability"], machine.capability, "build the plan on this card"),
            (
                "ONNX",
                built["onnx_sha256"][:12],
                facts["onnx_sha256"][:12],
                "the model has changed; build the plan again",
            ),
        ]
    except OSError as error:
        raise PlanError(f"{error.filename}: {error.strerror}; build the plan with deploy/tensorrt/build") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{folder / PLAN_FACTS}: cannot be understood ({error}); build the plan again") from error
    if not (folder / "1/model.plan").exists():
        raise PlanError(f"{folder}/1/model.plan: is missing; build it with deploy/tensorrt/build")
    return [
        Line(was == is_now, f"{folder.name}: {what} {was}" + ("" if was == is_now else f", here {is_now}: {cure}"))
        for what, was, is_now, cure in pairs
    ]
