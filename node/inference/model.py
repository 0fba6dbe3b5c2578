"""The seam: one loaded model."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from node.mammography.contract import ModelContract, Prediction


class Model(Protocol):
    """One loaded model."""

    @property
    def contract(self) -> ModelContract:
        """What the model promises."""

    @property
    def variant(self) -> str:
        """Precision and backend that really run, for example "openvino bf16". Part of a result's identity."""

    def infer(self, views: NDArray[np.float32], present: NDArray[np.bool_], priority: int = 5) -> Prediction:
        """Views (4, 1, H, W) in [0, 1], present (4,), not all false; `priority` of the exam's rule, 0 first to 9 last.

        Raises InferenceError for this input, InferenceUnavailableError where a later try may work.
        """

    def check_turn(self) -> None:
        """Before an exam is prepared. Raises ModelWaitError where it would not be looked at now."""

    def check_health(self) -> None:
        """Do a real inference. Raises a ModelError that says what is wrong."""
