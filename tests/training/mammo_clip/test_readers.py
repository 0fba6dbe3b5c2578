"""The published CSV contracts: good rows, and what is said of bad ones."""

import csv
from pathlib import Path

import pytest

from node.mammography.views import Laterality, ViewPosition
from training.mammo_clip import readers
from training.mammo_clip.tables import TableError

VINDR = {
    "patient_id": "p1", "image_id": "a.png", "laterality": "L", "view": "CC", "breast_density": "2",
    "split": "training", "fold": "0",
    "resized_xmin": "-47", "resized_ymin": "100", "resized_xmax": "300", "resized_ymax": "1568",
    **dict.fromkeys(readers.VINDR_FINDINGS, "0"), "Mass": "1",
}  # fmt: skip
RSNA = {
    "patient_id": "7",
    "image_id": "11",
    "laterality": "R",
    "view": "MLO",
    "cancer": "1",
    "density": "",
    "fold": "3",
}
IMAGE_TEXT = {
    "patient_id": "p1", "laterality": "R", "CC": "['a.png']", "MLO": "['b.png', 'c.png']",
    "text": "['there is a mass', 'birads 4']", "text_augment": "['a mass exists', 'birads four']", "fold": "1",
}  # fmt: skip


@pytest.fixture
def images(tmp_path) -> Path:
    for name in ("p1/a.png", "p1/b.png", "p1/c.png", "7/11.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"")
    return tmp_path / "images"


def write(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_vindr_row_has_labels_density_and_a_box_inside_the_canvas(tmp_path, images):
    (row,) = readers.read_vindr(write(tmp_path, VINDR), images).rows
    assert (row.laterality, row.position, row.density, row.split) == (Laterality.LEFT, ViewPosition.CC, "C", "training")
    assert (row.label("Mass"), row.label("Asymmetry"), row.label("cancer")) == (1.0, 0.0, None)
    assert row.boxes == (("Mass", (0.0, 100.0, 300.0, 1520.0)),)


def test_rows_of_one_image_are_joined_by_or(tmp_path, images):
    none = VINDR | {"Mass": "0", "No_Finding": "1", "resized_xmin": "", "resized_xmax": ""}
    calc = VINDR | {"Mass": "0", "Suspicious_Calcification": "1"}
    table = readers.read_vindr(write(tmp_path, none, VINDR, calc), images)
    (image,) = readers.unique_images(table).rows
    assert len(table.rows) == 3
    assert [image.label(name) for name in ("Mass", "Suspicious_Calcification", "No_Finding")] == [1.0, 1.0, 0.0]
    assert [name for name, _ in image.boxes] == ["Mass", "Suspicious_Calcification"]


def test_rsna_row_finds_its_image_without_an_ending(tmp_path, images):
    (row,) = readers.read_rsna(write(tmp_path, RSNA), images).rows
    assert (row.image.name, row.label("cancer"), row.density, row.fold) == ("11.png", 1.0, None, 3)


def test_image_text_row_has_views_texts_and_back_translations(tmp_path, images):
    (row,) = readers.read_image_text(write(tmp_path, IMAGE_TEXT), images).rows
    assert [(view, [file.name for file in files]) for view, files in row.views] == [
        (ViewPosition.CC, ["a.png"]),
        (ViewPosition.MLO, ["b.png", "c.png"]),
    ]
    assert row.texts == ("there is a mass", "birads 4")
    assert row.augmented == ("a mass exists", "birads four")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"laterality": "B"}, "laterality is 'B', not R or L"),
        ({"view": "XCCL"}, "view is 'XCCL', not CC or MLO"),
        ({"Mass": "2"}, "Mass is '2', not 0 or 1"),
        ({"Mass": "nan"}, "Mass is 'nan', not a number"),
        ({"fold": "1.5"}, "fold is '1.5', not a whole number"),
        ({"breast_density": "7"}, "breast_density is '7', not 0 to 3"),
        ({"image_id": "gone.png"}, "no image at .*gone.png"),
        ({"patient_id": ""}, "patient_id is empty"),
        ({"resized_xmax": "-60"}, "has no area"),
    ],
)
def test_bad_row_is_left_out_and_named_with_its_line(tmp_path, images, change, words):
    path = write(tmp_path, VINDR, VINDR | change)
    table = readers.read_vindr(path, images)
    assert len(table.rows) == 1
    (problem,) = table.problems
    assert problem.line == 3
    with pytest.raises(TableError, match=rf"table\.csv:3: .*{words}.*--strict"):
        readers.read_vindr(path, images, strict=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": "['']"}, "text is empty"),
        ({"text": "[]"}, "text is empty"),
        ({"text": "__import__('os').mkdir('x')"}, "text is no list"),
        ({"text_augment": "['one']"}, "text_augment has 1 sections, text 2"),
        ({"CC": "[]", "MLO": ""}, "no image in CC or MLO"),
        ({"CC": "[3]"}, "CC holds something that is no string"),
    ],
)
def test_bad_text_rows_are_named(tmp_path, images, change, words):
    table = readers.read_image_text(write(tmp_path, IMAGE_TEXT, IMAGE_TEXT | {"laterality": "L"} | change), images)
    assert len(table.rows) == 1
    assert table.problems[0].words.startswith(words)


def test_conflicting_rows_are_named_with_both_lines(tmp_path, images):
    table = readers.read_rsna(write(tmp_path, RSNA, RSNA | {"cancer": "0"}), images)
    assert "contradicts line 2" in str(table.problems[0])
    assert len(readers.read_rsna(write(tmp_path, RSNA, RSNA), images).problems) == 0


def test_missing_column_and_empty_and_foreign_files_are_refused(tmp_path, images):
    with pytest.raises(TableError, match=r"column missing: Mass\. The table needs .*it has patient_id"):
        readers.read_vindr(write(tmp_path, {key: value for key, value in VINDR.items() if key != "Mass"}), images)
    with pytest.raises(TableError, match="no usable row among 1; the first"):
        readers.read_vindr(write(tmp_path, VINDR | {"view": "ML"}), images)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableError, match="cannot be read as CSV"):
        readers.read_rsna(tmp_path / "x.csv", images)
    with pytest.raises(TableError, match="no list of mini-MIAS lesions"):
        readers.read_mias(tmp_path / "x.csv")


def test_real_tables_of_cbis_cesm_and_mias_read(crops_folder):
    shared_data = crops_folder.parent
    masses = readers.read_cbis(
        shared_data / "cbis-crops/mass_case_description_train_set.csv", shared_data / "cbis-crops/mass_train"
    )
    calcifications = readers.read_cbis(
        shared_data / "cbis-crops/calc_case_description_train_set.csv", shared_data / "cbis-crops/calc_train"
    )
    assert len(masses.rows) + len(calcifications.rows) > 2700
    assert {row.label("Mass") for row in masses.rows} == {1.0}
    sentences = readers.read_cesm_texts(shared_data / "reports/cdd-cesm-annotations.csv")
    assert len(sentences.rows) == 1003
    films = readers.read_mias(shared_data / "mini-mias/lesions.json")
    assert len(films) == 162
    assert sum(row.label("Suspicious_Calcification") or 0 for row in films) >= 10
