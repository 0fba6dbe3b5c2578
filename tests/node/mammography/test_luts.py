"""Display values against pydicom's own tables, and the rules that pydicom does not have."""

import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from node.errors import PixelError
from node.mammography.pixels import display_values
from tests.node.mammography.images import SHARED, breast, data_set, through_bytes


def stored_breast(**keywords):
    return (breast(120, 80, **keywords) * 4095).astype(np.uint16)


def lut_item(data, first, bits):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data) % 65536, first % 65536, bits])
    item.add_new("LUTData", "US", data)
    return item


def by_pydicom(dataset, white):
    """Modality LUT and VOI LUT as pydicom applies them, scaled to [0, 1]."""
    values = apply_modality_lut(dataset.pixel_array, dataset)
    values = values.astype(np.int32) if np.array_equal(values, np.rint(values)) else values
    return np.clip(apply_voi_lut(values, dataset) / white, 0, 1)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2000, 3000), (1000.5, 777.5), (4000, 50)])
def test_windows_as_pydicom_applies_them(function, centre, width):
    attributes = {"WindowCenter": centre, "WindowWidth": width, "RescaleSlope": 1, "RescaleIntercept": 0}
    if function is not None:
        attributes["VOILUTFunction"] = function
    dataset = through_bytes(data_set(stored_breast(), **attributes))
    assert np.abs(display_values(dataset) - by_pydicom(dataset, 4095)).max() < 1e-6


def test_rescale_comes_before_the_window():
    dataset = through_bytes(
        data_set(stored_breast(), RescaleSlope=0.5, RescaleIntercept=-100, WindowCenter=800, WindowWidth=1500)
    )
    values = dataset.pixel_array * 0.5 - 100
    expected = np.clip((values - 799.5) / 1499 + 0.5, 0, 1)
    assert np.abs(display_values(dataset) - expected).max() < 1e-6


def test_the_first_of_several_voi_luts():
    curve = (np.linspace(0, 1, 3000) ** 0.5 * 4095).astype(np.uint16)
    first = lut_item(curve.tolist(), 500, 12)
    second = lut_item([0, 4095], 0, 12)
    dataset = data_set(stored_breast(), VOILUTSequence=[first, second], WindowCenter=1, WindowWidth=2)
    dataset = through_bytes(dataset)
    assert np.abs(display_values(dataset) - by_pydicom(dataset, 4095)).max() < 1e-6


def test_lut_data_of_bytes_are_the_same_table():
    curve = (np.linspace(0, 1, 3000) ** 0.5 * 4095).astype(np.uint16)
    numbers, packed = lut_item(curve.tolist(), 500, 12), lut_item(curve.tolist(), 500, 12)
    packed.add_new("LUTData", "OW", curve.tobytes())
    first, second = (through_bytes(data_set(stored_breast(), VOILUTSequence=[item])) for item in (numbers, packed))
    assert np.array_equal(display_values(first), display_values(second))


def test_voi_lut_that_starts_below_zero():
    curve = np.arange(0, 4096, 2)
    stored = stored_breast().astype(np.int16) - 2048
    dataset = data_set(
        (stored & 0x0FFF).astype(np.uint16),
        PixelRepresentation=1,
        VOILUTSequence=[lut_item(curve.tolist(), -1024, 12)],
    )
    expected = np.interp(stored, np.arange(-1024, 1024), curve / 4095)
    assert np.abs(display_values(dataset) - expected).max() < 1e-6


def test_modality_lut_sequence():
    curve = np.arange(4096)[::-1]
    item = lut_item(curve.tolist(), 0, 16)
    item.ModalityLUTType = "US"
    dataset = through_bytes(data_set(stored_breast(), ModalityLUTSequence=[item], WindowCenter=2048, WindowWidth=4096))
    assert np.abs(display_values(dataset) - by_pydicom(dataset, 65535)).max() < 1e-6


