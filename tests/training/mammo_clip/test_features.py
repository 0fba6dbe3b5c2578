"""Encoding through a frozen encoder: what comes out, and what is encoded only once."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from node.mammography.views import Laterality
from tests.training.mammo_clip.tiny_runs import write_recipe
from tests.training.mammo_clip.tiny_sets import HEIGHT, WIDTH, write_image, write_phantoms
from training.cache import exam_path
from training.mammo_clip import features
from training.mammo_clip.breasts import DataError
from training.mammo_clip.building import build_model, save_model
from training.mammo_clip.features import Encoding, encode
from training.mammo_clip.images import ImageFile, PhantomView
from training.mammo_clip.loading import load_model
from training.mammo_clip.pretraining_recipe import RecipeError, load_pretraining_recipe
from training.mammo_clip.vocabulary import VOCABULARY, own_tokenizer

OWN_SIZE = Encoding((0, 0), 3, "float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    recipe = load_pretraining_recipe(write_recipe(folder))
    built = build_model(recipe, len(own_tokenizer().ids))
    save_model(folder, built, recipe, VOCABULARY, {"data": {"sources": "phantoms"}})
    return load_model(folder)


def files(folder, count=5):
    for number in range(count):
        write_image(folder / f"{number}.png", number)
    return [ImageFile(folder / f"{number}.png", Laterality.LEFT) for number in range(count)]


@pytest.fixture
def encoded(monkeypatch):
    """How many pictures went through the encoder."""
    counted = []
    original = features._encode_batch

    def counting(*arguments):
        counted.extend(arguments[3])
        return original(*arguments)

    monkeypatch.setattr(features, "_encode_batch", counting)
    return counted


def test_features_are_the_encoders_own_in_eval_mode_in_the_order_of_the_pictures(model, tmp_path):
    pictures = files(tmp_path)
    found = encode(model, [*pictures, pictures[1]], tmp_path / "cache", OWN_SIZE)
    planes = np.stack([picture.read() for picture in [*pictures, pictures[1]]])
    with torch.inference_mode():
        assert torch.allclose(found.pooled, model.features(planes).pooled, atol=1e-5)
        assert torch.allclose(found.embeddings, model.embed_images(planes), atol=1e-5)
    assert (found.pooled.dtype, tuple(found.pooled.shape), found.problems) == (torch.float32, (6, 24), {})


def test_a_picture_is_encoded_once_by_its_content_wherever_it_lies(model, tmp_path, encoded):
    first = encode(model, files(tmp_path / "a"), tmp_path / "cache", OWN_SIZE)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write_image(tmp_path / "b/3.png", 77)
    moved = [ImageFile(tmp_path / "b" / f"{number}.png", Laterality.LEFT) for number in (4, 3)]
    second = encode(model, moved, tmp_path / "cache", OWN_SIZE)
    assert len(encoded) == 6
    assert torch.equal(second.pooled[0], first.pooled[4])
    assert not torch.equal(second.pooled[1], first.pooled[3])


def test_views_of_one_phantom_file_are_told_apart(model, tmp_path, encoded):
    write_phantoms(tmp_path, training=1, others=0)
    path = exam_path(tmp_path, 0)
    found = encode(model, [PhantomView(path, view) for view in range(4)], tmp_path / "cache", OWN_SIZE)
    assert len(encoded) == 4
    assert len({tuple(row) for row in found.pooled.tolist()}) == 4


def test_another_size_or_precision_is_encoded_anew(model, tmp_path, encoded):
    pictures = files(tmp_path, 2)
    plain = encode(model, pictures, tmp_path / "cache", OWN_SIZE)
    small = encode(model, pictures, tmp_path / "cache", Encoding((HEIGHT / 2, WIDTH / 2), 3, "float32"))
    half = encode(model, pictures, tmp_path / "cache", Encoding((0, 0), 3, "bfloat16"))
    assert len(encoded) == 6
    assert not torch.allclose(plain.pooled, small.pooled, atol=1e-3)
    assert half.pooled.dtype == torch.float32
    assert torch.allclose(plain.pooled, half.pooled, rtol=0.1, atol=0.05)


def test_what_cannot_be_read_is_named_kept_out_of_the_cache_and_read_again(model, tmp_path):
    pictures = files(tmp_path, 3)
    (tmp_path / "0.png").write_bytes(b"no picture")
    (tmp_path / "1.png").unlink()
    found = encode(model, pictures, tmp_path / "cache", OWN_SIZE)
    assert "0.png: cannot be read as an image: UnidentifiedImageError" in found.problems[0]
    assert "1.png: cannot be read: " in found.problems[1]
    assert not found.pooled[:2].any()
    assert found.pooled[2].any()
    files(tmp_path, 3)
    features._bytes_hash.cache_clear()
    assert encode(model, pictures, tmp_path / "cache", OWN_SIZE).problems == {}


def test_strict_stops_at_a_picture_that_cannot_be_read_and_none_at_all_is_an_error(model, tmp_path):
    pictures = files(tmp_path, 2)
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png: cannot be read as an image.*leave --strict out"):
        encode(model, pictures, tmp_path / "cache", OWN_SIZE, strict=True)
    with pytest.raises(DataError, match=r"1\.png: cannot be read as an image.*No picture could be read"):
        encode(model, pictures[1:], tmp_path / "other", OWN_SIZE)


def test_an_encoder_without_a_text_tower_gives_features_and_no_embeddings(model, tmp_path):
    pictures = files(tmp_path, 2)
    bare = replace(model, kind="classifier", dual=None)
    found = encode(bare, pictures, tmp_path / "cache", OWN_SIZE)
    assert found.embeddings is None
    assert torch.equal(found.pooled, encode(model, pictures, tmp_path / "cache", OWN_SIZE).pooled)


def test_a_picture_of_one_value_is_finite_and_flagged(model, tmp_path):
    Image.fromarray(np.full((HEIGHT, WIDTH), 90, np.uint8)).save(tmp_path / "flat.png")
    found = encode(model, [ImageFile(tmp_path / "flat.png", Laterality.LEFT)], tmp_path / "cache", OWN_SIZE)
    assert found.constant.tolist() == [True]
    assert bool(torch.isfinite(found.pooled).all())


def test_whole_images_are_prepared_at_the_size_that_is_encoded(model):
    assert Encoding((128, 96), 1, "float32").input_of(model).preset == "fit-128x96"
    with pytest.raises(RecipeError, match=r"image_size is 128 x 0; give both sides"):
        Encoding((128, 0), 1, "float32").input_of(model)
    with pytest.raises(RecipeError, match=r"precision is 'int8'; there are float32, bfloat16"):
        Encoding((0, 0), 1, "int8").input_of(model)
