"""Settings -> the model that they name."""

from node.errors import SettingsError
from node.inference.model import Model
from node.inference.openvino_model import OpenVinoModel
from node.inference.triton_model import TritonModel
from node.settings import InferenceSettings


def load_model(settings: InferenceSettings) -> Model:
    """The model, loaded, checked against its contract and tried on two exams.

    Raises SettingsError for an unknown backend, ContractError where the model does not fit, and for Triton
    InferenceUnavailableError while the server is away.
    """
    if settings.backend == "openvino":
        return OpenVinoModel(settings)
    if settings.backend == "triton":
        return TritonModel(settings)
    raise SettingsError(f"inference.backend is {settings.backend}; known are openvino, triton")
