import dataclasses

import numpy as np
import pytest
import torch

from training.cache import NO_FINDING, CachedExam, TruthBox, load_exam, save_exam
from training.crops import EXCLUDED_PATIENTS, SPLITS, list_crops, load_crop
from training.data import TILE_PX, PhantomTiles, TileSources
from training.losses import crop_logits, dense_loss
from training.maps import MapNetwork, pretrained_maps
from training.recipe import HeadsRecipe, TilesRecipe, load_recipe
from training.summaries import ExamSummaries, summarise_exams
from training.train_heads import draw_present, train_heads
from training.train_maps import start, train_step


def synthetic_exam(seed, malignant=True):
    """Four noisy views; the right breast shows a bright square where the truth says mass."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 90, (4, 256, 224), dtype=np.uint8)
    flags, boxes = np.zeros_like(images), []
    for view in (0, 2):
        top, left = (int(value) for value in rng.integers(40, 150, 2))
        images[view, top : top + 48, left : left + 40] += 120
        flags[view, top : top + 48, left : left + 40] = 1 | (128 if malignant else 0)
        boxes.append(TruthBox(view, 0, malignant, left, top, left + 40, top + 48))
    boxes.append(TruthBox(1, NO_FINDING, False, 5, 5, 15, 15))
    return CachedExam(seed, images, flags, tuple(boxes), (malignant, False), 1)


@pytest.fixture
def tiles_recipe():
    recipe = load_recipe_of_the_release().maps
    return dataclasses.replace(recipe, phantom_tiles=2, crop_tiles=0, warmup_steps=2, learning_rate=3e-3)


def load_recipe_of_the_release():
    from pathlib import Path

    return load_recipe(Path(__file__).parents[2] / "training" / "recipes" / "first.toml")


def test_the_recipe_of_the_release_is_whole():
    recipe = load_recipe_of_the_release()
    assert isinstance(recipe.maps, TilesRecipe)
    assert isinstance(recipe.heads, HeadsRecipe)
    assert recipe.maps.first_exam + recipe.maps.exams <= recipe.heads.first_exam


def test_a_recipe_with_an_unknown_key_is_refused(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text('name = "x"\nflavour = 1\n')
    with pytest.raises(ValueError, match=r"missing or unknown keys"):
        load_recipe(path)


def test_a_cached_exam_comes_back_as_it_was(tmp_path):
    exam = synthetic_exam(3)
    back = load_exam(save_exam(tmp_path, exam))
    assert np.array_equal(back.images, exam.images)
    assert np.array_equal(back.flags, exam.flags)
    assert (back.boxes, back.malignant_breasts, back.density) == (exam.boxes, exam.malignant_breasts, exam.density)


def test_the_first_batch_overfits(tiles_recipe):
    torch.manual_seed(0)
    sources = TileSources(PhantomTiles((synthetic_exam(0),), on_lesion=1.0), None)
    training = start(tiles_recipe, pretrained_maps(16))
    batch = sources.draw((1, 0), np.random.default_rng(0))
    losses = [train_step(training, tiles_recipe, batch) for _ in range(15)]
    assert losses[-1] < 0.6 * losses[0]


def test_training_resumes_where_it_stopped(tiles_recipe, tmp_path):
    torch.manual_seed(0)
    sources = TileSources(PhantomTiles((synthetic_exam(0),)), None)
    first = start(tiles_recipe, MapNetwork(8))
    train_step(first, tiles_recipe, sources.draw((2, 0), np.random.default_rng(0)))
    first.save(tmp_path / "half.checkpoint")
    second = start(tiles_recipe, MapNetwork(8))
    second.load(tmp_path / "half.checkpoint")
    batch = sources.draw((2, 0), np.random.default_rng(1))
    losses = []
    for training in (first, second):
        torch.manual_seed(7)
        losses += [train_step(training, tiles_recipe, batch), train_step(training, tiles_recipe, batch)]
    assert losses[:2] == losses[2:]
    assert first.step == second.step == 3


def test_tiles_carry_their_truth():
    sources = TileSources(PhantomTiles((synthetic_exam(1),), on_lesion=1.0), None)
    batch = sources.draw((4, 0), np.random.default_rng(2))
    assert batch.tiles.shape == (4, 1, TILE_PX, TILE_PX)
    assert batch.targets[:, 0].amax() > 0.9
    assert torch.equal(batch.targets[:, 0], batch.targets[:, 2])
    bright = torch.nn.functional.avg_pool2d(batch.tiles, 8)[:, 0] > 0.5
    assert bright[batch.targets[:, 0] > 0.99].float().mean() > 0.9


def test_dense_loss_is_least_at_the_truth():
    targets = torch.zeros(1, 5, 6, 6)
    targets[:, :, 2:4, 2:4] = 1.0
    assert dense_loss(20 * targets - 10, targets) < 0.01 * dense_loss(torch.zeros_like(targets), targets)


def test_logits_of_crops_come_row_by_row():
    maps = torch.zeros(1, 5, 8, 8)
    maps[0, 0, :4, 4:] = 3.0
    assert crop_logits(maps)[:, 0].tolist() == [0.0, 3.0, 0.0, 0.0]


def test_no_view_set_is_empty():
    torch.manual_seed(0)
    assert draw_present(500, 0.9).any(1).all()


def test_heads_learn_which_breast_is_malignant(tmp_path):
    torch.manual_seed(0)
    network = pretrained_maps(8)
    paths = tuple(save_exam(tmp_path, synthetic_exam(seed, malignant=seed % 2 == 0)) for seed in range(12))
    data = summarise_exams(network, paths)
    data.save(tmp_path / "data")
    data = ExamSummaries.load(tmp_path / "data")
    assert data.findings.sum() == 2 * 12
    recipe = HeadsRecipe(0, 12, 60, 12, 3e-3, 0.0, 0.1)
    heads = train_heads(data, recipe, 8, seed=0)
    present = torch.ones(12, 4, dtype=torch.bool)
    _, _, breasts, findings, _ = heads(data.views(torch.arange(12)), present)
    assert (findings[:, [0, 2], 0].mean() > findings[:, [1, 3], 0].mean()).item()
    assert (breasts[:, 0].mean() > breasts[:, 1].mean()).item()


def test_no_patient_is_in_two_splits(crops_folder):
    patients = [{crop.patient for crop in list_crops(crops_folder, split)} for split in SPLITS]
    assert sum(len(group) for group in patients) == len(set.union(*patients))
    assert all(len(group) > 100 for group in patients)
    assert not EXCLUDED_PATIENTS & set.union(*patients)


def test_crops_have_one_size_and_both_kinds(crops_folder):
    crops = list_crops(crops_folder)
    assert {crop.kind for crop in crops} == {0, 1}
    assert {load_crop(crop).shape for crop in crops[::400]} == {(96, 96)}
