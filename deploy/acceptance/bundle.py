"""What `python -m training acceptance` writes and a GPU host reads: exams, answers, truth, the derived model.

bundle.json      what the model is, its calibration, how much a variant may differ, shapes
reference.npz    outputs of the model in float32, and truth, of all exams
exams/0007.views, exams/0007.present    inputs of one exam as raw numbers
models/exam_encoder/    the derived model, where the plan is built
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.tensorrt.plan import PlanError
from node.inference.agreement import Calibrated, ExamOutputs, Limits, Truth

FACTS, REFERENCE, EXAMS, MODEL = "bundle.json", "reference.npz", "exams", "models/exam_encoder"
OUTPUTS = ("exam_logit", "breast_logits", "finding_logits", "heatmaps")
Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Bundle:
    """One bundle, read and checked."""

    folder: Path
    exams: int
    findings: tuple[str, ...]
    calibration: dict[str, Calibrated]
    limits: Limits
    inputs: dict[str, dict[str, Any]]
    """By name: type, and shapes min, opt, max."""
    weights_hash: str
    reference: ExamOutputs
    truth: Truth

    @property
    def model(self) -> Path:
        """The derived model's folder."""
        return self.folder / MODEL

    def input_file(self, exam: int, name: str) -> Path:
        """One input of one exam."""
        return self.folder / EXAMS / f"{exam:04d}.{name}"

    def inputs_of(self, exam: int) -> dict[str, NDArray[Any]]:
        """One exam as a batch of one. Raises PlanError."""
        result = {}
        for name, shape in self.inputs.items():
            try:
                values = np.fromfile(self.input_file(exam, name), shape["type"])
                result[name] = values.reshape([1, *shape["min"][1:]])
            except (OSError, ValueError) as error:
                raise PlanError(f"{self.input_file(exam, name)}: {error}; make the bundle again") from error
        return result


def read_bundle(folder: Path) -> Bundle:
    """Raises PlanError where something is missing or does not fit."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        with np.load(folder / REFERENCE, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return Bundle(
            folder=folder,
            exams=len(arrays["exam_logit"]),
            findings=tuple(facts["findings"]),
            calibration={name: Calibrated(one["a"], one["b"]) for name, one in facts["calibration"].items()},
            limits=Limits(**facts["limits"]),
            inputs=facts["inputs"],
            weights_hash=facts["weights_hash"],
            reference=outputs_of(arrays),
            truth=Truth(arrays["truth_exam"], arrays["truth_breasts"], arrays["truth_findings"]),
        )
    except OSError as error:
        raise PlanError(
            f"{error.filename}: {error.strerror}; make a bundle with python -m training acceptance"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise PlanError(f"{folder}: is no bundle ({error}); make it with python -m training acceptance") from error


def outputs_of(arrays: Outputs) -> ExamOutputs:
    """Those that are compared."""
    found = [None if name not in arrays else np.asarray(arrays[name], np.float32) for name in OUTPUTS]
    if found[0] is None:
        raise PlanError("the model gave no exam_logit")
    return ExamOutputs(found[0].reshape(-1), *found[1:])
