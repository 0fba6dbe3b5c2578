"""Settings -> the models that they name."""

from node.errors import SettingsError
from node.inference.model import Model
from node.inference.openvino_graph import onnx_file
from node.inference.openvino_model import OpenVinoModel, read_graph
from node.inference.phrase_models import PhraseModels, load_phrase_models
from node.inference.triton_model import TritonModel, served_contract
from node.inference.triton_served import ServedModel
from node.mammography.contract import ModelContract
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


def contract_of(settings: InferenceSettings) -> ModelContract:
    """What exam_encoder promises, without loading it. Raises ContractError, InferenceUnavailableError."""
    if settings.backend == "openvino":
        return read_graph(onnx_file(settings.model_folder))[1]
    return served_contract(ServedModel(settings, settings.triton_model, settings.triton_version))


def load_phrases(settings: InferenceSettings) -> PhraseModels:
    """The models that answer phrases, loaded, checked against exam_encoder and tried.

    Raises NotOfferedError where there are none, ContractError where one does not fit the others, and for Triton
    InferenceUnavailableError while the server is away.
    """
    return load_phrase_models(settings, contract_of(settings))
