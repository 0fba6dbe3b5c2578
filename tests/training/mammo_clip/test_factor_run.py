"""The command `factor` on drawn exams whose lesions an encoder's channels show: what it writes, that it finds them."""

import argparse
import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from node.mammography.views import STANDARD_VIEWS, Laterality
from tests.training.mammo_clip import planted
from training.cache import load_exam
from training.mammo_clip.breasts import DataError
from training.mammo_clip.factor import PaperMapper
from training.mammo_clip.factor_command import add_factor
from training.mammo_clip.factor_features import encode, grid_of, view_set
from training.mammo_clip.factor_folder import load_any_mapper, load_baselines, load_mapper, load_phrases, seed_folders
from training.mammo_clip.factor_phrases import phrase_truth, split_phrases
from training.mammo_clip.factor_recipe import FactorPhrases, load_factor_recipe
from training.mammo_clip.factor_views import FINDINGS, balanced, phantom_views, truth_of
from training.mammo_clip.grammar import Location
from training.mammo_clip.loading import load_model
from training.mammo_clip.open_vocabulary import ask, load_asker, phantom_image
from training.mammo_clip.phrases import Phrase
from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.released import CheckpointError

SIZE = (planted.HEIGHT, planted.WIDTH)


def factor(*words):
    parser = argparse.ArgumentParser()
    add_factor(parser.add_subparsers())
    arguments = parser.parse_args(["factor", *map(str, words)])
    arguments.run(arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """exams/, model/, recipe.toml and, trained from them, mapper/."""
    folder = tmp_path_factory.mktemp("factor")
    for first, count in (planted.TRAINING, planted.VALIDATION):
        planted.write_exams(folder / "exams", first, count)
    planted.write_model(folder / "model")
    (folder / "recipe.toml").write_text(planted.RECIPE, encoding="utf-8")
    train(folder, "mapper")
    return folder


def train(folder, out, recipe="recipe.toml"):
    words = ("--model", folder / "model", "--recipe", folder / recipe, "--data", f"phantoms={folder / 'exams'}")
    factor(*words, "--cache", folder / "cache", "--out", folder / out)


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder / "model")


@pytest.fixture(scope="module")
def asking(folder, model):
    return load_asker(model, folder / "mapper")


def figures(folder):
    return json.loads((folder / "mapper" / "figures.json").read_text())


def test_it_points_at_what_the_channels_show(folder):
    found = figures(folder)["sources"]["FActOR"]
    for name in ("Mass", "Suspicious_Calcification"):
        assert found[name]["pointing"]["value"] >= 0.8
        assert found[name]["area_chance"] < 0.1
        assert found[name]["box_hit_0.25"]["value"] >= 0.8
        assert found[name]["boxes_a_view"] <= 2


def test_every_seed_is_shown_and_the_best_on_validation_is_kept(folder):
    table = figures(folder)
    means = {seed: np.mean(list(found["pointing"].values())) for seed, found in table["seeds"].items()}
    assert set(means) == {"0", "1"}
    assert means[str(table["chosen seed"])] == max(means.values())
    assert set(seed_folders(folder / "mapper")) == {0, 1}
    chosen, _, record = load_mapper(folder / "mapper")
    same, _, _ = load_mapper(seed_folders(folder / "mapper")[record["seed"]])
    assert all(torch.equal(a, b) for a, b in zip(chosen.state_dict().values(), same.state_dict().values(), strict=True))


def test_the_card_says_what_masks_were_used_for(folder):
    card = " ".join((folder / "mapper" / "card.md").read_text().split())
    assert "Masks were used for that choice and for the heat's scale alone" in card
    assert "| 0 |" in card
    assert "fixed channel weights" in card
    assert "Laplacian of Gaussian" in card


def test_baselines_ceiling_and_froc_stand_beside(folder):
    table = figures(folder)
    assert set(table["sources"]) == {
        "FActOR",
        "fixed channel weights",
        "multiple-instance pooling, seed 0",
        "true mask in the same cells",
        "Laplacian of Gaussian",
    }
    assert table["sources"]["true mask in the same cells"]["Mass"]["pointing"]["value"] == 1.0
    assert table["marks"]["Mass"]["froc"]["normal_views"] > 0
    assert 0.0 <= table["marks"]["Mass"]["average_precision_0.5"]["value"] <= 1.0
    assert {weights.shape for weights in load_baselines(folder / "mapper").values()} == {(8, 3)}