@pytest.mark.parametrize(
    ("photometry", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_polarity_is_applied_once(photometry, shape, inverted):
    attributes = {"PhotometricInterpretation": photometry, "WindowCenter": 2048, "WindowWidth": 4096}
    if shape is not None:
        attributes["PresentationLUTShape"] = shape
    dataset = through_bytes(data_set(stored_breast(), **attributes))
    plain = display_values(through_bytes(data_set(stored_breast(), WindowCenter=2048, WindowWidth=4096)))
    assert np.allclose(display_values(dataset), 1 - plain if inverted else plain, atol=1e-6)


@pytest.mark.parametrize("photometry", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_darkest_and_left_out_of_the_range(photometry):
    stored = stored_breast() // 4 + 1000
    stored[:, -20:] = 4000
    stored[:5] = 4010
    dataset = through_bytes(
        data_set(stored, PhotometricInterpretation=photometry, PixelPaddingValue=4000, PixelPaddingRangeLimit=4010)
    )
    display = display_values(dataset)
    assert not display[:, -20:].any()
    assert not display[:5].any()
    assert display.min() == 0
    assert display.max() == 1


def test_signed_padding_value():
    stored = stored_breast().astype(np.int16) - 2000
    stored[0] = -2048
    dataset = data_set((stored & 0x0FFF).astype(np.uint16), PixelRepresentation=1)
    dataset.add_new("PixelPaddingValue", "SS", -2048)
    display = display_values(through_bytes(dataset))
    assert not display[0].any()
    assert display[1:].max() == 1


def test_without_voi_lut_from_least_to_greatest():
    stored = stored_breast() // 2 + 300
    expected = (stored - stored.min()) / (stored.max() - stored.min())
    assert np.allclose(display_values(through_bytes(data_set(stored))), expected, atol=1e-6)


def test_a_dead_pixel_does_not_take_the_range():
    stored = np.tile(stored_breast() // 4, (4, 4))
    stored[0, 0] = 4095
    assert np.median(display_values(data_set(stored))[stored > 200]) > 0.3


def test_without_luts_nothing_but_the_range():
    dataset = through_bytes(data_set(stored_breast(), WindowCenter=1, WindowWidth=2, PixelPaddingValue=0))
    stored = dataset.pixel_array
    expected = (stored - stored.min()) / (stored.max() - stored.min())
    assert np.allclose(display_values(dataset, apply_luts=False), expected, atol=1e-6)


@pytest.mark.parametrize(("relationship", "sign"), [("LIN", 1), ("LOG", 1), ("LOG", -1), (None, None)])
def test_for_processing_images_end_bright_where_dense(relationship, sign):
    attenuation = breast(240, 160)
    raw = {"LIN": 4000 * np.exp(-3 * attenuation), "LOG": 4000 - 3000 * attenuation}.get(
        relationship or "", 4000 - 3000 * attenuation
    )
    stored = (4095 - raw if sign == -1 else raw).astype(np.uint16)
    dataset = data_set(stored, PresentationIntentType="FOR PROCESSING", PhotometricInterpretation="MONOCHROME1")
    if relationship is not None:
        dataset.PixelIntensityRelationship = relationship
        dataset.PixelIntensityRelationshipSign = sign
    display = display_values(through_bytes(dataset))
    inside = attenuation > 0.3
    assert display[attenuation == 0].max() < 0.05
    assert np.corrcoef(display[inside], attenuation[inside])[0, 1] > 0.97
    assert np.ptp(display[inside]) > 0.6


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": 10, "WindowWidth": 0},
        {"WindowCenter": 10, "WindowWidth": 5, "VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": [Dataset()]},
        {"VOILUTSequence": [lut_item([1, 2, 3], 0, 12)[:0x00283003]]},
        {"ModalityLUTSequence": [Dataset()]},
    ],
    ids=["width 0", "unknown function", "empty item", "no data", "empty modality item"],
)
def test_tables_that_cannot_be_read(attributes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = data_set(stored_breast(), **attributes)
    with pytest.raises(PixelError):
        display_values(dataset)


def test_a_lut_that_is_shorter_than_it_says():
    item = lut_item([1, 2, 3], 0, 12)
    item.add_new("LUTDescriptor", "US", [100, 0, 12])
    with pytest.raises(PixelError, match="3 entries where LUT Descriptor says 100"):
        display_values(data_set(stored_breast(), VOILUTSequence=[item]))


@pytest.mark.skipif(not SHARED.exists(), reason="shared data are absent")
def test_a_real_image_with_three_voi_luts():
    dataset = pydicom.dcmread(SHARED / "dicom/fo-dicom/GH133.dcm")
    expected = by_pydicom(dataset, 4095)
    padding = dataset.pixel_array == 0
    display = display_values(dataset)
    assert np.abs(display - expected)[~padding].max() < 1e-6
    assert not display[padding].any()
