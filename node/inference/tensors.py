"""Tensors by the contract: what goes on the wire, what a graph must look like, and raw outputs -> `Prediction`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.errors import ContractError, InferenceError
from node.mammography.contract import ModelContract, Prediction, QueryContract
from node.mammography.views import BREASTS, STANDARD_VIEWS

ABSENT_LOGIT = -30.0
UNIT_TOLERANCE = 0.02  # bf16 keeps 8 bits of each component
HEAT_TOLERANCE = 1e-3
ROUNDING = 1e-5
SELF_CHECK_TOLERANCE = 1e-3  # on a GPU a batch of other size may take another kernel

Outputs = Mapping[str, NDArray[Any]]
Signature = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name to (numpy element type, shape); -1 where a size is not fixed."""


def signature_of(contract: ModelContract) -> tuple[Signature, Signature]:
    """Inputs and outputs of a graph that keeps `contract`; the first axis is the batch of exams, -1."""
    views, findings = len(contract.views), len(contract.findings)
    shapes = {
        "exam_logit": (),
        "exam_embedding": (contract.embed_dim,),
        "breast_logits": (len(BREASTS),),
        "finding_logits": (views, findings),
        "heatmaps": (views, findings, *contract.heatmap_shape),
        "view_embeddings": (views, contract.embed_dim),
        "density_logits": (4,),
    }
    inputs = {"views": (contract.wire_type, (-1, views, 1, *contract.input_shape)), "present": ("bool", (-1, views))}
    return inputs, {name: ("float32", (-1, *shapes[name])) for name in contract.outputs}


def check_signature(found: Signature, wanted: Signature) -> None:
    """Raises ContractError where a tensor is missing, unknown, or of another type or shape than the contract says."""
    for name in sorted(set(wanted) - set(found)):
        raise ContractError(f"model: tensor {name} is missing")
    for name in sorted(set(found) - set(wanted)):
        raise ContractError(f"model: tensor {name} is not in the contract")
    for name, (element_type, shape) in wanted.items():
        found_type, found_shape = found[name]
        if found_type != element_type:
            raise ContractError(f"model: tensor {name} is {found_type}; the contract says {element_type}")
        if not _fits(found_shape, shape):
            raise ContractError(f"model: tensor {name} has shape {found_shape}; the contract says {shape}")


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(a == b or -1 in (a, b) for a, b in zip(found, wanted, strict=True))


def wire_inputs(
    views: NDArray[np.float32], present: NDArray[np.bool_], contract: ModelContract | QueryContract
) -> dict[str, NDArray[Any]]:
    """One exam as a batch of one, in the contract's element type, absent views set to 0.

    Raises InferenceError where a shape is wrong, no view is present or a present pixel is outside [0, 1].
    """
    shape = (len(STANDARD_VIEWS), 1, *contract.input_shape)
    if views.shape != shape or present.shape != shape[:1] or present.dtype != np.bool_:
        raise InferenceError(f"views {views.shape} and present {present.shape} are not {shape} and {shape[:1]} bool")
    if not present.any():
        raise InferenceError("no view is present")
    clean = np.where(present[:, None, None, None], views, np.float32(0)).astype(np.float32, copy=False)
    if not (clean.min() >= -ROUNDING and clean.max() <= 1 + ROUNDING):  # false for NaN too
        raise InferenceError("a present view holds pixels outside [0, 1]")
    np.clip(clean, 0, 1, out=clean)
    if contract.wire_type == "uint8":
        np.rint(clean * np.float32(255), out=clean)
    return {"views": clean.astype(contract.wire_type, copy=False)[None], "present": present[None].copy()}


def prediction_of(outputs: Outputs, contract: ModelContract, present: NDArray[np.bool_]) -> Prediction:
    """Outputs for a batch of one as a Prediction that keeps the contract's rules to the bit.

    Absent views have logits of -30, heatmaps and embeddings of 0; embeddings have unit length; no heat is negative.
    Raises InferenceError naming the output that is missing, not finite, of another shape or beyond rounding.
    """
    arrays = batch_of_one(outputs, signature_of(contract)[1])
    breast_present = np.array([_breast_present(present, index) for index in range(len(BREASTS))])
    everything = np.ones((), dtype=np.bool_)
    return Prediction(
        exam_logit=float(arrays["exam_logit"]),
        exam_embedding=unit("exam_embedding", arrays["exam_embedding"], everything),
        breast_logits=_logits("breast_logits", arrays, breast_present),
        finding_logits=_logits("finding_logits", arrays, present),
        heatmaps=heat("heatmaps", arrays["heatmaps"], present) if "heatmaps" in arrays else None,
        view_embeddings=(
            unit("view_embeddings", arrays["view_embeddings"], present) if "view_embeddings" in arrays else None
        ),
        density_logits=arrays.get("density_logits"),
    )


