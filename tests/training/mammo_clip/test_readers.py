"""The published CSV contracts: good rows, and what is said of bad ones."""

import contextlib
import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
        ({"No_Finding": "1"}, "No_Finding is 1, and so is Mass"),
        ({"split": "val"}, "split is 'val', not training or test"),
        ({"image_id": "../p1/a.png"}, "leads out of"),
        ({"image_id": "/etc/hostname"}, "leads out of"),
        ({"image_id": "x" * 300}, "no image at .*: File name too long"),
        ({"fold": "1", "Asymmetry": "1"}, "contradicts line 2"),
        ({"laterality": "R"}, "contradicts line 2"),
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
        ({"text": "{[]: 1}"}, "text is no list"),
        ({"text": "[" * 300}, "text is no list"),
        ({"CC": "['../../p1/a.png']"}, "p1/../../p1/a.png leads out of"),
    ],
)
def test_bad_text_rows_are_named(tmp_path, images, change, words):
    table = readers.read_image_text(write(tmp_path, IMAGE_TEXT, IMAGE_TEXT | {"laterality": "L"} | change), images)
    assert len(table.rows) == 1
    assert table.problems[0].words.startswith(words)


def test_back_translation_is_an_optional_column(tmp_path, images):
    without = {key: value for key, value in IMAGE_TEXT.items() if key != "text_augment"}
    (row,) = readers.read_image_text(write(tmp_path, without), images).rows
    assert row.augmented == ()


def test_cells_without_a_column_and_a_column_twice_are_named(tmp_path, images):
    path = write(tmp_path, RSNA, RSNA)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2] + ",more"]))
    assert str(readers.read_rsna(path, images).problems[0]).endswith(
        "table.csv:3: has more cells than the header: more; put commas in quotes"
    )
    path.write_text("\n".join([lines[0] + ",cancer", lines[1] + ",0"]))
    with pytest.raises(TableError, match="column cancer stands twice"):
        readers.read_rsna(path, images)


EMBED = {
    "empi_anon": "e1", "acc_anon": "a1", "anon_dicom_path": "p1/a.png", "ImageLateralityFinal": "L",
    "ViewPosition": "MLO", "FinalImageType": "2D", "spot_mag": "",
}  # fmt: skip
CBIS = {
    "patient_id": "P_00001", "left or right breast": "LEFT", "image view": "CC", "abnormality id": "1",
    "abnormality type": "mass", "assessment": "4", "pathology": "MALIGNANT", "cropped image file path": "x",
}  # fmt: skip
CESM = {
    "Image_name": "P1_L_DM_MLO", "Patient_ID": "1", "Side": "L", "Type": "DM", "Breast density (ACR)": "C",
    "Findings": "Mass $ calcification", "View": "MLO",
}  # fmt: skip


def test_rows_of_another_kind_are_left_out_in_silence_even_where_strict(tmp_path, images):
    table = write(tmp_path, EMBED, EMBED | {"FinalImageType": "3D"}, EMBED | {"spot_mag": "1"})
    assert len(readers.read_embed(table, images, strict=True).rows) == 1
    table = write(tmp_path, CESM, CESM | {"Type": "CESM"})
    assert readers.read_cesm_texts(table, strict=True).rows == (("P1_L_DM_MLO", "1", "mass . calcification"),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ViewPosition": "XCCL"}, "ViewPosition is 'XCCL', not CC or MLO"),
        ({"ImageLateralityFinal": "B"}, "ImageLateralityFinal is 'B', not R or L"),
        ({"anon_dicom_path": "gone.dcm"}, "no image at"),
        ({"empi_anon": "other"}, "contradicts line 2"),
    ],
)
def test_bad_rows_of_embed_are_named(tmp_path, images, change, words):
    table = write(tmp_path, EMBED, EMBED | change)
    assert words in str(readers.read_embed(table, images).problems[0])
    with pytest.raises(TableError, match=r"table\.csv:3: .*--strict"):
        readers.read_embed(table, images, strict=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pathology": "UNKNOWN"}, "pathology is 'UNKNOWN'"),
        ({"abnormality type": "cyst"}, "abnormality type is 'cyst', not mass or calcification"),
        ({"abnormality id": "7"}, "no crop of P_00001_LEFT_CC_7 below"),
        ({"pathology": "BENIGN"}, "contradicts line 2"),
    ],
)
def test_bad_rows_of_cbis_are_named(tmp_path, change, words):
    (tmp_path / "crops/MALIGNANT").mkdir(parents=True)
    (tmp_path / "crops/MALIGNANT/P_00001_LEFT_CC_SPICULATED_1.jpg").write_bytes(b"")
    table = readers.read_cbis(write(tmp_path, CBIS, CBIS | change), tmp_path / "crops")
    assert len(table.rows) == 1
    assert words in str(table.problems[0])


