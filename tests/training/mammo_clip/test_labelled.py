"""Labelled images of each set: splits by patient, rows against images, what is left out and why."""

from pathlib import Path

import pytest

from node.mammography.views import Laterality, ViewPosition
from tests.training.mammo_clip.tiny_sets import (
    HEIGHT,
    WIDTH,
    vindr_row,
    write_csv,
    write_image,
    write_phantoms,
    write_vindr,
)
from training.mammo_clip.breasts import DataError
from training.mammo_clip.images import ImageFile, PhantomView
from training.mammo_clip.labelled import Reading, load_labelled
from training.mammo_clip.tables import TableError

MASS_BOX = {"resized_xmin": -47, "resized_ymin": 100, "resized_xmax": 300, "resized_ymax": 1568}


def vindr(folder: Path, *rows) -> str:
    for row in rows:
        write_image(folder / "images" / row["patient_id"] / row["image_id"], 0)
    return f"vindr={write_csv(folder / 'vindr.csv', list(rows))},{folder / 'images'}"


def test_vindr_images_are_joined_by_or_and_rows_stay_rows(tmp_path):
    source = vindr(
        tmp_path,
        vindr_row("p1", "a.png", "L", "CC", finding="Mass", **MASS_BOX),
        vindr_row("p1", "a.png", "L", "CC", finding="Suspicious_Calcification"),
        vindr_row("p1", "b.png", "L", "MLO"),
    )
    joined = load_labelled(source, Reading(validation_share=0))
    first, second = joined.images
    assert (first.labels["Mass"], first.labels["Suspicious_Calcification"], first.labels["No_Finding"]) == (
        True,
    ) * 2 + (False,)
    assert second.labels["No_Finding"]
    assert "cancer" not in first.labels
    assert joined.contradictory == {"Mass": 1, "Suspicious_Calcification": 1}
    assert (first.row, second.row, first.density, first.exam) == ("line 2", "line 4", 2, "p1")
    assert first.boxes == {"Mass": ((0.0, 100.0, 300.0, 1520.0),)}
    assert isinstance(first.picture, ImageFile)
    rows = load_labelled(source, Reading(unit="row", validation_share=0))
    assert [row.labels["Mass"] for row in rows.images] == [True, False, False]
    assert [row.row for row in rows.images] == ["line 2", "line 3", "line 4"]


def test_vindr_validation_is_cut_by_patient_out_of_training_and_never_out_of_the_test_split(tmp_path):
    labelled = load_labelled(write_vindr(tmp_path, exams=60), Reading(validation_share=0.3))
    by_split = {split: {image.patient for image in labelled.of(split)} for split in ("training", "validation", "test")}
    assert by_split["test"] == {f"p{number}" for number in range(40, 60)}
    assert 5 <= len(by_split["validation"]) <= 20
    assert not by_split["training"] & by_split["validation"]
    assert len(labelled.images) == 240
    again = load_labelled(write_vindr(tmp_path, exams=60), Reading(validation_share=0.3))
    assert [image.split for image in again.images] == [image.split for image in labelled.images]


def test_rows_of_one_image_that_contradict_in_side_or_split_are_left_out_or_stop(tmp_path):
    source = vindr(
        tmp_path,
        vindr_row("p1", "a.png", "L", "CC"),
        vindr_row("p1", "a.png", "R", "CC"),
        vindr_row("p2", "b.png", "R", "CC", split="val"),
    )
    labelled = load_labelled(source, Reading(validation_share=0))
    assert [image.laterality for image in labelled.images] == [Laterality.LEFT]
    assert "vindr.csv:3: contradicts line 2" in labelled.problems[0]
    assert "vindr.csv:4: split is 'val', not training or test" in labelled.problems[1]
    with pytest.raises(TableError, match=r"vindr\.csv:3: contradicts line 2.*leave --strict out"):
        load_labelled(source, strict=True)


def test_a_patient_in_two_splits_is_refused_with_both_rows(tmp_path):
    source = vindr(tmp_path, vindr_row("p1", "a.png", "L", "CC"), vindr_row("p1", "b.png", "R", "CC", split="test"))
    with pytest.raises(DataError, match=r"1 patients stand in two splits.*: line 2 in training, line 3 in test"):
        load_labelled(source, Reading(validation_share=0))


def test_rsna_tests_on_fold_0_trains_on_1_and_2_and_validates_on_3(tmp_path):
    rows = []
    for fold in range(5):
        write_image(tmp_path / "images" / str(fold) / "11.png", fold)
        row = {"site_id": 1, "patient_id": fold, "image_id": 11, "laterality": "L", "view": "CC", "age": 50}
        row |= {"cancer": int(fold == 1), "biopsy": 0, "invasive": 0, "BIRADS": "", "implant": 0, "density": "B"}
        rows.append(row | {"machine_id": 49, "difficult_negative_case": "False", "fold": fold})
    labelled = load_labelled(f"rsna={write_csv(tmp_path / 'train_folds.csv', rows)},{tmp_path / 'images'}")
    assert [image.split for image in labelled.images] == ["test", "training", "training", "validation"]
    assert [image.labels["cancer"] for image in labelled.images] == [False, True, False, False]
    assert {(image.vendor, image.density) for image in labelled.images} == {("49", 1)}
    assert "train_folds.csv:6: fold is 4, not 0 to 3" in labelled.problems[0]


