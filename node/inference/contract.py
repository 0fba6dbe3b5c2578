"""A model's contract as JSON, and what must hold before the node uses the model (contract, version 1)."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from node.errors import ContractError, SettingsError
from node.mammography.contract import CONTRACT_VERSION, Calibration, ModelContract, OperatingPoint
from node.mammography.findings import FindingKind
from node.mammography.pixels import preset
from node.mammography.views import STANDARD_VIEWS

T = TypeVar("T")

REQUIRED_OUTPUTS = ("exam_logit", "exam_embedding")
OPTIONAL_OUTPUTS = ("breast_logits", "finding_logits", "heatmaps", "view_embeddings", "density_logits")
FIRST_FINDINGS = (FindingKind.MASS, FindingKind.SUSPICIOUS_CALCIFICATION)
VIEW_ORDER = tuple(view.name for view in STANDARD_VIEWS)
WIRE_TYPES = ("float32", "float16", "uint8")


def contract_to_json(contract: ModelContract) -> str:
    """ASCII JSON with the fields of `ModelContract` by name, enums by value; what `contract_from_json` reads."""
    return json.dumps(asdict(contract), indent=1)


def contract_from_json(text: str) -> ModelContract:
    """The checked contract. Raises ContractError naming the field that is missing, unknown, mistyped or refused."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ContractError(f"contract: not JSON: {error}") from error
    fields = _Fields(document, "")
    version = fields.take("contract_version", _integer)
    if version != CONTRACT_VERSION:
        raise _refusal("contract_version", f"is {version}; this node understands {CONTRACT_VERSION}")
    contract = ModelContract(
        contract_version=version,
        name=fields.take("name", _text),
        version=fields.take("version", _text),
        preset=fields.take("preset", _text),
        views=fields.take("views", _texts),
        findings=tuple(_finding(name, "findings") for name in fields.take("findings", _texts)),
        outputs=fields.take("outputs", _texts),
        input_shape=fields.take("input_shape", _integer_pair),
        wire_type=fields.take("wire_type", _text),
        embed_dim=fields.take("embed_dim", _integer),
        heatmap_shape=fields.take("heatmap_shape", _integer_pair),
        heatmap_stride=fields.take("heatmap_stride", _number_pair),
        heatmap_offset=fields.take("heatmap_offset", _number_pair),
        calibration=fields.take("calibration", _calibrations),
        operating_points=fields.take("operating_points", _operating_points),
        calibrated_on_patients=fields.take("calibrated_on_patients", _flag),
        weights_hash=fields.take("weights_hash", _text),
        text_space=fields.take("text_space", _optional_text),
        variant=fields.take("variant", _text),
    )
    fields.finish()
    check_contract(contract)
    return contract


def check_contract(contract: ModelContract) -> None:
    """Raises ContractError naming the first field whose value the node cannot work with."""
    for field in ("name", "version", "variant"):
        if not 0 < len(getattr(contract, field)) <= 64:  # they become DICOM Long Strings (PS3.5 6.2)
            raise _refusal(field, "must have 1 to 64 characters")
    if not re.fullmatch(r"[0-9a-f]{64}", contract.weights_hash):
        raise _refusal("weights_hash", "is no SHA-256 in 64 lower-case hexadecimal digits")
    if contract.text_space == "":
        raise _refusal("text_space", "is empty; null says that the model has none")
    _check_axes(contract)
    _check_input(contract)
    _check_heatmap_grid(contract)
    _check_calibration(contract)
    _check_operating_points(contract)


def _check_axes(contract: ModelContract) -> None:
    if contract.views != VIEW_ORDER:
        raise _refusal("views", f"are {', '.join(contract.views)}; the view axis is {', '.join(VIEW_ORDER)}")
    if contract.findings[:2] != FIRST_FINDINGS:
        raise _refusal("findings", f"must begin {', '.join(FIRST_FINDINGS)}")
    if len(set(contract.findings)) != len(contract.findings):
        raise _refusal("findings", "names one twice")
    for name in contract.outputs:
        if name not in REQUIRED_OUTPUTS + OPTIONAL_OUTPUTS or contract.outputs.count(name) > 1:
            raise _refusal("outputs", f"{name} is unknown or named twice")
    for name in REQUIRED_OUTPUTS:
        if name not in contract.outputs:
            raise _refusal("outputs", f"{name} is required")
    if contract.embed_dim < 1:
        raise _refusal("embed_dim", f"is {contract.embed_dim}; it must be positive")


def _check_input(contract: ModelContract) -> None:
    try:
        wanted = preset(contract.preset)
    except SettingsError as error:
        raise _refusal("preset", str(error)) from error
    if contract.input_shape != (wanted.height, wanted.width):
        raise _refusal("input_shape", f"is {contract.input_shape}; {wanted.name} gives {wanted.height, wanted.width}")
    if contract.wire_type not in WIRE_TYPES:
        raise _refusal("wire_type", f"is {contract.wire_type}; known are {', '.join(WIRE_TYPES)}")
    if contract.wire_type == "uint8" and not wanted.eight_bit:
        raise _refusal("wire_type", f"is uint8, but {wanted.name} is no 8-bit preset")