def test_curves_have_each_epoch_of_each_seed(folder):
    with (folder / "mapper" / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["epoch"]) for row in rows] == [(str(s), str(e)) for s in (0, 1) for e in range(1, 13)]
    first, last = (float(rows[at]["training_loss"]) for at in (0, 11))
    assert last < first


def test_the_encoder_is_as_it_was(folder, model):
    again = load_model(folder / "model")
    assert again.weights_hash == model.weights_hash
    assert not model.image_encoder.training


def test_a_folder_with_a_run_is_not_overwritten(folder):
    with pytest.raises(SystemExit, match="a run stands there already"):
        train(folder, "mapper")


def test_training_and_asking_do_not_mix(folder, tmp_path):
    with pytest.raises(SystemExit, match="not both"):
        factor("--model", folder / "model", "--text", "mass", "--recipe", folder / "recipe.toml", "--out", tmp_path)


def test_encoded_views_are_taken_from_the_cache(folder, model, monkeypatch):
    views = view_set(phantom_views(folder / "exams", *planted.VALIDATION, render=False), SIZE, folder / "cache")
    first = encode(model, views, folder / "cache", maps=2)
    monkeypatch.setattr(planted.PlantedEncoder, "features", None)
    second = encode(model, views, folder / "cache", maps=2)
    assert np.array_equal(first.statistics, second.statistics)
    assert second.maps.shape[0] == 2


def test_statistics_are_those_of_the_maps(folder, model):
    views = view_set(phantom_views(folder / "exams", *planted.VALIDATION, render=False), SIZE, folder / "cache")
    encoded = encode(model, views, folder / "cache", maps=-1)
    cells = encoded.maps_of([3])[0].flatten(1)
    found = encoded.tensor()[3]
    assert torch.allclose(found[:, 0], cells.amax(1), atol=2e-3)
    assert torch.allclose(found[:, 32], cells.mean(1), atol=2e-3)
    assert torch.allclose(found[:, 33], cells.std(1, correction=0), atol=2e-3)


def test_views_without_findings_are_drawn_and_lesions_all_stay(folder):
    views = phantom_views(folder / "exams", *planted.TRAINING, render=False)
    chosen = balanced(views, 0.5, 3)
    having = [view for view in views if view.seen]
    assert [view for view in chosen if view.seen] == having
    assert len(chosen) == round(1.5 * len(having))
    assert chosen == balanced(views, 0.5, 3)


def test_phrases_held_out_train_in_no_place():
    split = split_phrases(FactorPhrases(("oval mass",), 5, 8))
    assert len(split.training) >= 200
    assert {phrase.text for phrase in split.held_out} == {"oval mass"}
    assert "oval mass" not in {phrase.bare for phrase in split.training}
    assert not {phrase.text for phrase in split.held_out_placed} & {phrase.text for phrase in split.training}
    with pytest.raises(RecipeError, match="purple mass: not among"):
        split_phrases(FactorPhrases(("purple mass",), 5, 8))
    with pytest.raises(RecipeError, match="findings themselves must train"):
        split_phrases(FactorPhrases(("mass",), 5, 8))


def test_a_finding_elsewhere_is_neither_there_nor_absent(folder):
    views = phantom_views(folder / "exams", *planted.TRAINING, render=False)
    view = next(view for view in views if view.seen and view.seen[0].location.position in ("upper", "lower"))
    seen = view.seen[0]
    other = {"upper": "lower", "lower": "upper"}[seen.location.position]
    chosen = [Phrase(seen.name, "", place) for place in (seen.location, Location(other), Location())]
    truth = phrase_truth(chosen, [view])
    if seen.name != "Suspicious_Calcification":
        assert truth.present[0].tolist() == [True, False, True]
    assert not truth.absent[0].any()


