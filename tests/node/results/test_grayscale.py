"""The greys of presentation states: the source's, stage for stage, as DCMTK shows them too."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from node.mammography.pixels import display_values
from node.mammography.views import RCC, STANDARD_VIEWS
from tests.node.results import exams
from tests.node.results.test_presentation_state import encode, states
from tests.node.results.validators import iod_complaints

TABLE = np.minimum(np.arange(4096) // 2 * 3, 4095).astype(np.uint16)


def table_item(first: int = 0, bits: int = 12) -> Dataset:
    item = Dataset()
    item.add(DataElement("LUTDescriptor", "SS" if first < 0 else "US", [len(TABLE), first, bits]))
    item.add(DataElement("LUTData", "US", (TABLE.astype(int) << (bits - 12)).tolist()))
    item.LUTExplanation = "normal"
    return item


@pytest.mark.parametrize(
    ("photometric", "shape", "expected"),
    [
        ("MONOCHROME2", "IDENTITY", "IDENTITY"),
        ("MONOCHROME2", None, "IDENTITY"),
        ("MONOCHROME1", None, "INVERSE"),
        ("MONOCHROME1", "INVERSE", "INVERSE"),
    ],
)
def test_polarity_is_the_source_s(photometric, shape, expected, tmp_path):
    headers = exams.sources()
    for header in headers.values():
        header.PhotometricInterpretation = photometric
        if shape:
            header.PresentationLUTShape = shape
    made = exams.reading(headers=headers)
    assert {state.PresentationLUTShape for state in states(made, headers).values()} == {expected}
    assert iod_complaints(encode(made, headers)[0].content, tmp_path) == []


def test_the_first_of_several_windows_is_taken_with_its_function(tmp_path):
    changes = {"WindowCenter": ["2048", "1800"], "WindowWidth": ["4096", "3000"], "VOILUTFunction": "SIGMOID"}
    changes |= {"RescaleIntercept": "-12", "RescaleSlope": "2.5", "RescaleType": "US"}
    headers = {view: exams.source(view, **changes) for view in STANDARD_VIEWS}
    made = exams.reading(headers=headers)
    state = states(made, headers)[RCC]
    (voi,) = state.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction) == (2048, 4096, "SIGMOID")
    assert (state.RescaleIntercept, state.RescaleSlope, state.RescaleType) == (-12, 2.5, "US")
    assert iod_complaints(encode(made, headers)[0].content, tmp_path) == []


@pytest.mark.parametrize("first", [0, -2048])
def test_tables_keep_what_they_map_to(first, tmp_path):
    changes = {"VOILUTSequence": [table_item(first), table_item(7)], "ModalityLUTSequence": [table_item(bits=16)]}
    changes |= {"PixelRepresentation": 1 if first < 0 else 0}
    headers = {view: exams.source(view, **changes) for view in STANDARD_VIEWS}
    for header in headers.values():
        header.ModalityLUTSequence[0].ModalityLUTType = "US"
    made = exams.reading(headers=headers)
    state = states(made, headers)[RCC]
    (voi,) = state.SoftcopyVOILUTSequence
    assert list(voi.VOILUTSequence[0].LUTDescriptor) == [len(TABLE), first, 16]
    assert np.frombuffer(voi.VOILUTSequence[0].LUTData, "<u2") / 65535 == pytest.approx(TABLE / 4095, abs=1e-5)
    assert voi.VOILUTSequence[0].LUTExplanation == "normal"
    assert list(state.ModalityLUTSequence[0].LUTDescriptor) == [len(TABLE), 0, 16]
    assert (np.frombuffer(state.ModalityLUTSequence[0].LUTData, "<u2") == TABLE.astype(int) << 4).all()
    assert iod_complaints(encode(made, headers)[0].content, tmp_path) == []


def test_a_table_of_65536_entries_is_not_cut():
    item = Dataset()
    item.add(DataElement("LUTDescriptor", "US", [0, 0, 16]))
    item.add(DataElement("LUTData", "OW", np.arange(65536, dtype="<u2").tobytes()))
    headers = {view: exams.source(view, VOILUTSequence=[item]) for view in STANDARD_VIEWS}
    state = states(exams.reading(headers=headers), headers)[RCC]
    table = state.SoftcopyVOILUTSequence[0].VOILUTSequence[0]
    assert table["LUTData"].VR == "OW"
    assert (np.frombuffer(table.LUTData, "<u2") == np.arange(65536)).all()


@pytest.mark.parametrize("changes", [{}, {"WindowCenter": "100", "WindowWidth": "0"}, {"WindowCenter": "100"}])
def test_no_window_is_made_up_where_the_source_has_no_valid_one(changes):
    headers = {view: exams.source(view, **changes) for view in STANDARD_VIEWS}
    state = states(exams.reading(headers=headers), headers)[RCC]
    assert "SoftcopyVOILUTSequence" not in state
    assert "RescaleSlope" not in state


def with_pixels(header: Dataset, folder: Path, **changes: object) -> Dataset:
    """A small image of 12 bits with every grey from black to white, written to `image.dcm`."""
    header.update(changes)
    header.Rows, header.Columns = 64, 64
    header.SamplesPerPixel, header.BitsAllocated, header.BitsStored, header.HighBit = 1, 16, 12, 11
    header.PhotometricInterpretation = header.get("PhotometricInterpretation", "MONOCHROME2")
    header.PixelRepresentation = header.get("PixelRepresentation", 0)
    header.PixelData = np.arange(4096, dtype="<u2").tobytes()
    header["PixelData"].VR = "OW"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.save_as(folder / "image.dcm", enforce_file_format=True)
    return header


@pytest.mark.parametrize(
    "changes",
    [
        {"WindowCenter": "1500", "WindowWidth": "2000"},
        {"WindowCenter": "1500", "WindowWidth": "2000", "PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "2500", "WindowWidth": "5000"},
        {"VOILUTSequence": [table_item()]},
        {"VOILUTSequence": [table_item(63536)], "RescaleSlope": "1", "RescaleIntercept": "-2000"},
    ],
    ids=["window", "inverse", "rescale", "table", "table from below zero"],
)
def test_dcmtk_shows_the_image_in_the_greys_that_the_node_read_it_in(changes, tmp_path):
    header = with_pixels(exams.source(RCC), tmp_path, **changes)
    made = exams.reading()
    small = replace(made, findings=(), views=(replace(made.views[0], rows=64, columns=64),))
    (state,) = encode(small, {RCC: header})
    (tmp_path / "state.dcm").write_bytes(state.content)
    names = ["-p", "state.dcm", "image.dcm", "shown.pgm"]
    done = subprocess.run(["dcmp2pgm", *names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = np.asarray(Image.open(tmp_path / "shown.pgm")) / 255
    assert np.abs(shown - display_values(header)).max() < 1.5 / 255


def test_a_window_that_is_no_number_is_left_out(monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    headers = exams.sources()
    for header in headers.values():
        for keyword in ("WindowCenter", "RescaleSlope"):
            tag = Tag(keyword)
            header[tag] = RawDataElement(tag, "DS", 4, b"tall", 0, False, True)
    state = states(exams.reading(), headers)[RCC]
    assert "SoftcopyVOILUTSequence" not in state
    assert "RescaleSlope" not in state
