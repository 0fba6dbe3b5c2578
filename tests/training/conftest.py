from pathlib import Path

import pytest
import torch

from training.exam_encoder import ExamEncoder, ExamHeads
from training.maps import MapNetwork

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tests share their machine: waiting threads of torch take more time than they save."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_spec():
    """The folder of specifications beside the repository."""
    folder = _ROOT / "../shared/spec"
    if not folder.is_dir():
        pytest.skip("the specifications are not beside the repository")
    return folder


@pytest.fixture(scope="session")
def crops_folder():
    """The CBIS-DDSM crops beside the repository."""
    folder = _ROOT / "../shared/data/cbis-crops"
    if not folder.is_dir():
        pytest.skip("the CBIS-DDSM crops are not beside the repository")
    return folder


def tiny_encoder(seed=0):
    """An exam encoder with few channels and random weights in every head, ready for inference."""
    torch.manual_seed(seed)
    encoder = ExamEncoder(MapNetwork(8), ExamHeads(8, embed_dim=16, hidden=12))
    for layer in (encoder.map_network.maps, encoder.heads.finding[-1], encoder.heads.breast[-1]):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return encoder.eval()


@pytest.fixture(scope="session")
def encoder():
    return tiny_encoder()