def test_masks_of_another_size_are_refused(folder):
    view = phantom_views(folder / "exams", 0, 1, render=False)[0]
    with pytest.raises(DataError, match="masks would not fit"):
        truth_of(view, (760, 456))


def test_the_grid_is_the_encoder_s_own(model):
    grid = grid_of(model)
    assert (grid.stride, grid.offset) == ((8.0, 8.0), (4.0, 4.0))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('mapper = "shared"', 'mapper = "other"', "there are shared, paper"),
        ("seeds = 2", "seeds = 0", "1 at least"),
        ("temperature = 0.07\nones", "temperature = 0\nones", "not above 0"),
        ("hidden = 32", "hiden = 32", "unknown key hiden"),
    ],
)
def test_recipes_that_cannot_be_are_errors(tmp_path, old, new, words):
    path = tmp_path / "recipe.toml"
    path.write_text(planted.RECIPE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RecipeError, match=words):
        load_factor_recipe(path)


def view_with(folder, *names):
    """A view of the drawn exams that shows just these findings."""
    for first, count in (planted.VALIDATION, planted.TRAINING):
        for view in phantom_views(folder / "exams", first, count, render=False):
            if {seen.name for seen in view.seen} == set(names):
                return view
    raise LookupError(names)


def image_of(view):
    plane = load_exam(view.picture.path).images[view.picture.view]
    return phantom_image(view.row, plane, view.view)


def test_a_phrase_is_shown_where_it_is(folder, model, asking):
    asker, known = asking
    view = view_with(folder, "Mass")
    answer = asker.answer(ask(model, known, "mass"), image_of(view))
    truth = truth_of(view, SIZE)
    assert answer.boxes
    assert truth.masks["Mass"][answer.boxes[0].peak]
    assert answer.words == "shown"


def test_of_two_lesions_the_one_asked_for_is_pointed_at(folder, model, asking):
    asker, known = asking
    plane = image_of(view_with(folder, "Mass")).plane.copy()
    plane[plane > 200] = 120
    plane[40:56, 8:24], plane[96:112, 24:40] = planted.GREYS[0], planted.GREYS[1]
    image = phantom_image("two lesions", plane, STANDARD_VIEWS[1])
    for phrase, (top, left) in (("mass", (40, 8)), ("suspicious calcifications", (96, 24))):
        heat = asker.answer(ask(model, known, phrase), image).heat
        row, column = np.unravel_index(int(heat.argmax()), heat.shape)
        assert heat[row, column] > 0.0
        assert top <= row < top + 16
        assert left <= column < left + 16


def test_words_of_place_choose_between_lesions(folder, model, asking):
    asker, known = asking
    plane = image_of(view_with(folder, "Mass")).plane.copy()
    plane[plane > 200] = 120
    plane[40:56, 8:24] = plane[96:112, 24:40] = planted.GREYS[0]
    image = phantom_image("two masses", plane, STANDARD_VIEWS[1])  # LCC: outer is up
    upper = asker.answer(ask(model, known, "mass in the outer breast"), image)
    lower = asker.answer(ask(model, known, "mass in the inner breast"), image)
    assert upper.boxes[0].peak[0] < 76 <= lower.boxes[0].peak[0]
    told = asker.answer(ask(model, known, "mass in the upper breast"), image)
    assert told.remarks[-1] == "upper: not applied, a view CC cannot show it"
    assert len(told.boxes) == 2


def test_what_is_denied_gets_no_heat_and_an_answer(folder, model, asking):
    asker, known = asking
    denied = ask(model, known, "there is no mass")
    there = asker.answer(denied, image_of(view_with(folder, "Mass")))
    views = phantom_views(folder / "exams", *planted.VALIDATION, render=False)
    normal = [asker.answer(denied, image_of(view)) for view in views if not view.seen]
    for answer in (there, *normal):
        assert not answer.boxes
        assert not answer.heat.any()
    assert there.words.startswith("its absence cannot be confirmed")
    assert np.mean([answer.words.startswith("absent") for answer in normal]) >= 0.9


def test_another_side_or_view_is_not_asked(folder, model, asking):
    asker, known = asking
    image = image_of(view_with(folder, "Mass"))
    side = {"R": "left", "L": "right"}[image.view.laterality.value]
    answer = asker.answer(ask(model, known, f"mass in the {side} breast"), image)
    assert answer.words == "not asked of this view"
    assert not answer.heat.any()


