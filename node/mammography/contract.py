"""What a model promises (contract, version 1) and what it answers. The contract travels inside the exported file."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.mammography.findings import FindingKind

CONTRACT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """p = sigmoid(a * logit + b), fitted on `dataset` with the given prevalence of positives in (0, 1)."""

    a: float
    b: float
    dataset: str
    prevalence: float


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A region of a finding is marked where probability and heat are both at or above these values."""

    probability: float
    heat: float


@dataclass(frozen=True, slots=True)
class ModelContract:
    """The contract of one exported model. JSON under the ONNX metadata key `contract`, and in Triton's parameters."""

    contract_version: int
    name: str
    version: str
    preset: str
    """Name of the preprocessing preset, see node.mammography.pixels."""
    views: tuple[str, ...]
    """Always RCC, LCC, RMLO, LMLO."""
    findings: tuple[FindingKind, ...]
    outputs: tuple[str, ...]
    input_shape: tuple[int, int]
    """(H, W) of `views`, model pixels."""
    wire_type: str
    """float32, float16 or uint8: element type of `views` on the wire."""
    embed_dim: int
    heatmap_shape: tuple[int, int]
    heatmap_stride: tuple[float, float]
    heatmap_offset: tuple[float, float]
    """(y, x) in continuous model pixels: the centre of heatmap cell (r, c) lies at offset + stride * (r, c)."""
    calibration: dict[str, Calibration]
    """By output: exam_logit, breast_logits, finding_logits.<kind>."""
    operating_points: dict[FindingKind, OperatingPoint]
    calibrated_on_patients: bool
    """False: the node writes a suspicion index, not a probability of cancer."""
    weights_hash: str
    text_space: str | None
    variant: str
    """Precision and backend of this file, for example "fp16-stored onnx"."""


@dataclass(frozen=True, slots=True)
class QueryContract:
    """The contract of `exam_query`, which looks for phrases that it is given as embeddings.

    Tensors: `views` and `present` as exam_encoder's, `query_embeddings` float32 (B, Q, D) of unit length; out
    `query_heatmaps` (B, 4, Q, h, w) >= 0 and `query_logits` (B, 4, Q). Fields as in ModelContract.
    """

    contract_version: int
    name: str
    version: str
    preset: str
    views: tuple[str, ...]
    outputs: tuple[str, ...]
    input_shape: tuple[int, int]
    wire_type: str
    embed_dim: int
    heatmap_shape: tuple[int, int]
    heatmap_stride: tuple[float, float]
    heatmap_offset: tuple[float, float]
    calibration: Calibration
    """Of `query_logits`: one line for all phrases, so that the phrase is shown in the view; never that of a patient."""
    operating_point: OperatingPoint
    """One for all phrases."""
    calibrated_on_patients: bool
    weights_hash: str
    text_space: str
    """Equal in exam_encoder, exam_query and text_encoder that were made together."""
    variant: str


@dataclass(frozen=True, slots=True)
class TextContract:
    """The contract of `text_encoder`: `token_ids`, `mask` int64 (B, T) to unit vectors `text_embeddings` (B, D)."""

    contract_version: int
    name: str
    version: str
    outputs: tuple[str, ...]
    embed_dim: int
    max_tokens: int
    """T: a phrase is padded to so many tokens, or cut."""
    lower_case: bool
    vocabulary: str
    """Name of the vocabulary's file in the model's folder."""
    vocabulary_hash: str
    """SHA-256 of that file."""
    weights_hash: str
    text_space: str
    variant: str


@dataclass(frozen=True, slots=True, eq=False)
class QueryAnswer:
    """What exam_query says of Q phrases in one exam; view axis RCC, LCC, RMLO, LMLO."""

    logits: NDArray[np.float32]
    """(4, Q); -30 where the view is absent."""
    heatmaps: NDArray[np.float32]
    """(4, Q, h, w), >= 0; 0 where the view is absent."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Raw model output for one exam; view axis RCC, LCC, RMLO, LMLO; K findings of the contract. None: not given."""

    exam_logit: float
    exam_embedding: NDArray[np.float32]
    """(D,), unit length."""
    breast_logits: NDArray[np.float32] | None
    """(2,) right, left; -30 where the breast has no view."""
    finding_logits: NDArray[np.float32] | None
    """(4, K); -30 where the view is absent."""
    heatmaps: NDArray[np.float32] | None
    """(4, K, h, w), >= 0."""
    view_embeddings: NDArray[np.float32] | None
    """(4, D), unit length, 0 where the view is absent."""
    density_logits: NDArray[np.float32] | None
    """(4,), A to D."""
    answered_by: tuple[ModelContract, str] | None = None
    """Contract and variant of what gave this very answer; None: of a model that cannot change while it is loaded."""
