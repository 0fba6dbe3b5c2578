"""Tables of cases: what is read, what is refused and in which words; what a training draws of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.multi_view.tiny_cases import SIZE, case_row, write_cases, write_table
from training.cache import CachedExam, save_exam
from training.mammo_clip.augmentation import Augmentation
from training.mammo_clip.breasts import DataError
from training.mammo_clip.tables import TableError
from training.multi_view.case_items import CaseItems, augmented, decode_cases
from training.multi_view.case_training import class_weights, weighted_loss
from training.multi_view.cases import CaseReading, load_cases
from training.multi_view.exam_model import drop_views

_FLIPS = Augmentation((0.0, 0.0), (0.0, 0.0), (1.0, 1.0), (0.0, 0.0), 0.0, 15.0, True, False, 0.5, 0.0)


def read(folder, rows, **reading):
    table = write_table(folder / "cases.csv", rows)
    return load_cases(f"cases={table},{folder}", CaseReading(SIZE, **reading))


def test_a_table_is_read_with_labels_of_both_spellings_and_missing_views(tmp_path):
    rows = [case_row(number, tmp_path) for number in range(4)]
    rows[2] |= {"RMLO": "", "LMLO": ""}
    found = read(tmp_path, rows)
    assert [case.malignant for case in found.cases] == [False, True, False, True]
    assert [picture is None for picture in found.cases[2].pictures] == [False, False, True, True]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "maybe"}, "label is 'maybe', not 0, 1, benign or malignant"),
        ({"RCC": "elsewhere.png"}, "no image at"),
        ({"RCC": "../0-RCC.png"}, "leads out of"),
        ({"RCC": "", "LCC": "", "RMLO": "", "LMLO": ""}, "no view has a file"),
        ({"LCC": "2-RCC.png"}, "RCC and LCC are one file"),
        ({"patient_id": ""}, "patient_id is empty"),
        ({"study_id": "s1"}, "contradicts line 3"),
    ],
)
def test_a_bad_row_is_left_out_and_named(tmp_path, change, words):
    rows = [case_row(number, tmp_path) for number in range(4)]
    rows[2] |= change
    found = read(tmp_path, rows)
    assert [case.row for case in found.cases] == ["line 2", "line 3", "line 5"]
    assert len(found.problems) == 1
    assert "cases.csv:4: " in found.problems[0]
    assert words in found.problems[0]
    with pytest.raises(TableError, match="Mend the row"):
        read(tmp_path, rows, strict=True)


def test_a_repeated_row_counts_once(tmp_path):
    rows = [case_row(number, tmp_path) for number in (0, 1, 1)]
    found = read(tmp_path, rows)
    assert len(found.cases) == 2
    assert found.problems[0].endswith("line 4: repeats line 3")


def test_a_patient_in_two_folds_is_refused(tmp_path):
    rows = [case_row(number, tmp_path, fold=str(number % 2), patient_id="p") for number in range(2)]
    with pytest.raises(DataError, match="line 2 in fold 0, line 3 in fold 1"):
        read(tmp_path, rows)


def test_cases_of_one_class_are_refused(tmp_path):
    with pytest.raises(DataError, match="all 2 cases are benign; it takes both"):
        read(tmp_path, [case_row(number, tmp_path) for number in (0, 2)])


def test_a_source_of_another_kind_is_refused_with_the_forms_that_there_are():
    with pytest.raises(DataError, match=r"write cases=TABLE\.csv,IMAGES or phantoms=CACHE"):
        load_cases("vindr=a,b", CaseReading(SIZE))


def test_an_image_that_cannot_be_read_is_a_missing_view(tmp_path):
    rows = [case_row(number, tmp_path) for number in range(2)]
    (tmp_path / "1-LCC.png").write_bytes(b"no image")
    images, problems = decode_cases(read(tmp_path, rows), SIZE, tmp_path / "decoded")
    assert images.numbers[1, 1] == -1
    assert problems[0].startswith("line 3: LCC: ")
    assert problems[0].endswith("the view counts as missing")
    item = CaseItems(images, None, 0.0, 0, 0)[1]
    assert item.present.tolist() == [True, False, True, True]
    assert not item.inputs[1].any()


def test_views_of_both_sides_face_the_same_way(tmp_path):
    images, _ = decode_cases(load_cases(write_cases(tmp_path, 2), CaseReading(SIZE)), SIZE, tmp_path / "decoded")
    columns = images.planes[images.numbers[0]].astype(float).mean(1)
    assert (columns[:, :8].mean(1) > columns[:, -8:].mean(1)).all()


def test_phantom_exams_are_cases_whose_squares_keep_the_image(tmp_path):
    for seed, malignant in ((0, False), (1, True)):
        images = np.full((4, 40, 24), 80, np.uint8)
        save_exam(tmp_path, CachedExam(seed, images, np.zeros_like(images), (), (malignant, False), 1))
    found = load_cases(f"phantoms={tmp_path}", CaseReading(20, exams=2))
    squares, _ = decode_cases(found, 20, tmp_path / "decoded")
    assert squares.malignant.tolist() == [False, True]
    assert (abs(squares.planes[0][:, :11].astype(int) - 80) < 3).all()
    assert (squares.planes[0][:, 14:] == 0).all()
    with pytest.raises(DataError, match="python -m training render --cache"):
        load_cases(f"phantoms={tmp_path}", CaseReading(20, exams=3))


def test_the_flip_is_common_to_the_four_views():
    planes = [torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(view)) for view in range(4)]
    seen = set()
    for seed in range(20):
        made = augmented(planes, _FLIPS, torch.Generator().manual_seed(seed))
        flipped = [torch.equal(new, old.flip(2)) for new, old in zip(made, planes, strict=True)]
        same = [torch.equal(new, old) for new, old in zip(made, planes, strict=True)]
        assert all(flipped) or all(same)
        seen.add(flipped[0])
    assert seen == {True, False}


def test_turning_is_drawn_for_each_view_by_itself():
    plane = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    turning = replace(_FLIPS, rotation=(-10.0, 10.0), probability=1.0, horizontal_flip=False)
    made = augmented([plane] * 4, turning, torch.Generator().manual_seed(1))
    assert not any(torch.equal(made[0], other) for other in made[1:])


def test_view_dropout_leaves_one_view_and_never_shows_a_missing_one():
    present = torch.tensor([True, False, True, True])
    counts = torch.zeros(4)
    for seed in range(300):
        kept = drop_views(present, 0.6, torch.Generator().manual_seed(seed))
        assert kept.any()
        assert not kept[1]
        counts += kept
    assert 0.35 < counts[0] / 300 < 0.6


def test_the_loss_is_torchs_weighted_cross_entropy_of_two_cosines():
    logits, malignant = torch.randn(6, 2, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 0, 0, 1, 0])
    weights = class_weights(malignant.bool().numpy(), "balanced")
    assert weights.tolist() == pytest.approx([6 / 8, 6 / 4])
    expected = torch.nn.functional.cross_entropy(logits, malignant, weights)
    found = weighted_loss(logits[:, 1] - logits[:, 0], malignant.float(), weights)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
