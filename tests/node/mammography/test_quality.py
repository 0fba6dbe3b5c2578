"""What is claimed of an image's quality is measured; what is not measured is not claimed."""

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from node.mammography.pixels import prepare_display, preset
from node.mammography.quality import CODES, QualityReason, measure
from node.mammography.views import LCC, Laterality
from tests.node.mammography.images import breast

PRESET = preset("fit-380x228")


def reasons(display: np.ndarray, **header: object) -> list[tuple[QualityReason, bool]]:
    dataset = Dataset()
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    prepared = prepare_display(display.astype(np.float32), Laterality.LEFT, PRESET)
    return [(found.reason, found.refused) for found in measure(dataset, LCC, prepared)]


def test_every_reason_has_its_code_of_cid_6041() -> None:
    members = {(code.value, code.scheme_designator, code.meaning) for code in (
        getattr(codes.cid6041, name) for name in codes.cid6041.dir())}  # fmt: skip
    assert set(CODES) == set(QualityReason)
    assert {(code.value, code.scheme, code.meaning) for code in CODES.values()} <= members


def test_nothing_is_wrong_with_a_breast() -> None:
    assert reasons(breast(), DeviationIndex="1.2", ExposureStatus="NORMAL") == []


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_constant_image_is_refused(value: float) -> None:
    assert reasons(np.full((600, 400), value)) == [(QualityReason.CONSTANT_IMAGE, True)]


def test_noise_without_a_breast_is_refused() -> None:
    noise = np.random.default_rng(1).normal(0.1, 0.02, (600, 400)).clip(0, 1)
    noise[300:303, 200:203] = 1.0
    assert reasons(noise) == [(QualityReason.BREAST_NOT_FOUND, True)]


def test_a_breast_burnt_out_by_its_window_is_read_and_said() -> None:
    assert reasons(np.clip(breast() * 1.8, 0, 1)) == [(QualityReason.CLIPPED, False)]


EXPOSURES = {
    "twice as much": ({"DeviationIndex": "3.1"}, [QualityReason.OVER_EXPOSED]),
    "half": ({"DeviationIndex": "-3"}, [QualityReason.UNDER_EXPOSED]),
    "a little more": ({"DeviationIndex": "2.9"}, []),
    "no measurement": ({"DeviationIndex": "400"}, []),
    "empty": ({"DeviationIndex": None}, []),
    "aborted": ({"ExposureStatus": "ABORTED"}, [QualityReason.UNDER_EXPOSED]),
    "normal": ({"ExposureStatus": "NORMAL"}, []),
    "aborted and measured": ({"ExposureStatus": "ABORTED", "DeviationIndex": "-6.5"}, [QualityReason.UNDER_EXPOSED]),
}


@pytest.mark.parametrize("case", EXPOSURES)
def test_exposure_as_the_machine_measured_it(case: str) -> None:
    header, expected = EXPOSURES[case]
    assert reasons(breast(), **header) == [(reason, False) for reason in expected]


@pytest.mark.parametrize("raw", [b"much", b"3.5\\4.5", b"NaN", b"inf"])
def test_a_deviation_that_is_no_number_is_no_claim(raw: bytes) -> None:
    tag = Tag("DeviationIndex")
    dataset = Dataset({tag: RawDataElement(tag, "DS", len(raw), raw, 0, False, True)})
    assert measure(dataset, LCC, prepare_display(breast(), Laterality.LEFT, PRESET)) == ()