def test_embed_joins_findings_by_exam_and_side_and_knows_what_it_does_not_know(tmp_path):
    finding = {"empi_anon": 1, "acc_anon": 9, "tissueden": 3, "massshape": "", "calcfind": "", "path_severity": ""}
    write_csv(
        tmp_path / "clinical.csv",
        [
            finding | {"side": "L", "asses": "S", "massshape": "X", "path_severity": "0.0"},
            finding | {"side": "L", "asses": "B", "calcfind": "V"},
            finding | {"side": "R", "asses": "A", "calcfind": "G"},
            finding | {"side": "R", "asses": "A", "tissueden": 7},
        ],
    )
    rows = []
    for name, side, kind, spot in (("l", "L", "2D", 0), ("r", "R", "cview", 0), ("s", "L", "2D", 1)):
        write_image(tmp_path / "images" / f"{name}.png", 0)
        row = {"empi_anon": 1, "acc_anon": 9, "anon_dicom_path": f"{name}.png", "ImageLateralityFinal": side}
        rows.append(row | {"ViewPosition": "CC", "FinalImageType": kind, "spot_mag": spot, "Manufacturer": "HOLOGIC"})
    write_csv(tmp_path / "metadata.csv", rows)
    source = f"embed={tmp_path / 'metadata.csv'},{tmp_path / 'clinical.csv'},{tmp_path / 'images'}"
    left, right = load_labelled(source, Reading(preset=f"fit-{HEIGHT}x{WIDTH}")).images
    assert (left.labels["cancer"], left.labels["Mass"], left.labels["Suspicious_Calcification"]) == (True, True, False)
    assert (right.labels["cancer"], right.labels["Suspicious_Calcification"]) == (None, None)
    assert (left.exam, left.vendor, left.density) == ("9", "HOLOGIC", 2)
    (problem,) = load_labelled(source, Reading()).problems
    assert "clinical.csv:5: tissueden is '7', not 1 to 5" in problem
    with pytest.raises(TableError, match=r"clinical\.csv:5: tissueden .*leave --strict out"):
        load_labelled(source, strict=True)


def test_phantoms_have_their_splits_by_seed_and_the_truth_of_each_view(tmp_path):
    source = write_phantoms(tmp_path, training=4, others=2)
    labelled = load_labelled(source, Reading(splits=("training", "calibration")))
    assert [len(labelled.of(split)) for split in ("training", "validation", "calibration", "test")] == [16, 0, 8, 0]
    first = labelled.images[0]
    assert (first.laterality, first.position) == (Laterality.RIGHT, ViewPosition.CC)
    assert (first.labels["Mass"], first.labels["Focal_Asymmetry"], first.labels["cancer"]) == (True, False, True)
    assert first.boxes == {"Mass": ((10.0, 20.0, 30.0, 40.0),)}
    assert isinstance(first.picture, PhantomView)
    assert labelled.images[1].labels == dict.fromkeys(first.labels, False)
    some = load_labelled(source, Reading(phantom_exams={"training": 2, "validation": 1}, phantom_first_training_exam=1))
    assert [image.exam for image in some.of("training")[::4]] == ["1", "2"]
    with pytest.raises(DataError, match=r"4 of 5 training exams are rendered; run .* render .* --count 5"):
        load_labelled(source, Reading(phantom_exams={"training": 5}))


def test_real_crops_and_films_are_labelled(crops_folder):
    crops = load_labelled(f"cbis={crops_folder}")
    splits = {split: {image.patient for image in crops.of(split)} for split in ("training", "validation", "test")}
    assert len(crops.images) > 2700
    assert all(len(patients) > 100 for patients in splits.values())
    assert all(image.labels["Mass"] is not image.labels["Suspicious_Calcification"] for image in crops.images)
    films = load_labelled(f"mini-mias={crops_folder.parent / 'mini-mias'}", Reading(preset="fit-152x91"))
    assert {image.split for image in films.images} == {"test"}
    assert len({image.patient for image in films.images}) == 81
    boxes = [box for image in films.images for found in image.boxes.values() for box in found]
    assert len(boxes) > 40
    assert all(0 <= left < right <= 91 and 0 <= top < bottom <= 152 for left, top, right, bottom in boxes)


@pytest.mark.parametrize("source", ["vindr=a.csv", "inbreast=x", "phantoms", "embed=a,b", "cbis="])
def test_a_source_that_is_none_is_told_how_sources_are_written(source):
    with pytest.raises(DataError, match=r"write one of vindr=TABLE\.csv,IMAGES, rsna="):
        load_labelled(source)