def _check_heatmap_grid(contract: ModelContract) -> None:
    if min(contract.heatmap_shape) < 1:
        raise _refusal("heatmap_shape", f"is {contract.heatmap_shape}; both must be positive")
    for axis, size in enumerate(contract.input_shape):
        stride, offset = contract.heatmap_stride[axis], contract.heatmap_offset[axis]
        if stride <= 0:
            raise _refusal("heatmap_stride", f"is {contract.heatmap_stride}; both must be positive")
        last = offset + stride * (contract.heatmap_shape[axis] - 1)
        if offset < -stride or last > size + stride:  # padding may shift border cells out, never by a whole cell
            raise _refusal("heatmap_offset", f"puts cells at {offset:g} to {last:g} of {size} model pixels")


def _check_calibration(contract: ModelContract) -> None:
    wanted = {"exam_logit", "breast_logits"} & set(contract.outputs)
    if "finding_logits" in contract.outputs:
        wanted |= {f"finding_logits.{kind.value}" for kind in contract.findings}
    _check_keys("calibration", set(contract.calibration), wanted)
    for name, calibration in contract.calibration.items():
        if not (math.isfinite(calibration.a) and calibration.a > 0 and math.isfinite(calibration.b)):
            raise _refusal(f"calibration.{name}", "needs a > 0 and both a and b finite")
        if not 0 < calibration.prevalence < 1:
            raise _refusal(f"calibration.{name}.prevalence", f"is {calibration.prevalence}; it lies between 0 and 1")
        if not calibration.dataset:
            raise _refusal(f"calibration.{name}.dataset", "is empty")


def _check_operating_points(contract: ModelContract) -> None:
    localises = {"finding_logits", "heatmaps"} <= set(contract.outputs)
    wanted = {kind.value for kind in contract.findings} if localises else set()
    _check_keys("operating_points", {kind.value for kind in contract.operating_points}, wanted)
    for kind, point in contract.operating_points.items():
        if not 0 <= point.probability <= 1:
            raise _refusal(f"operating_points.{kind.value}.probability", f"is {point.probability}; it lies in [0, 1]")
        if not (math.isfinite(point.heat) and point.heat > 0):
            raise _refusal(f"operating_points.{kind.value}.heat", f"is {point.heat}; it must be positive")


def _check_keys(field: str, found: set[str], wanted: set[str]) -> None:
    for name in sorted(wanted - found):
        raise _refusal(f"{field}.{name}", "is missing")
    for name in sorted(found - wanted):
        raise _refusal(f"{field}.{name}", "belongs to no output or finding of this model")


def _refusal(field: str, what: str) -> ContractError:
    return ContractError(f"contract: {field}: {what}")


class _Fields:
    """A JSON object whose keys are taken one by one, and of which nothing may be left over."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _refusal(path or "document", "must be an object")
        self._left, self._path = dict(value), path

    def take(self, key: str, read: Callable[[Any, str], T]) -> T:
        path = f"{self._path}.{key}".lstrip(".")
        if key not in self._left:
            raise _refusal(path, "is missing")
        return read(self._left.pop(key), path)

    def finish(self) -> None:
        for key in self._left:
            raise _refusal(f"{self._path}.{key}".lstrip("."), "is unknown")


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _refusal(path, "must be a string")
    return value


def _optional_text(value: Any, path: str) -> str | None:
    return None if value is None else _text(value, path)


def _flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _refusal(path, "must be true or false")
    return value


def _integer(value: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refusal(path, "must be an integer")
    return value


def _number(value: Any, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _refusal(path, "must be a finite number")
    return float(value)


def _texts(value: Any, path: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _refusal(path, "must be a list of strings")
    return tuple(_text(item, path) for item in value)


def _integer_pair(value: Any, path: str) -> tuple[int, int]:
    first, second = _pair(value, path)
    return _integer(first, path), _integer(second, path)


def _number_pair(value: Any, path: str) -> tuple[float, float]:
    first, second = _pair(value, path)
    return _number(first, path), _number(second, path)


def _pair(value: Any, path: str) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise _refusal(path, "must be a list of two numbers (y, x)")
    return value[0], value[1]


def _finding(name: str, path: str) -> FindingKind:
    try:
        return FindingKind(name)
    except ValueError as error:
        raise _refusal(path, f"{name} is no finding that this node knows") from error


def _calibrations(value: Any, path: str) -> dict[str, Calibration]:
    result = {}
    for name, fields in _members(value, path):
        result[name] = Calibration(
            a=fields.take("a", _number),
            b=fields.take("b", _number),
            dataset=fields.take("dataset", _text),
            prevalence=fields.take("prevalence", _number),
        )
        fields.finish()
    return result


def _operating_points(value: Any, path: str) -> dict[FindingKind, OperatingPoint]:
    result = {}
    for name, fields in _members(value, path):
        point = OperatingPoint(probability=fields.take("probability", _number), heat=fields.take("heat", _number))
        fields.finish()
        result[_finding(name, path)] = point
    return result


def _members(value: Any, path: str) -> list[tuple[str, _Fields]]:
    if not isinstance(value, dict):
        raise _refusal(path, "must be an object")
    return [(name, _Fields(member, f"{path}.{name}")) for name, member in value.items()]
