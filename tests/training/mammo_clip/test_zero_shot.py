"""Prompts of classes, and how cosines become probabilities."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from training.mammo_clip.grammar import NEGATIONS, NO_FINDING
from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.probe import load_probe_recipe
from training.mammo_clip.prompts import SETS, prompts_of
from training.mammo_clip.zero_shot import class_embeddings, class_probabilities, load_zero_shot_recipe

RECIPES = Path(__file__).parents[3] / "training/recipes"


def unit(*rows):
    return functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def test_published_scoring_takes_raw_cosines_and_keeps_the_ranks():
    images, classes = unit([1.0, 0.1], [0.2, 1.0], [0.5, 0.4]), unit([1.0, 0.0], [0.0, 1.0])
    raw = class_probabilities(images, classes, None)
    scaled = class_probabilities(images, classes, 14.3)
    assert torch.allclose(raw, functional.softmax(images @ classes.T, dim=1))
    assert (raw[:, 1] - 0.5).abs().max() < 0.25
    assert torch.equal(raw[:, 1].argsort(), scaled[:, 1].argsort())


def test_prompts_of_a_class_are_an_ensemble():
    classes = class_embeddings([unit([1.0, 0.0], [0.0, 1.0]), unit([0.0, -1.0])])
    assert torch.allclose(classes, unit([1.0, 1.0], [0.0, -1.0]))


def test_published_prompts_are_one_a_class_negative_first():
    mass, density = (prompts_of("published", label, sided=True) for label in ("Mass", "density"))
    assert mass is not None
    assert mass.classes == (("no mass",), ("mass",))
    assert density is not None
    assert [len(prompts) for prompts in density.classes] == [1, 1, 1, 1]
    assert prompts_of("published", "Focal_Asymmetry", sided=True) is None


def test_the_grammars_ensembles_hold_every_sentence_of_a_finding_and_name_sides_only_where_images_have_them():
    plain, sided = (prompts_of("grammar", "Mass", sided=sided) for sided in (False, True))
    assert plain is not None
    assert sided is not None
    negatives, positives = plain.classes
    assert (len(negatives), len(positives)) == (len(NEGATIONS) + len(NO_FINDING), 400)
    assert len(sided.classes[1]) == 800
    assert not any("left" in sentence or "right" in sentence for sentence in (*negatives, *positives))
    assert all("left" in sentence or "right" in sentence for sentence in sided.classes[1])


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("label", ["Mass", "Suspicious_Calcification", "Architectural_Distortion", "cancer", "density"])
def test_no_sentence_stands_in_two_classes(kind, label):
    prompts = prompts_of(kind, label, sided=False)
    if prompts is not None:
        every = [sentence for sentences in prompts.classes for sentence in sentences]
        assert len(every) == len(set(every))
        assert all(prompts.classes)


def test_a_set_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="prompts is 'mine'; there are published, grammar, phrases"):
        prompts_of("mine", "Mass", sided=False)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("probe-*.toml")), ids=lambda path: path.stem)
def test_recipes_of_probes_are_whole(path):
    assert load_probe_recipe(path).name == path.stem


@pytest.mark.parametrize("path", sorted(RECIPES.glob("zero-shot-*.toml")), ids=lambda path: path.stem)
def test_recipes_of_prompts_are_whole(path):
    assert load_zero_shot_recipe(path).name == path.stem
