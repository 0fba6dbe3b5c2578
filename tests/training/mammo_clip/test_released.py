"""Files made in exactly the released layout: by torch.save, with omegaconf's own objects inside."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from training.mammo_clip.factor import PaperMapper
from training.mammo_clip.importing import CARD, RECORD, WEIGHTS, import_checkpoint, load_pretrained
from training.mammo_clip.loading import load_model
from training.mammo_clip.model import EfficientNetEncoder, published
from training.mammo_clip.released import CheckpointError, read_released

omegaconf = pytest.importorskip("omegaconf", reason="the test extra is not installed")


@pytest.fixture(scope="module")
def b2_state():
    torch.manual_seed(0)
    return published("b2").state_dict()


def released(state, **more):
    """Top keys as trainer.py of the authors writes them."""
    config = omegaconf.OmegaConf.create(
        {
            "model": {"name": "clip_custom", "temperature": 0.07, "text_encoder": {"cache_dir": "somewhere/else"}},
            "transform": {"train": {"scale": [0.8, 1.2]}},
        }
    )
    held = omegaconf.OmegaConf.to_container(config)
    held["transform"]["train"]["scale"] = config.transform.train.scale  # a ListConfig, as in the released files
    held["model"]["text_encoder"] = config.model.text_encoder
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 5e-5}]}
    return {
        "model": state,
        "optimizer": optimizer,
        "scheduler": {},
        "config": held,
        "epoch": 10,
        "train_loss": 1.5,
    } | more


def test_pretraining_checkpoint_is_converted_once_and_loads_again(tmp_path, b2_state):
    source = tmp_path / "b2-model-best-epoch-10.tar"
    old = b2_state | {"text_encoder.text_encoder.embeddings.position_ids": torch.arange(512)[None]}
    torch.save(released({f"module.{key}": value for key, value in old.items()}), source)
    read = import_checkpoint(source, tmp_path / "imported")
    record = json.loads((tmp_path / "imported" / RECORD).read_text())
    assert (read.kind, read.variant) == ("pretrained", "b2")
    assert record["config"]["transform"]["train"]["scale"] == [0.8, 1.2]
    assert record["config"]["model"]["text_encoder"] == {"cache_dir": "somewhere/else"}
    assert (record["epoch"], record["train_loss"], record["tensors"]) == (10, 1.5, len(b2_state))
    assert "CC BY-NC-SA 4.0" in record["licence"]
    assert "optimizer" not in record
    assert (tmp_path / "imported" / WEIGHTS).stat().st_size < 480e6
    loaded = load_pretrained(tmp_path / "imported").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in b2_state.items())


def test_variant_is_told_by_shape_and_not_by_name(tmp_path, b2_state):
    path = tmp_path / "b5-model-best-epoch-7.tar"
    named = {"model": {"image_encoder": {"name": "tf_efficientnet_b5_ns-detect"}}}
    torch.save(released(b2_state, config=named), path)
    assert read_released(path).variant == "b2"


def test_classifier_and_factor_files_are_told_apart(tmp_path):
    trunk = {f"image_encoder.{key}": value for key, value in EfficientNetEncoder("b2").state_dict().items()}
    head = {"classifier.classification_head.weight": torch.ones(1, 1408)}
    head["classifier.classification_head.bias"] = torch.ones(1)
    classifier, factor = tmp_path / "upmc_best_aucroc_ver084.pth", tmp_path / "best.pkl"
    figures = {"predictions": np.arange(4.0), "epoch": 8, "auroc": np.float64(0.8), "f1": 0.4}
    torch.save({"model": trunk | head, **figures}, classifier)
    pool = {f"pool.{key}": value for key, value in PaperMapper(6, 8, 2).pool.state_dict().items()}
    torch.save(trunk | pool, factor)
    assert import_checkpoint(classifier, tmp_path / "c").kind == "classifier"
    assert import_checkpoint(factor, tmp_path / "f").kind == "factor"
    assert "predictions" not in json.loads((tmp_path / "c" / RECORD).read_text())


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_key_that_does_not_fit_is_named_and_nothing_is_written(tmp_path, b2_state, change):
    state = dict(b2_state)
    if change == "missing":
        del state["logit_scale"]
    elif change == "unexpected":
        state["image_encoder.extra"] = torch.ones(1)
    else:
        state["logit_scale"] = torch.ones(3)
    path = tmp_path / "model.tar"
    torch.save(released(state), path)
    name = "image_encoder.extra" if change == "unexpected" else "logit_scale"
    with pytest.raises(CheckpointError, match=rf"model.tar: does not fit: {name}"):
        import_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("touched-by-a-pickle",)


def test_malicious_pickle_runs_nothing(tmp_path, monkeypatch, b2_state):
    monkeypatch.chdir(tmp_path)
    torch.save(released({"logit_scale": b2_state["logit_scale"]}, config=Malicious()), tmp_path / "model.tar")
    with pytest.raises(CheckpointError, match=r"model.tar: refused: it wants \w+\.mkdir"):
        read_released(tmp_path / "model.tar")
    assert not (tmp_path / "touched-by-a-pickle").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_command_in_a_downstream_file_is_not_run_either(tmp_path, zipped):
    """os.system, in torch's zip and in the pickle that torch wrote before it."""
    path, touched = tmp_path / "best.pkl", tmp_path / "touched"

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {touched}",)

    torch.save({"pool.0.0.weight": Runs()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"best\.pkl: refused: it wants \w+\.system"):
        read_released(path)
    path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(CheckpointError, match=r"best\.pkl: refused"):
        read_released(path)
    assert not touched.exists()


TINY = {"image_encoder._conv_head.weight": torch.ones(1408, 2, 1, 1)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": [1, 2]}, "no checkpoint of Mammo-CLIP: its keys are model; known"),
        ({"state_dict": None}, "no checkpoint of Mammo-CLIP: its keys are state_dict"),
        ({}, "no checkpoint of Mammo-CLIP: its keys are none"),
        ({"model": {1: torch.ones(2)}}, "a checkpoint of another model: its image encoder has no _conv_head.weight"),
        ({"model": {"_conv_head.weight": torch.tensor(1.0)}}, "a checkpoint of another model"),
        ({"model": {"_conv_head.weight": torch.ones(1280, 2)}}, "ends in 1280 channels; Mammo-CLIP's B2 ends in 1408"),
        ({"model": TINY | {"logit_scale": "2.7"}}, "logit_scale under its weights is no tensor"),
        ({"model": TINY | {3: torch.ones(1)}}, "does not fit"),
        ({"model": TINY | {"classifier.classification_head.bias": torch.ones(1)}}, "does not fit"),
        (TINY | {"pool.0.0.weight": torch.ones(2)}, "does not fit"),
        (torch.nn.Linear(2, 2), "refused: it wants torch.nn.modules.linear.Linear"),
    ],
)
def test_odd_content_is_an_error_that_names_the_file(tmp_path, content, words):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"model\.pth: .*{words}"):
        import_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zip_of_the_authors_page_is_to_be_unpacked(tmp_path):
    path = tmp_path / "Downstream_b5_fold0.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("classification/mass.pth", b"x")
    with pytest.raises(CheckpointError, match=r"a zip of other files \(classification/mass\.pth\); unpack it"):
        read_released(path)


