import numpy as np
import pytest

from node.mammography.findings import FINDING_KINDS
from training.cache import NO_FINDING, load_exam
from training.mammo_clip.breasts import DataError
from training.mammo_clip.phantom_breasts import GRAMMAR_NAMES
from training.mammo_clip.regions import SHOWN_PX, TILE_PX, crop_regions, phantom_regions


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return phantom_regions(tmp_path_factory.mktemp("phantoms"), 0, 3)


def tiles_of(row):
    return [(tile, seen) for (tile,), seen in zip(row.views, row.said.views, strict=True)]


def test_tile_shows_the_lesions_whose_boxes_lie_near_its_middle_and_no_other(rows):
    for row in rows:
        for tile, seen in tiles_of(row):
            boxes = [box for box in load_exam(tile.path).boxes if box.view == tile.view and box.kind != NO_FINDING]
            near = [
                box
                for box in boxes
                if max(abs((box.left + box.right) // 2 - tile.x), abs((box.top + box.bottom) // 2 - tile.y)) <= SHOWN_PX
            ]
            wanted = sorted(GRAMMAR_NAMES[FINDING_KINDS[box.kind]] for box in near)
            assert sorted(one.name for one in seen) == wanted, row.row


def test_there_are_rows_with_and_without_lesions(rows):
    with_lesion = [any(seen for _, seen in tiles_of(row)) for row in rows]
    assert any(with_lesion)
    assert not all(with_lesion)


def test_texts_of_tiles_name_no_place(rows):
    said = [sentence for row in rows for sentence in row.said.first((0, len(row.views) - 1))]
    words = {word for sentence in said for word in sentence.split()}
    assert not words & {"upper", "lower", "inner", "outer", "depth", "subareolar", "left", "right"}


def test_tile_is_the_part_of_the_view_around_its_middle(rows):
    (tile,) = rows[0].views[0]
    plane = load_exam(tile.path).images[tile.view]
    left = int(np.clip(tile.x - TILE_PX // 2, 0, plane.shape[1] - TILE_PX))
    top = int(np.clip(tile.y - TILE_PX // 2, 0, plane.shape[0] - TILE_PX))
    assert np.array_equal(tile.read(), plane[top : top + TILE_PX, left : left + TILE_PX])


def test_crops_of_one_abnormality_are_one_row_with_its_descriptors(crops_folder):
    rows = crop_regions(crops_folder, "train")
    row = next(row for row in rows if row.row == "crop mass P_00001 LEFT 1")
    assert len(row.views) == 2
    (seen,) = row.said.views[0]
    assert (seen.name, seen.subtypes) == ("Mass", ("", "irregular", "spiculated"))
    assert seen.description == "irregular architectural distortion mass with spiculated margins"


def test_no_patient_of_the_crops_stands_in_two_splits(crops_folder):
    patients = {split: {row.group for row in crop_regions(crops_folder, split)} for split in ("train", "validation")}
    assert not patients["train"] & patients["validation"]


def test_crops_without_their_table_are_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r"mass_case_description_train_set\.csv"):
        crop_regions(tmp_path, "train")
