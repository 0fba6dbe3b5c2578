"""The contracts of exam_query and text_encoder as JSON, and what must hold before a phrase can be asked for."""

import json
import re
from dataclasses import asdict

from node.errors import ContractError
from node.inference.contract import (
    calibrations,
    check_calibration,
    check_heatmap_grid,
    check_identity,
    check_input,
    check_operating_point,
    check_view_axis,
    fields_of,
    operating_point,
)
from node.inference.contract_fields import (
    Fields,
    flag,
    integer,
    integer_pair,
    number_pair,
    refusal,
    text,
    texts,
)
from node.mammography.contract import CONTRACT_VERSION, Calibration, ModelContract, QueryContract, TextContract

CALIBRATED = "query_logits"
QUERY_OUTPUTS = ("query_heatmaps", "query_logits")
TEXT_OUTPUTS = ("text_embeddings",)


def query_contract_to_json(contract: QueryContract) -> str:
    """ASCII JSON with the fields by name; what `query_contract_from_json` reads."""
    return json.dumps(asdict(contract) | {"calibration": {CALIBRATED: asdict(contract.calibration)}}, indent=1)


def text_contract_to_json(contract: TextContract) -> str:
    """ASCII JSON with the fields by name; what `text_contract_from_json` reads."""
    return json.dumps(asdict(contract), indent=1)


def query_contract_from_json(written: str) -> QueryContract:
    """The checked contract of exam_query. Raises ContractError naming the field."""
    fields = fields_of(written)
    contract = QueryContract(
        contract_version=CONTRACT_VERSION,
        name=fields.take("name", text),
        version=fields.take("version", text),
        preset=fields.take("preset", text),
        views=fields.take("views", texts),
        outputs=fields.take("outputs", texts),
        input_shape=fields.take("input_shape", integer_pair),
        wire_type=fields.take("wire_type", text),
        embed_dim=fields.take("embed_dim", integer),
        heatmap_shape=fields.take("heatmap_shape", integer_pair),
        heatmap_stride=fields.take("heatmap_stride", number_pair),
        heatmap_offset=fields.take("heatmap_offset", number_pair),
        calibration=_calibration_of(fields),
        operating_point=fields.take("operating_point", operating_point),
        calibrated_on_patients=fields.take("calibrated_on_patients", flag),
        weights_hash=fields.take("weights_hash", text),
        text_space=fields.take("text_space", text),
        variant=fields.take("variant", text),
    )
    fields.finish()
    _check_query(contract)
    return contract


def text_contract_from_json(written: str) -> TextContract:
    """The checked contract of text_encoder. Raises ContractError naming the field."""
    fields = fields_of(written)
    contract = TextContract(
        contract_version=CONTRACT_VERSION,
        name=fields.take("name", text),
        version=fields.take("version", text),
        outputs=fields.take("outputs", texts),
        embed_dim=fields.take("embed_dim", integer),
        max_tokens=fields.take("max_tokens", integer),
        lower_case=fields.take("lower_case", flag),
        vocabulary=fields.take("vocabulary", text),
        vocabulary_hash=fields.take("vocabulary_hash", text),
        weights_hash=fields.take("weights_hash", text),
        text_space=fields.take("text_space", text),
        variant=fields.take("variant", text),
    )
    fields.finish()
    _check_text(contract)
    return contract


def check_text_space(exam: ModelContract, query: QueryContract, words: TextContract) -> None:
    """Three models that were made together, or none. Raises ContractError saying which differs."""
    spaces = {"exam_encoder": exam.text_space, "exam_query": query.text_space, "text_encoder": words.text_space}
    if len(set(spaces.values())) > 1:
        said = ", ".join(f"{name} {'has none' if space is None else space[:12]}" for name, space in spaces.items())
        raise ContractError(f"text_space differs: {said}; the models were not made together: put one export's in place")
    if query.embed_dim != words.embed_dim:
        raise ContractError(f"embed_dim differs: exam_query {query.embed_dim}, text_encoder {words.embed_dim}")


def _check_query(contract: QueryContract) -> None:
    check_identity(contract)
    _check_outputs(contract, QUERY_OUTPUTS)
    check_view_axis(contract)
    check_input(contract)
    check_heatmap_grid(contract)
    check_calibration(f"calibration.{CALIBRATED}", contract.calibration)
    check_operating_point("operating_point", contract.operating_point)


def _check_text(contract: TextContract) -> None:
    check_identity(contract)
    _check_outputs(contract, TEXT_OUTPUTS)
    if contract.max_tokens < 3:
        raise refusal("max_tokens", f"is {contract.max_tokens}; two are taken by [CLS] and [SEP]")
    if not re.fullmatch(r"[\w.-]*\w", contract.vocabulary):
        raise refusal("vocabulary", f"is {contract.vocabulary!r}; it must be the name of a file beside the model")
    if not re.fullmatch(r"[0-9a-f]{64}", contract.vocabulary_hash):
        raise refusal("vocabulary_hash", "is no SHA-256 in 64 lower-case hexadecimal digits")


def _check_outputs(contract: QueryContract | TextContract, wanted: tuple[str, ...]) -> None:
    if sorted(contract.outputs) != sorted(wanted):
        raise refusal("outputs", f"are {', '.join(contract.outputs)}; they must be {', '.join(wanted)}")
    if contract.embed_dim < 1:
        raise refusal("embed_dim", f"is {contract.embed_dim}; it must be positive")
    if not contract.text_space:
        raise refusal("text_space", "is empty; a phrase needs the space of its text encoder")


def _calibration_of(fields: Fields) -> Calibration:
    found = fields.take("calibration", calibrations)
    if set(found) != {CALIBRATED}:
        raise refusal("calibration", f"must have {CALIBRATED} and nothing else")
    return found[CALIBRATED]
