from pathlib import Path

import pytest

from tests.training.mammo_clip.tiny_runs import write_recipe
from training.mammo_clip.augmentation import as_published
from training.mammo_clip.loss import LossSettings
from training.mammo_clip.pretraining_recipe import RecipeError, load_pretraining_recipe
from training.mammo_clip.schedule import rate_factor

RECIPES = Path(__file__).parents[3] / "training/recipes"


def shipped(name: str):
    return load_pretraining_recipe(RECIPES / f"mammo-clip-{name}.toml")


def test_schedule_ends_at_zero_and_stays_there():
    assert rate_factor(150, 10, 100) == pytest.approx(0.0, abs=1e-30)


def test_paper_recipe_has_the_published_values():
    recipe = shipped("paper")
    assert recipe.augmentation == as_published()
    assert recipe.loss == LossSettings()
    optimisation = recipe.optimisation
    assert (optimisation.learning_rate, optimisation.weight_decay, optimisation.decay) == (5e-5, 1e-4, "all")
    assert (optimisation.epochs, optimisation.warmup_epochs, optimisation.skipped_steps_count) == (10, 1.0, True)
    assert (recipe.image.encoder, recipe.image.padding, recipe.image.dropout) == ("b5", "static", 0.4)
    assert (recipe.text.hidden, recipe.text.layers, recipe.text.max_length) == (768, 12, 256)
    assert (recipe.data.height, recipe.data.width, recipe.seed) == (1520, 912, 10)


def test_corrected_recipe_differs_in_the_switches():
    paper, corrected = shipped("paper"), shipped("corrected")
    assert (paper.data.flipped_texts, corrected.data.flipped_texts) == ("published", "swap")
    assert (paper.data.constant_images, corrected.data.constant_images) == ("published", "zeros")
    assert (paper.data.shuffle_sentences, corrected.data.shuffle_sentences) == (False, True)
    assert (paper.loss.mask_identical_texts, corrected.loss.mask_identical_texts) == (False, True)
    assert (paper.loss.maximum_logit_scale, corrected.loss.maximum_logit_scale) == (None, 100.0)
    assert corrected.augmentation.rotation == (-20.0, 20.0)
    assert (corrected.image.encoder, corrected.image.padding) == (paper.image.encoder, paper.image.padding)


def test_small_recipe_needs_no_given_file():
    small = shipped("small")
    assert (small.text.vocabulary, small.text.weights, small.image.weights) == ("own", "random", "imagenet")
    assert small.data.phantom_exams
    assert not small.augmentation.horizontal_flip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": '"three"'}, "seed is 'three', not int"),
        ({"seed": "true"}, "seed is True, not int"),
        ({"epochs": "0"}, "optimisation: epochs is 0, too small"),
        ({"scale": "1.0"}, "augmentation: scale is 1.0, not a range of two numbers"),
        ({"learning_rate": "nan"}, "learning_rate is nan, not a number"),
        ({"precision": '"half"'}, "optimisation.precision is 'half'; there are float32, bfloat16"),
        ({"flipped_texts": '"none"'}, "data.flipped_texts is 'none'; there are swap, published"),
        ({"seed": "3\nsede = 4"}, "unknown key sede; there are "),
        ({"frozen_statistics": "1"}, "image: frozen_statistics is 1, not bool"),
        ({"batch": "4\nbtach = 3"}, "optimisation: unknown key btach"),
        ({"name": "["}, "cannot be read as a recipe"),
    ],
)
def test_wrong_key_is_named(tmp_path, change, words):
    path = write_recipe(tmp_path, **change)
    with pytest.raises(RecipeError) as caught:
        load_pretraining_recipe(path)
    assert words in str(caught.value)
    assert "recipe.toml" in str(caught.value)


def test_missing_key_is_named(tmp_path):
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().replace("patience = 0\n", ""))
    with pytest.raises(RecipeError, match="optimisation: key patience is missing"):
        load_pretraining_recipe(path)
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read as a recipe"):
        load_pretraining_recipe(tmp_path / "none.toml")
