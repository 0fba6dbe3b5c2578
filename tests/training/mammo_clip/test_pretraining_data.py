"""Sources: image-text tables, DICOM files among them, and phantom breasts."""

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest

from node.mammography.pixels import prepare, preset
from node.mammography.views import LCC, Laterality, ViewPosition
from tests.training.mammo_clip.tiny_runs import data_of, write_recipe, write_table
from training.cache import RENDER_MM, exam_path, load_exam
from training.mammo_clip.breasts import Breast, DataError, Reported, numbered, split_by_fold
from training.mammo_clip.grammar import Location
from training.mammo_clip.images import Decoded, ImageFile, PhantomView, decode
from training.mammo_clip.label_breasts import label_breasts
from training.mammo_clip.phantom_breasts import location_seen, phantom_breasts
from training.mammo_clip.pretraining_data import load_data, parse_source
from training.mammo_clip.pretraining_recipe import load_pretraining_recipe
from training.mammo_clip.readers import VINDR_FINDINGS, ImageRow
from training.mammo_clip.seen import Seen, SeenViews
from training.mammo_clip.tables import Table
from training.mammo_clip.texts import Report
from training.phantoms import make_exam, write_dicom

REPORT = Reported(Report((("a b c",),)))


def load(folder, **options):
    recipe = load_pretraining_recipe(write_recipe(folder))
    return load_data(recipe, [parse_source(data_of(folder))], folder / "cache", **options)


def test_table_is_split_by_fold_and_decoded_once(tmp_path):
    write_table(tmp_path)
    data = load(tmp_path)
    assert (len(data.training), len(data.validation)) == (16, 4)
    assert data.training.rows[0].row == "line 6"
    assert [len(files) for files in data.training.rows[0].views] == [1, 2]
    assert data.training.plane(0).shape == (64, 48)
    again = load(tmp_path)
    assert again.facts == data.facts
    assert len(list((tmp_path / "cache").glob("*.u8"))) == 1


def test_broken_image_is_left_out_and_listed_or_stops(tmp_path):
    write_table(tmp_path)
    broken = tmp_path / "images/p5/L-cc.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = load(tmp_path)
    assert (len(data.training), len(data.problems)) == (16, 1)
    assert "p5/L-cc.png: cannot be read as an image" in data.problems[0]
    with pytest.raises(DataError, match=r"L-cc\.png.*--strict"):
        load(tmp_path, strict=True)


def test_report_that_is_empty_once_it_is_cleaned_is_left_out_by_its_line(tmp_path):
    table = write_table(tmp_path)
    lines = table.read_text().splitlines()
    lines[7] = "p3,R,['R-cc.png'],[],['No.'],[],0"
    table.write_text("\n".join(lines) + "\n")
    data = load(tmp_path)
    assert len(data.training) == 15
    assert any("line 8: the report is empty" in problem for problem in data.problems)


def test_nothing_left_is_an_error_with_the_first_reason():
    picture = PhantomView(Path("exam.npz"), 0)
    breast = Breast("line 2", "p", ((picture,),), REPORT)
    decoded = Decoded(np.zeros((1, 2, 2), np.uint8), {0: "it is broken"})
    with pytest.raises(DataError, match="no breast is left to train on: it is broken"):
        numbered([breast], [picture], decoded)


def test_patient_on_both_sides_of_the_split_is_refused_by_row_and_not_by_name():
    rows = [Breast(f"line {n}", patient, (), REPORT, fold) for n, patient, fold in ((2, "Ann", 0), (3, "Ann", 1))]
    with pytest.raises(DataError, match="1 patients stand in fold 1 and in another: line 3") as caught:
        split_by_fold(rows, 1)
    assert "Ann" not in str(caught.value)
    with pytest.raises(DataError, match="fold 7 has 0 rows"):
        split_by_fold(rows, 7)


@pytest.mark.parametrize("words", ["phantoms", "rsna=x", "image-text=table.csv", "=x"])
def test_source_that_is_none_is_explained(words):
    with pytest.raises(DataError, match="image-text=TABLE"):
        parse_source(words)


def test_recipe_without_phantoms_refuses_them(tmp_path):
    recipe = load_pretraining_recipe(write_recipe(tmp_path))
    with pytest.raises(DataError, match="no phantom_exams"):
        load_data(recipe, [parse_source(f"phantoms={tmp_path}")], tmp_path / "cache")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom_breasts(folder, first_with_lesions(), 1)
    return folder


def first_with_lesions() -> int:
    return next(seed for seed in range(100) if len(make_exam(seed).lesions) == 2)


