"""A derived exam_encoder beside its model on phantoms, by ONNX Runtime on the CPU.

Half precision is rounded as it would be on a GPU, see `training.rounding`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from node.inference.agreement import LIMITS, Agreement, Calibrated, ExamOutputs, Truth, Verdict, agreement, verdicts
from node.inference.openvino_graph import onnx_file
from node.inference.triton_config import read_contract
from node.mammography.contract import ModelContract
from node.mammography.findings import FINDING_KINDS
from training.cache import cached_seeds, load_exam, load_truth, render_seeds
from training.phantoms import GENERATOR_VERSION
from training.precision import HALF, PrecisionError, expand, read_graph
from training.rounding import HALVES, rounded

NAMES = ("exam_logit", "breast_logits", "finding_logits", "heatmaps")


class Runner:
    """One graph, one exam at a time."""

    def __init__(self, graph: onnx.ModelProto, threads: int = 2) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        is_half = any(one.data_type in HALVES and not one.name.endswith(HALF) for one in graph.graph.initializer)
        data = (rounded(graph) if is_half else expand(graph)).SerializeToString()
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        return dict(zip(self.outputs, self._session.run(None, inputs), strict=True))


def compare(
    model: Path, derived: Path, cache: Path, seeds: tuple[int, int], threads: int = 2
) -> tuple[dict[str, Any], list[Verdict]]:
    """Both on `seeds` (first, count), rendered where they are missing. Raises ContractError, PrecisionError."""
    files = [onnx_file(folder) for folder in (model, derived)]
    contracts = [exam_contract(file) for file in files]
    if contracts[0].weights_hash != contracts[1].weights_hash:
        raise PrecisionError(f"{derived}: is derived from other weights than {model}")
    precision = contracts[1].variant.partition(" ")[0]
    if precision not in LIMITS:
        raise PrecisionError(f"{derived}: its variant is {contracts[1].variant}; known are {', '.join(LIMITS)}")
    render_seeds(cache, *seeds, preset_name=contracts[0].preset)
    paths = cached_seeds(cache, *seeds)
    ours, theirs = (answers_of(Runner(read_graph(file), threads), paths, contracts[0]) for file in files)
    truth = truth_of(paths, contracts[0])
    found = agreement(ours, theirs, calibration_of(contracts[0]), kinds_of(contracts[0]), truth)
    lines = verdicts(found, LIMITS[precision])
    return _table(contracts, seeds, found, lines), lines


def exam_contract(file: Path) -> ModelContract:
    """The contract of an exam_encoder. Raises ContractError, PrecisionError."""
    contract = read_contract(file)
    if not isinstance(contract, ModelContract):
        raise PrecisionError(f"{file}: is {contract.name}; exams are compared with exam_encoder")
    return contract


def kinds_of(contract: ModelContract) -> tuple[str, ...]:
    """The finding axis by name."""
    return tuple(kind.value for kind in contract.findings)


def calibration_of(contract: ModelContract) -> dict[str, Calibrated]:
    """By output."""
    return {name: Calibrated(one.a, one.b) for name, one in contract.calibration.items()}


def wire_views(images: NDArray[np.uint8], contract: ModelContract) -> NDArray[Any]:
    """Images uint8 (4, H, W) as the model takes them: (1, 4, 1, H, W)."""
    views = images[None, :, None]
    return views if contract.wire_type == "uint8" else (views / np.float32(255)).astype(contract.wire_type)


def answers_of(runner: Runner, paths: tuple[Path, ...], contract: ModelContract) -> ExamOutputs:
    """What a graph says of exams."""
    present = np.ones((1, 4), np.bool_)
    rows = [runner.run({"views": wire_views(load_exam(path).images, contract), "present": present}) for path in paths]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in NAMES if name in rows[0]}
    return ExamOutputs(joined["exam_logit"], *(joined.get(name) for name in NAMES[1:]))


def truth_of(paths: tuple[Path, ...], contract: ModelContract) -> Truth:
    """What is known of phantoms."""
    exams = [load_truth(path) for path in paths]
    breasts = np.array([exam.malignant_breasts for exam in exams], np.bool_)
    findings = np.zeros((len(exams), 4, len(contract.findings)), np.bool_)
    kinds = [FINDING_KINDS.index(kind) for kind in contract.findings]
    for number, exam in enumerate(exams):
        for box in exam.boxes:
            if box.kind in kinds:
                findings[number, box.view, kinds.index(box.kind)] = True
    return Truth(np.asarray(breasts.any(1)), breasts, findings)


def _table(
    contracts: list[ModelContract], seeds: tuple[int, int], found: Agreement, lines: list[Verdict]
) -> dict[str, Any]:
    return {
        "model": contracts[0].variant,
        "derived": contracts[1].variant,
        "version": contracts[0].version,
        "weights_hash": contracts[0].weights_hash,
        "generator": GENERATOR_VERSION,
        "seeds": list(seeds),
        **found.as_table(),
        "verdicts": [str(line) for line in lines],
    }


def write_table(file: Path, table: dict[str, Any]) -> None:
    """As JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def markdown(table: dict[str, Any]) -> str:
    """The same for people."""
    head = f"{table['derived']} beside {table['model']}, model {table['version']}, {table['exams']} phantom exams"
    rows = [f"| {line[:4]} | {line[6:]} |" for line in table["verdicts"]]
    return "\n".join([head, "", "| | |", "|---|---|", *rows]) + "\n"
