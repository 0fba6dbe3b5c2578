"""Every field of a contract is checked, and a refusal names it."""

import json
from pathlib import Path
from typing import Any

import openvino
import pytest

from node.errors import ContractError
from node.inference.contract import contract_from_json, contract_to_json
from node.inference.openvino_graph import onnx_file
from node.inference.openvino_model import read_graph
from node.mammography.findings import FindingKind
from tests.models import make_tiny_model


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"), height=152, width=96)
    graph = openvino.Core().read_model(onnx_file(folder))
    loaded: dict[str, Any] = json.loads(graph.get_rt_info(["framework", "contract"]).value)
    return loaded


def test_json_and_back(document: dict[str, Any]) -> None:
    contract = contract_from_json(json.dumps(document))
    assert contract_from_json(contract_to_json(contract)) == contract
    assert json.loads(contract_to_json(contract)) == document
    assert contract.findings == (FindingKind.MASS, FindingKind.SUSPICIOUS_CALCIFICATION)
    assert contract.heatmap_offset == (0.5, 0.5)


def test_an_8_bit_preset_may_travel_as_bytes(document: dict[str, Any]) -> None:
    changed = document | {"preset": "mammo-clip", "input_shape": [1520, 912], "heatmap_shape": [190, 114]}
    assert contract_from_json(json.dumps(changed | {"wire_type": "uint8"})).wire_type == "uint8"


REFUSED: list[tuple[str, Any, str]] = [
    ("contract_version", 2, "contract_version: is 2; this node understands 1"),
    ("contract_version", "1", "contract_version: must be an integer"),
    ("name", "", "name: must have 1 to 64"),
    ("version", "v" * 65, "version: must have 1 to 64"),
    ("version", 1.0, "version: must be a string"),
    ("variant", "", "variant: must have"),
    ("preset", "fit-big", "preset: "),
    ("preset", "fit-160x96", r"input_shape: is \(152, 96\); fit-160x96 gives \(160, 96\)"),
    ("views", ["LCC", "RCC", "LMLO", "RMLO"], "views: are LCC, RCC, LMLO, RMLO; the view axis is RCC, LCC, RMLO, LMLO"),
    ("views", "RCC LCC RMLO LMLO", "views: must be a list"),
    ("findings", ["suspicious_calcification", "mass"], "findings: must begin mass, suspicious_calcification"),
    ("findings", ["mass", "suspicious_calcification", "tumour"], "findings: tumour is no finding"),
    ("findings", ["mass", "suspicious_calcification", "mass"], "findings: names one twice"),
    ("outputs", ["exam_logit"], "outputs: exam_embedding is required"),
    ("outputs", ["exam_logit", "exam_embedding", "score"], "outputs: score is unknown"),
    ("outputs", ["exam_logit", "exam_embedding", "exam_logit"], "outputs: exam_logit is unknown or named twice"),
    ("input_shape", [152], "input_shape: must be a list of two"),
    ("input_shape", [152.0, 96], "input_shape: must be an integer"),
    ("wire_type", "uint16", "wire_type: is uint16"),
    ("wire_type", "uint8", "wire_type: is uint8, but fit-152x96 is no 8-bit preset"),
    ("embed_dim", 0, "embed_dim: is 0"),
    ("heatmap_shape", [0, 12], "heatmap_shape: "),
    ("heatmap_stride", [8, 0], "heatmap_stride: "),
    ("heatmap_stride", [16, 8], "heatmap_offset: puts cells at 0.5 to 288.5 of 152 model pixels"),
    ("heatmap_offset", [-9, 0.5], "heatmap_offset: "),
    ("heatmap_offset", [float("nan"), 0.5], "heatmap_offset: must be a finite number"),
    ("calibration", {}, r"calibration\.breast_logits: is missing"),
    ("calibration", [], "calibration: must be an object"),
    ("operating_points", {}, r"operating_points\.mass: is missing"),
    ("operating_points", {"lump": {"probability": 0.5, "heat": 1}}, "operating_points: lump is no finding"),
    ("operating_points", {"mass": {"probability": 0.5}}, r"operating_points\.mass\.heat: is missing"),
    ("calibrated_on_patients", 0, "calibrated_on_patients: must be true or false"),
    ("weights_hash", "0" * 63, "weights_hash: is no SHA-256"),
    ("weights_hash", "A" * 64, "weights_hash: is no SHA-256"),
    ("text_space", "", "text_space: is empty"),
    ("text_space", 7, "text_space: must be a string"),
    ("normalisation", "z-score", "normalisation: is unknown"),
]


@pytest.mark.parametrize(("field", "value", "message"), REFUSED)
def test_a_refusal_names_the_field(document: dict[str, Any], field: str, value: Any, message: str) -> None:
    with pytest.raises(ContractError, match=f"contract: {message}"):
        contract_from_json(json.dumps(document | {field: value}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": 0.0}, "exam_logit: needs a > 0"),
        ({"a": "1"}, r"exam_logit\.a: must be a finite number"),
        ({"prevalence": 0.0}, r"exam_logit\.prevalence: is 0"),
        ({"prevalence": 1}, r"exam_logit\.prevalence: is 1"),
        ({"dataset": ""}, r"exam_logit\.dataset: is empty"),
        ({"c": 1}, r"exam_logit\.c: is unknown"),
    ],
)
def test_calibration_fields(document: dict[str, Any], change: dict[str, Any], message: str) -> None:
    calibration = document["calibration"] | {"exam_logit": document["calibration"]["exam_logit"] | change}
    with pytest.raises(ContractError, match=rf"contract: calibration\.{message}"):
        contract_from_json(json.dumps(document | {"calibration": calibration}))


def test_a_calibration_of_nothing_is_refused(document: dict[str, Any]) -> None:
    calibration = document["calibration"] | {"density_logits": document["calibration"]["exam_logit"]}
    with pytest.raises(ContractError, match=r"calibration\.density_logits: belongs to no output"):
        contract_from_json(json.dumps(document | {"calibration": calibration}))


@pytest.mark.parametrize("point", [{"probability": 1.5, "heat": 1}, {"probability": 0.5, "heat": 0}])
def test_operating_points(document: dict[str, Any], point: dict[str, float]) -> None:
    with pytest.raises(ContractError, match=r"contract: operating_points\.mass\."):
        contract_from_json(json.dumps(document | {"operating_points": document["operating_points"] | {"mass": point}}))


def test_every_field_is_needed(document: dict[str, Any]) -> None:
    for field in document:
        with pytest.raises(ContractError, match=f"contract: {field}: is missing"):
            contract_from_json(json.dumps({key: value for key, value in document.items() if key != field}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{"])
def test_what_is_no_object(text: str) -> None:
    with pytest.raises(ContractError, match="contract: "):
        contract_from_json(text)


def test_a_file_without_a_contract(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    file = onnx_file(make_tiny_model(tmp_path, height=152, width=96))
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, file)
    with pytest.raises(ContractError, match="carries none"):
        read_graph(file)
