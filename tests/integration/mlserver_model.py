"""A model for MLServer, which runs this file in its own environment: numpy alone, nothing of this project.

Tensor names and shapes are exam_encoder's: the logit of an exam is the mean of its present views.
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Brightness(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        views, present = given["views"], given["present"].astype(bool)
        means = np.where(present, views.mean(axis=(2, 3, 4)), 0).sum(1) / present.sum(1)
        heat = np.where(present[:, :, None, None], views[:, :, 0, ::8, ::8], 0)
        outputs = {"exam_logit": means[:, None], "heatmaps": heat}
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(name, value.astype(np.float32)) for name, value in outputs.items()],
        )