def test_unknown_words_are_said(model, asking):
    _, known = asking
    assert "zebra" in ask(model, known, "zebra mass").remarks[0]
    assert not ask(model, known, "mass").remarks
    with pytest.raises(DataError, match="names no finding"):
        ask(model, known, "in the left breast")


def test_known_phrases_lie_beside_the_mapper(folder):
    known = load_phrases(folder / "mapper")
    assert "spiculated mass" in known.phrases
    assert "spiculated" in known.words
    assert "oval mass" not in known.phrases


def test_the_command_answers_with_pictures_and_marks(folder, tmp_path, capsys):
    views = phantom_views(folder / "exams", *planted.TRAINING, render=False)
    view = next(v for v in views if [s.name for s in v.seen] == ["Mass"] and v.view.laterality is Laterality.LEFT)
    plane = load_exam(view.picture.path).images[view.picture.view]
    Image.fromarray(plane).save(tmp_path / "left.png")
    words = ("--model", folder / "model", "--mapper", folder / "mapper", "--view", view.view, "--out", tmp_path / "out")
    factor(*words, "--text", f"mass in the {view.view}", tmp_path / "left.png")
    table = json.loads((tmp_path / "out" / "marks.json").read_text())
    (image,) = table["images"]
    assert image["view"] == view.view.name
    assert image["answer"] == "shown"
    left, top, right, bottom = image["marks"][0]["stored_box"]
    mask = truth_of(view, SIZE).masks["Mass"]
    assert mask[int((top + bottom) / 2), int((left + right) / 2)]
    with Image.open(tmp_path / "out" / "000-left.png") as picture:
        assert picture.size[1] > 100
    assert "left: shown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("phantom:x",), "write phantom:SEED"),
        (("nothing.png",), "nothing.png: cannot be read as an image"),
        (("--view", "LML", "nothing.png"), "--view is LML; there are RCC"),
        ((), "to ask give --mapper FOLDER and images"),
    ],
)
def test_bad_questions_end_with_words(folder, tmp_path, words, error):
    with pytest.raises(SystemExit, match=error):
        factor(
            *("--model", folder / "model", "--mapper", folder / "mapper", "--text", "mass", "--out", tmp_path), *words
        )


def test_a_mapper_of_other_weights_is_refused(folder, tmp_path):
    planted.write_model(tmp_path / "other")
    state = load_model(tmp_path / "other")
    other = tmp_path / "mapper"
    other.mkdir()
    for file in ("mapper.safetensors", "phrases.json"):
        (other / file).write_bytes((folder / "mapper" / file).read_bytes())
    record = json.loads((folder / "mapper" / "mapper.json").read_text())
    (other / "mapper.json").write_text(json.dumps({**record, "model_weights": "0" * 64}))
    with pytest.raises(CheckpointError, match="was trained on other weights"):
        load_asker(state, other)
    (other / "mapper.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no mapper"):
        load_asker(state, other)


def test_the_published_mapper_trains_and_answers_for_its_findings(folder, model):
    recipe = planted.RECIPE.replace('mapper = "shared"', 'mapper = "paper"').replace("seeds = 2", "seeds = 1", 1)
    recipe = (
        recipe.replace("strongest = 1", "strongest = 3")
        .replace("epochs = 12", "epochs = 3")
        .replace("views = 16", "views = 0")
    )
    (folder / "paper.toml").write_text(recipe, encoding="utf-8")
    train(folder, "paper", "paper.toml")
    found = load_any_mapper(folder / "paper")
    assert isinstance(found.mapper, PaperMapper)
    assert set(found.finding_names) <= set(FINDINGS)
    with pytest.raises(CheckpointError, match="takes no other phrase"):
        load_mapper(folder / "paper")
    asker, known = load_asker(model, folder / "paper")
    answer = asker.answer(ask(model, known, "mass"), image_of(view_with(folder, "Mass")))
    assert 0.0 <= answer.heat.min() <= answer.heat.max() <= 1.0