def _breast_present(present: NDArray[np.bool_], breast: int) -> bool:
    return any(present[i] for i, view in enumerate(STANDARD_VIEWS) if view.laterality is BREASTS[breast])


def batch_of_one(outputs: Outputs, wanted_outputs: Signature) -> dict[str, NDArray[np.float32]]:
    """Outputs of a batch of one without the batch axis. Raises InferenceError: missing, another shape, not finite."""
    arrays = {}
    for name, (_, shape) in wanted_outputs.items():
        if name not in outputs:
            raise InferenceError(f"output {name} is missing")
        value = np.asarray(outputs[name], dtype=np.float32)
        wanted = (1, *shape[1:])
        if value.shape != wanted and not (shape == (-1,) and value.shape == (1, 1)):  # Triton has no scalar outputs
            raise InferenceError(f"output {name} has shape {value.shape}; the contract says {wanted}")
        if not np.isfinite(value).all():
            raise InferenceError(f"output {name} is not finite")
        arrays[name] = value.reshape(wanted)[0].copy()
    return arrays


def _logits(name: str, arrays: Outputs, present: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    if name not in arrays:
        return None
    return absent_as(name, arrays[name], present, ABSENT_LOGIT)


def heat(name: str, value: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Heat (4, ...) that is 0 in absent views and nowhere below 0. Raises InferenceError."""
    if value.min() < -HEAT_TOLERANCE:
        raise InferenceError(f"output {name} has negative heat, {value.min():g}")
    return absent_as(name, np.maximum(value, np.float32(0)), present, 0.0)


def unit(name: str, value: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Vectors of exactly unit length, 0 where not `present`. Raises InferenceError where they were not near it."""
    length = np.linalg.norm(value, axis=-1, keepdims=True)
    if (np.abs(length[..., 0] - 1) > UNIT_TOLERANCE)[present].any():
        raise InferenceError(f"output {name} has no unit length")
    scaled: NDArray[np.float32] = absent_as(name, value, present, 0.0) / np.maximum(length, np.float32(1e-6))
    return scaled


def absent_as(name: str, value: NDArray[Any], present: NDArray[np.bool_], absent: float) -> NDArray[np.float32]:
    """`value` with exactly `absent` where not `present`; the model must have said so within rounding."""
    outside = value[~present]
    if outside.size and np.abs(outside - absent).max() > 0.05:
        raise InferenceError(f"output {name} is not {absent:g} for an absent view or breast")
    selected = present.reshape(present.shape + (1,) * (value.ndim - present.ndim))
    return np.where(selected, value, np.float32(absent)).astype(np.float32)


def self_check(run: Callable[[dict[str, NDArray[Any]]], Outputs], contract: ModelContract) -> None:
    """Two real inferences that differ only in the pixels of an absent view: valid, and the same outputs.

    Raises ContractError where the absent view is seen, InferenceError where an output breaks the contract.
    """
    generator = np.random.default_rng(0)
    views = generator.random((len(STANDARD_VIEWS), 1, *contract.input_shape), dtype=np.float32)
    present = np.array([True, True, False, True])
    first = wire_inputs(views, present, contract)
    second = {"views": first["views"].copy(), "present": first["present"]}
    second["views"][0, 2] = 1
    answers = [run(inputs) for inputs in (first, second)]
    for answer in answers:
        prediction_of(answer, contract, present)
    for name in contract.outputs:
        if not np.allclose(answers[0][name], answers[1][name], rtol=SELF_CHECK_TOLERANCE, atol=SELF_CHECK_TOLERANCE):
            raise ContractError(f"model: output {name} depends on the pixels of an absent view")


def probe(contract: ModelContract | QueryContract) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The smallest honest exam for a health check: four smooth views."""
    rows, columns = contract.input_shape
    view = np.outer(np.sin(np.linspace(0, np.pi, rows)), np.linspace(1, 0, columns)).clip(0, 1).astype(np.float32)
    return np.broadcast_to(view, (len(STANDARD_VIEWS), 1, rows, columns)).copy(), np.ones(4, dtype=np.bool_)