def test_dicom_is_prepared_by_the_node_and_brought_to_size(tmp_path):
    (path,) = write_dicom(make_exam(1), tmp_path, views=[LCC], pixel_mm=4 * RENDER_MM)
    file = ImageFile(path, Laterality.LEFT)
    expected = prepare(pydicom.dcmread(path), Laterality.LEFT, preset("mammo-clip")).pixels
    assert np.array_equal(file.read(), np.round(expected * 255).astype(np.uint8))
    planes = decode([file], (380, 228), tmp_path / "cache").planes
    assert planes.shape == (1, 380, 228)
    assert abs(float(planes[0].mean()) - float(expected.mean() * 255)) < 1.0


def test_phantom_sentences_say_what_the_truth_says_and_no_side(cache):
    seed = first_with_lesions()
    exam, cached = make_exam(seed), load_exam(exam_path(cache, seed))
    rows = phantom_breasts(cache, seed, 1)
    assert [row.row for row in rows] == [f"phantom {seed} R", f"phantom {seed} L"]
    said = [text for row in rows for text in row.said.first((0, 1))]
    shown = sum(len(view) for row in rows for view in row.said.views)
    assert shown == len([box for box in cached.boxes if box.kind >= 0])
    assert not any(word in text.split() for text in said for word in ("left", "right"))
    for lesion in exam.lesions:
        views = rows[0 if lesion.laterality is Laterality.RIGHT else 1].said.views
        cc, mlo = (location_seen(lesion, position) for position in (ViewPosition.CC, ViewPosition.MLO))
        assert cc.position in ("inner", "outer", "subareolar")
        assert mlo.position in ("upper", "lower", "subareolar")
        assert any(one.location == cc for one in views[0])
        assert any(one.location == mlo for one in views[1])


def test_drawn_phantom_texts_vary_and_stay_true(cache):
    seed = first_with_lesions()
    row = next(row for row in phantom_breasts(cache, seed, 1) if any(row.said.views))
    texts = {row.said.draw((0, 1), random.Random(number), shuffle=True) for number in range(60)}
    assert len(texts) > 20
    nouns = [one.name.split("_")[-1].lower() for one in row.said.views[0]]
    for first, _ in texts:
        for noun in nouns:
            assert noun in first
            assert f"no {noun}" not in first


def test_reports_of_phantoms_are_said_as_often_as_asked():
    seen = Seen("Mass", ("",), Location("upper"), "12 mm oval mass")
    chance = random.Random(0)
    drawn = [seen.draw(chance, 0.25) for _ in range(400)]
    assert 0.2 < drawn.count("12 mm oval mass") / 400 < 0.3
    none = SeenViews(((), ()), ("Mass",)).first((0, 1))
    assert none == ("no suspicious finding", "no suspicious finding")


def test_a_view_is_one_plane_of_its_exam(cache):
    seed = first_with_lesions()
    path = exam_path(cache, seed)
    assert np.array_equal(PhantomView(path, 2).read(), load_exam(path).images[2])
    assert PhantomView(path, 2).key() != PhantomView(path, 3).key()


def image_row(name: str, position: ViewPosition, *present: str, split: str = "training") -> ImageRow:
    labels = tuple((finding, float(finding in present)) for finding in VINDR_FINDINGS)
    return ImageRow(Path(name), "p1", Laterality.LEFT, position, labels, split=split, fold=2)


def test_labels_become_sentences_that_claim_no_more_than_they_tell():
    rows = [
        image_row("a.png", ViewPosition.CC, "Mass"),
        image_row("a.png", ViewPosition.CC, "Suspicious_Calcification"),
        image_row("b.png", ViewPosition.MLO, "No_Finding"),
        image_row("c.png", ViewPosition.MLO, "Mass", split="test"),
    ]
    (breast,) = label_breasts(Table(tuple(rows), (), (2, 3, 4, 5)))
    assert [[file.path.name for file in view] for view in breast.views] == [["a.png"], ["b.png"]]
    assert (breast.row, breast.group, breast.fold) == ("line 2", "p1", 2)
    assert breast.said.first((0, 1)) == (
        "there is a mass in the left breast there are suspicious calcifications in the left breast",
        "no suspicious finding",
    )
    drawn = [breast.said.draw((0, 1), random.Random(seed), shuffle=True) for seed in range(100)]
    words = {word for texts in drawn for text in texts for word in text.split()}
    assert not words & {"spiculated", "irregular", "upper", "outer", "depth", "right", "linear"}
    assert all("mass in" in first and "calcifications in" in first and "no mass" not in first for first, _ in drawn)
    assert any("no mass is seen in the left breast" in second for _, second in drawn)
