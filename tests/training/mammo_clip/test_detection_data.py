"""Boxes that move with their image, and which images a detector trains on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from node.mammography.views import Laterality
from tests.training.mammo_clip.tiny_sets import vindr_row, write_csv, write_image
from training.mammo_clip.augmentation import Augmentation, augment, none
from training.mammo_clip.breasts import DataError
from training.mammo_clip.detection_data import Wanted, canvas_of, moved, read_detection_images, target_of
from training.mammo_clip.detection_losses import Target
from training.mammo_clip.images import ImageFile, PhantomView
from training.mammo_clip.labelled import LabelledImage

ROWS, COLUMNS = 150, 110
BOX = (30.0, 40.0, 62.0, 84.0)
ALWAYS = Augmentation(probability=1.0)
CHANGES = {
    "flips": replace(none(), probability=1.0, horizontal_flip=True, vertical_flip=True, elastic_alpha=0.0),
    "map": replace(ALWAYS, horizontal_flip=False, vertical_flip=False, elastic_alpha=0.0),
    "elastic": replace(ALWAYS, rotation=(0, 0), shear=(0, 0), scale=(1, 1), translation=(0, 0), elastic_alpha=80.0),
    "everything": ALWAYS,
}


def drawn_shape(shape):
    """An image that is 1 inside the box, or inside its ellipse."""
    y, x = np.mgrid[:ROWS, :COLUMNS] + 0.5
    left, top, right, bottom = BOX
    away = np.abs(x - (left + right) / 2) / ((right - left) / 2), np.abs(y - (top + bottom) / 2) / ((bottom - top) / 2)
    inside = np.maximum(*away) <= 1 if shape == "corners" else away[0] ** 2 + away[1] ** 2 <= 1
    return torch.tensor(inside, dtype=torch.float32)[None]


def target():
    return Target(torch.tensor([BOX]), torch.ones(1, 1, dtype=torch.bool))


@pytest.mark.parametrize("shape", ["corners", "ellipse"])
@pytest.mark.parametrize("change", CHANGES)
def test_box_lies_around_what_it_was_drawn_around(change, shape):
    for seed in range(6):
        drawn = augment(drawn_shape(shape), CHANGES[change], torch.Generator().manual_seed(seed))
        found = moved(target(), drawn, shape)
        rows, columns = (drawn.image[0] > 0.5).any(1).nonzero(), (drawn.image[0] > 0.5).any(0).nonzero()
        wanted = (columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1)
        np.testing.assert_allclose(found.boxes[0].numpy(), wanted, atol=1.01)


def test_box_of_an_image_that_is_not_changed_stays():
    drawn = augment(drawn_shape("corners"), none(), torch.Generator().manual_seed(0))
    assert moved(target(), drawn, "corners").boxes.tolist() == [list(BOX)]


def test_box_that_leaves_the_image_is_cut_or_left_out():
    shifted = replace(CHANGES["map"], rotation=(0, 0), shear=(0, 0), scale=(1, 1))
    boxes = Target(torch.tensor([BOX, (60.0, 40.0, 100.0, 80.0)]), torch.tensor([[True, False], [False, True]]))
    for share, count in ((0.3, 2), (0.9, 1)):
        drawn = augment(
            drawn_shape("corners"), replace(shifted, translation=(-share, -share)), torch.Generator().manual_seed(0)
        )
        found = moved(boxes, drawn, "corners")
        assert len(found.boxes) <= count
        assert len(found.boxes) == len(found.classes)
        assert (found.boxes >= 0).all()


def image(picture, **boxes):
    labels = {name: bool(found) for name, found in boxes.items()}
    return LabelledImage(picture, "line 2", "p", "e", Laterality.LEFT, None, labels, boxes=boxes)


def test_boxes_are_brought_from_their_canvas_to_the_training_size():
    file, phantom = ImageFile(Path("a.png"), Laterality.LEFT), PhantomView(Path("b.npz"), 1)
    assert (canvas_of(file), canvas_of(phantom)) == ((1520, 912), (760, 456))
    found = target_of(image(file, Mass=((91.2, 152.0, 456.0, 760.0),)), ["Mass"], (512, 512))
    np.testing.assert_allclose(found.boxes.numpy(), [[51.2, 51.2, 256.0, 256.0]], atol=1e-3)


def test_boxes_are_cut_to_the_canvas_and_those_outside_are_none():
    picture = PhantomView(Path("b.npz"), 1)
    found = target_of(
        image(picture, Mass=((-47.0, 700.0, 60.0, 900.0), (500.0, 10.0, 520.0, 30.0))), ["Mass"], (760, 456)
    )
    assert found.boxes.tolist() == [[0.0, 700.0, 60.0, 760.0]]


def test_one_box_of_two_labels_counts_once_with_both():
    box = (10.0, 20.0, 60.0, 90.0)
    found = target_of(image(PhantomView(Path("b.npz"), 1), Mass=(box,), Calc=(box,)), ["Mass", "Calc"], (760, 456))
    assert found.boxes.tolist() == [list(box)]
    assert found.classes.tolist() == [[True, True]]


def vindr(folder):
    """A mass with a box and one without, a calcification with a box, an image without any finding, a broken file."""

    def box(left, top, right, bottom):
        return {"resized_xmin": left, "resized_ymin": top, "resized_xmax": right, "resized_ymax": bottom}

    rows = [
        vindr_row("p1", "a.png", "L", "CC", finding="Mass", **box(-47, 100, 300, 1568)),
        vindr_row("p1", "a.png", "L", "CC", finding="Mass", **box(500, 800, 600, 900)),
        vindr_row("p1", "b.png", "L", "MLO", finding="Mass"),
        vindr_row("p2", "c.png", "R", "CC", finding="Suspicious_Calcification", **box(10, 20, 210, 170)),
        vindr_row("p2", "d.png", "R", "MLO"),
        vindr_row("p3", "e.png", "L", "CC"),
    ]
    for row in rows:
        write_image(folder / "images" / str(row["patient_id"]) / str(row["image_id"]), 0)
    (folder / "images/p3/e.png").write_bytes(b"no image")
    return f"vindr={write_csv(folder / 'vindr.csv', rows)},{folder / 'images'}"


def read(folder, *, positive, classes=("Mass",), **more):
    wanted = Wanted(classes, (152, 91), positive, validation_share=0.0)
    return read_detection_images(wanted, [vindr(folder)], ("training",), folder / "decoded", **more)


def test_all_images_of_a_table_are_read_with_their_boxes_by_image(tmp_path):
    """A mass without a box is left out, for it would teach that nothing is there; a broken file is told by its path."""
    found = read(tmp_path, positive=False)
    images = found.splits["training"]
    assert images.rows == ("line 2", "line 5", "line 6")
    assert images.normal == (False, False, True)
    assert [len(target.boxes) for target in images.targets] == [2, 0, 0]
    np.testing.assert_allclose(
        images.targets[0].boxes.numpy(), [[0, 10, 29.93, 152], [49.89, 80, 59.87, 90]], atol=0.05
    )
    assert [str(tmp_path / "images/p3/e.png") in problem for problem in found.problems] == [True]
    assert (found.facts["training images"], found.facts["training boxes"]) == (3, 2)


def test_positive_images_alone_are_read_as_published(tmp_path):
    assert read(tmp_path, positive=True).splits["training"].rows == ("line 2",)
    both = read(tmp_path, positive=True, classes=("Mass", "Suspicious_Calcification")).splits["training"]
    assert both.rows == ("line 2", "line 5")
    assert [target.classes.tolist() for target in both.targets] == [[[True, False]] * 2, [[False, True]]]


def test_image_with_another_finding_is_not_normal_even_without_its_box(tmp_path):
    images = read(tmp_path, positive=False, classes=("Suspicious_Calcification",)).splits["training"]
    assert dict(zip(images.rows, images.normal, strict=True)) == {
        "line 2": False,
        "line 4": False,
        "line 5": False,
        "line 6": True,
    }


def test_strict_stops_at_the_first_image_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"e.png: cannot be read as an image.*Mend it, or leave --strict out"):
        read(tmp_path, positive=False, strict=True)