def test_numbers_of_numpy_become_figures_of_the_record(tmp_path):
    path = tmp_path / "c.pth"
    figures = {"auroc": np.float64(0.8), "f1": np.float32(0.5), "epoch": np.int64(3), "accuracy": np.bool_(True)}
    torch.save({"model": TINY, **figures}, path)
    record = read_released(path).record
    assert (record["auroc"], record["f1"], record["epoch"], record["accuracy"]) == (0.8, 0.5, 3, None)


@pytest.mark.parametrize("lost", ["pool.1.2.bias", "pool.0.0.bias", "pool.0.2.weight"])
def test_factor_file_must_be_whole_and_becomes_a_mapper_that_runs(tmp_path, lost):
    torch.manual_seed(0)
    trunk = {f"image_encoder.{key}": value for key, value in EfficientNetEncoder("b2").state_dict().items()}
    mapper = PaperMapper(6, 8, 2)
    pool = {f"pool.{key}": value for key, value in mapper.pool.state_dict().items()}
    torch.save({f"module.{key}": value for key, value in (trunk | pool).items()}, tmp_path / "best.pkl")
    import_checkpoint(tmp_path / "best.pkl", tmp_path / "out")
    loaded = load_model(tmp_path / "out")
    assert loaded.mapper is not None
    maps, phrases = torch.rand(1, 5, 2, 3), torch.nn.functional.normalize(torch.randn(2, 8), dim=1)
    assert torch.equal(loaded.mapper(maps, phrases), mapper(maps, phrases))
    assert loaded.licence in (tmp_path / "out" / CARD).read_text()
    del pool[lost]
    torch.save(trunk | pool, tmp_path / "cut.pkl")
    with pytest.raises(CheckpointError, match=rf"cut\.pkl: does not fit: .*{lost}.* missing"):
        import_checkpoint(tmp_path / "cut.pkl", tmp_path / "cut")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", pickle.dumps([1, 2])], ids=["empty", "cut", "a list"])
def test_file_that_is_no_checkpoint_is_refused_with_its_name_and_a_cure(tmp_path, content):
    path = tmp_path / "model.tar"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.tar: "):
        read_released(path)


def test_truncated_file_is_refused(tmp_path, b2_state):
    path = tmp_path / "model.tar"
    torch.save(released({"logit_scale": b2_state["logit_scale"]}), path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(CheckpointError, match="fetch it again"):
        read_released(path)


def test_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, path)
    with pytest.raises(CheckpointError, match=r"no checkpoint of Mammo-CLIP: its keys are conv1\.weight"):
        read_released(path)
