"""TLS with certificates on both sides, and restricted protocols, on a real Triton."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from node.errors import InferenceUnavailableError, SettingsError
from node.inference import triton_statistics
from node.inference.triton_model import TritonModel
from node.inference.triton_served import ServedModel
from node.settings import InferenceSettings
from tests.certificates import Certificates, make_certificates
from tests.integration.triton_exams import EVERY, HEIGHT, WIDTH, some_views
from tests.integration.triton_server import Security, TritonServer, install_triton
from tests.models import make_tiny_model
from tests.servers import listens

KEY, SECRET = "admin-key", "only for the node"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    install_triton()
    folder = tmp_path_factory.mktemp("secured")
    make_tiny_model(folder / "models/exam_encoder", height=HEIGHT, width=WIDTH)
    with TritonServer(folder / "models", folder / "log", security=Security(certificates, SECRET)) as running:
        yield running


@pytest.fixture
def settings(server: TritonServer, certificates: Certificates) -> InferenceSettings:
    plain = InferenceSettings("triton", server.repository, "f32", 1, server.url, "exam_encoder", 20.0, 2)
    return replace(
        plain,
        triton_tls=True,
        triton_ca_file=certificates.authority,
        triton_certificate_file=certificates.client,
        triton_key_file=certificates.client_key,
        triton_secret_header=KEY,
        triton_secret=SECRET,
    )


def test_with_certificate_and_secret_everything_works(settings: InferenceSettings) -> None:
    model = TritonModel(settings)
    assert np.isfinite(model.infer(some_views(1), EVERY).exam_logit)
    assert "shared memory" in model.server
    [told] = triton_statistics.server_state(settings).models
    assert (told.name, told.state, told.failed) == ("exam_encoder", "ready", 0)
    assert ServedModel(settings, "exam_encoder").reload()
    assert np.isfinite(model.infer(some_views(1), EVERY).exam_logit)
    model.close()


@pytest.mark.parametrize("wrong", ["no TLS", "an authority that did not sign it", "no certificate of its own"])
def test_who_is_not_trusted_gets_no_answer(wrong: str, settings: InferenceSettings, certificates: Certificates) -> None:
    changed = {
        "no TLS": replace(settings, triton_tls=False),
        "an authority that did not sign it": replace(settings, triton_ca_file=certificates.stranger),
        "no certificate of its own": replace(settings, triton_certificate_file=None, triton_key_file=None),
    }[wrong]
    with pytest.raises(InferenceUnavailableError, match=f"Triton at {settings.triton_url} is away"):
        TritonModel(replace(changed, deadline_seconds=2.0))


def test_without_the_secret_exams_are_read_and_nothing_is_changed(
    settings: InferenceSettings, server: TritonServer, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = replace(settings, triton_secret="a guess")
    model = TritonModel(stranger)
    assert np.isfinite(model.infer(some_views(1), EVERY).exam_logit)
    assert model.server.endswith("gRPC")  # shared memory is restricted: the tensors travel
    assert not ServedModel(stranger, "exam_encoder").reload()
    assert "set inference.triton_secret_header" in caplog.text
    state = triton_statistics.server_state(stranger)
    assert state.models[0].exams > 0
    assert "the state of its models: not told: " in state.missing[0]
    with pytest.raises(InferenceServerException, match="restricted"):
        server.client.unload_model("exam_encoder")
    model.close()


def test_nothing_listens_beside_it_that_would_change_the_server(server: TritonServer) -> None:
    assert listens(server.port)
    assert not listens(server.http_port)


def test_a_certificate_that_is_not_there_names_the_file(settings: InferenceSettings) -> None:
    with pytest.raises(SettingsError, match=r"nobody\.pem cannot be read"):
        TritonModel(replace(settings, triton_ca_file=settings.model_folder / "nobody.pem"))
