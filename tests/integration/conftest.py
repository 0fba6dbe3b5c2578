"""A tiny model, loaded once, a desk to work at, and one Triton for all tests that ask it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.inference.load import load_model
from node.inference.model import Model
from node.settings import Settings, load_settings
from tests.integration.desk import Desk, make_desk
from tests.integration.triton_server import Repository, TritonServer, install_triton
from tests.models import make_tiny_model

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"), height=380, width=228)
    """The shipped settings, but three kinds of object: all of them take a second an exam."""
    settings = load_settings(REPOSITORY / "settings.toml", {})
    [pacs] = settings.destinations
    return replace(
        settings,
        inference=replace(settings.inference, model_folder=folder, precision="f32", threads=1),
        destinations=(replace(pacs, objects=("SR", "SEG", "SC")),),
    )


@pytest.fixture(scope="session")
def model(model_settings: Settings) -> Model:
    return load_model(model_settings.inference)


@pytest.fixture
def desk(model_settings: Settings, model: Model, tmp_path: Path) -> Iterator[Desk]:
    made = make_desk(model_settings, model, tmp_path)
    yield made
    made.database.close()


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A real server in explicit model control, at first without a model. Starting one takes two seconds."""
    install_triton()
    folder = tmp_path_factory.mktemp("triton")
    (folder / "models").mkdir()
    with TritonServer(folder / "models", folder / "triton.log") as server:
        yield server


@pytest.fixture
def repository(triton: TritonServer) -> Iterator[Repository]:
    """Models that this test makes and loads; they are unloaded at its end."""
    with Repository(triton) as made:
        yield made
