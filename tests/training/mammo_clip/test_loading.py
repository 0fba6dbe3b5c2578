"""`load_model`: any folder gives encoders, a tokenizer, and what an image must be made into."""

import json

import numpy as np
import pytest
import torch

from tests.training.mammo_clip.tiny_runs import write_recipe
from training import maps
from training.mammo_clip.building import build_model, save_model
from training.mammo_clip.importing import RECORD, WEIGHTS, import_checkpoint
from training.mammo_clip.loading import Input, load_model
from training.mammo_clip.model import EfficientNetEncoder
from training.mammo_clip.pretraining_recipe import load_pretraining_recipe
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.vocabulary import VOCABULARY, own_tokenizer

PLANES = np.random.default_rng(0).integers(0, 255, (2, 64, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with a best epoch and a later checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    recipe = load_pretraining_recipe(write_recipe(folder))
    model = build_model(recipe, len(own_tokenizer().ids)).eval()
    for name in ("best-epoch-01", "checkpoints/step-00000012-end"):
        (folder / name).mkdir(parents=True)
        facts = {"data": {"sources": "image-text"}, "epoch": 1 if "best" in name else 2}
        save_model(folder / name, model, recipe, VOCABULARY, facts)
    return folder, model


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A downstream classifier as its authors write it, imported."""
    torch.manual_seed(0)
    encoder, head = EfficientNetEncoder("b2").eval(), torch.nn.Linear(1408, 1)
    state = {f"image_encoder.{key}": value for key, value in encoder.state_dict().items()}
    state |= {f"classifier.classification_head.{key}": value for key, value in head.state_dict().items()}
    folder = tmp_path_factory.mktemp("classifier")
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, folder / "c.pth")
    import_checkpoint(folder / "c.pth", folder / "imported")
    return folder / "imported", encoder, head


def test_a_run_gives_its_best_epoch_and_a_folder_of_a_checkpoint_itself(run):
    folder, model = run
    loaded = load_model(folder)
    assert (loaded.kind, loaded.folder.name, loaded.record["epoch"], loaded.licence) == ("own", "best-epoch-01", 1, "")
    assert load_model(folder / "checkpoints/step-00000012-end").record["epoch"] == 2
    images = loaded.embed_images(PLANES)
    assert torch.equal(images, model.encode_image(loaded.input.normalise(PLANES)))
    texts = loaded.embed_texts(["no mass", "there is a mass in the left breast"])
    assert images.shape == texts.shape == (2, 16)
    assert not loaded.image_encoder.training


def test_a_run_without_a_best_epoch_gives_its_last_checkpoint(run, tmp_path):
    folder, _ = run
    (tmp_path / "checkpoints").symlink_to(folder / "checkpoints")
    assert load_model(tmp_path).record["epoch"] == 2


def test_preset_is_that_of_the_images_it_was_trained_on(run, tmp_path):
    folder, _ = run
    assert load_model(folder).input == Input("mammo-clip", 64, 48, "image", 1)
    for file in (folder / "best-epoch-01").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((tmp_path / RECORD).read_text())
    for sources, expected in (
        ("phantoms", Input("fit-64x48", 64, 48, "image", 1)),
        ("image-text, phantoms", Input("fit-64x48", 64, 48, "image", 1)),
        ("tiles, cbis-crops, cesm-texts", Input("fit-760x456", 760, 456, "image", 1)),
    ):
        (tmp_path / RECORD).write_text(json.dumps(record | {"data": {"sources": sources}}))
        assert load_model(tmp_path).input == expected


def test_images_are_normalised_each_by_itself_or_all_alike():
    published = Input("mammo-clip", 64, 48, "image", 3).normalise(PLANES)
    grey = PLANES[1].astype(np.float64)
    expected = ((grey - grey.min()) / (grey - grey.min()).max() - 0.3089279) / 0.25053555408335154
    assert published.shape == (2, 3, 64, 48)
    assert np.allclose(published[1].double().numpy(), expected, atol=1e-6)
    fixed = Input("fit-64x48", 64, 48, "fixed", 1)
    assert torch.equal(fixed.normalise(PLANES)[:, 0], maps.normalise(torch.tensor(PLANES) / 255.0))
    assert torch.equal(fixed.normalise(torch.tensor(PLANES) / 255.0), fixed.normalise(PLANES))
    flat = Input("mammo-clip", 64, 48, "image", 1).normalise(np.full((1, 4, 4), 9, np.uint8))
    assert bool(torch.isfinite(flat).all())


def test_a_classifier_gives_the_logits_of_its_own_modules(classifier):
    folder, encoder, head = classifier
    loaded = load_model(folder)
    assert (loaded.kind, loaded.dual, loaded.tokenizer) == ("classifier", None, None)
    assert loaded.input == Input("mammo-clip", 1520, 912, "image", 3)
    with torch.no_grad():
        expected = head(encoder(loaded.input.normalise(PLANES)).mean((2, 3)))
        assert torch.allclose(loaded.classify(PLANES), expected, atol=1e-6)
    assert "CC BY-NC-SA 4.0" in loaded.licence
    assert loaded.licence in (folder / "card.md").read_text()
    for use in (loaded.clip, lambda: loaded.embed_texts(["mass"])):
        with pytest.raises(CheckpointError, match="holds a classifier, which has no text tower; take a pretraining"):
            use()


def test_what_is_no_model_is_refused_with_a_cure(run, tmp_path):
    folder, _ = run
    (tmp_path / "file.tar").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for path, words in (
        (tmp_path / "none", "no such folder; give a run"),
        (tmp_path / "file.tar", r"is a file; import it first: python -m training import .*file\.tar"),
        (tmp_path / "empty", "holds no model: neither model.json nor best-epoch"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_model(path)
    with pytest.raises(CheckpointError, match="takes no vocabulary from outside; leave --vocabulary out"):
        load_model(folder, VOCABULARY)
    with pytest.raises(CheckpointError, match="kind own, not a classifier"):
        load_model(folder).classify(PLANES)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (RECORD, b"{", r"model\.json: cannot be read as a model's record"),
        (RECORD, b"[]", "is no model's record"),
        (RECORD, b'{"kind": "served"}', "holds a model of kind served"),
        (RECORD, b'{"kind": "own"}', "KeyError: 'recipe'"),
        (RECORD, b'{"kind": "own", "recipe": {"loss": 3}}', "holds no model of a run: AttributeError"),
        (WEIGHTS, b"cut", r"model\.safetensors: cannot be read: .* Is it whole"),
        ("vocabulary.txt", b"[PAD]\n", "no vocabulary"),
    ],
)
def test_damaged_folder_is_named(run, tmp_path, name, content, words):
    for file in (run[0] / "best-epoch-01").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as told:
        load_model(tmp_path)
    assert str(tmp_path) in str(told.value)