MIAS = {"file": "mini-mias/mdb001.png", "pair": 0, "abn": "CIRC", "severity": "B", "box": [3, 4, 30, 40]}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("film", "the entry is film, not a table"),
        ({"file": "mdb001.png", "abn": "CIRC"}, "pair is missing"),
        (MIAS | {"abn": "CYST"}, "abn is 'CYST', not CALC"),
        (MIAS | {"file": "gone.png"}, "no image at"),
        (MIAS | {"box": [1, 2, 3]}, "not four numbers"),
        (MIAS | {"box": [3, 4, 3, 40]}, "has no area"),
    ],
)
def test_bad_entries_of_mini_mias_are_named(tmp_path, entry, words):
    (tmp_path / "mdb001.png").write_bytes(b"")
    path = tmp_path / "lesions.json"
    path.write_text(json.dumps([MIAS, entry]))
    table = readers.read_mias(path)
    assert len(table.rows) == 1
    assert str(table.problems[0]).startswith(f"{path}:2: ")
    assert words in str(table.problems[0])
    with pytest.raises(TableError, match=r"lesions\.json:2: .*--strict"):
        readers.read_mias(path, strict=True)


_VALUES = ["", "nan", "inf", "-1", "1e999", "1.5", "[", "['a.png', 3]", "{[]: 1}", "../x", "/", "x" * 300, "٣", "R"]
ODD = st.sampled_from([*_VALUES, "MLO", "\0", "['\\d']"]) | st.text(max_size=12)
ENTRIES = st.dictionaries(st.sampled_from(sorted(MIAS)), st.none() | st.integers() | st.text(max_size=4)) | st.text()


@pytest.mark.parametrize(
    ("read", "good"),
    [
        (readers.read_vindr, VINDR),
        (readers.read_rsna, RSNA),
        (readers.read_image_text, IMAGE_TEXT),
        (readers.read_embed, EMBED),
        (readers.read_cbis, CBIS),
        (lambda path, images: readers.read_cesm_texts(path), CESM),
    ],
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_cell_makes_a_reader_stumble(tmp_path, images, read, good, data):
    """Rows of anything are read or named; nothing but a TableError comes out."""
    columns = sorted(good)
    rows = [
        good | {column: data.draw(ODD) for column in data.draw(st.lists(st.sampled_from(columns), max_size=3))}
        for _ in range(3)
    ]
    with contextlib.suppress(TableError):
        table = read(write(tmp_path, *rows), images)
        assert len(table.rows) + len(table.problems) <= 3
        assert all("table.csv:" in str(problem) for problem in table.problems)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENTRIES))
def test_no_entry_makes_the_reader_of_mini_mias_stumble(tmp_path, entries):
    path = tmp_path / "lesions.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(TableError, match=r"lesions\.json"):
        readers.read_mias(path)


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
    films = readers.read_mias(shared_data / "mini-mias/lesions.json", strict=True).rows
    assert len(films) == 162
    assert sum(row.label("Suspicious_Calcification") or 0 for row in films) >= 10
