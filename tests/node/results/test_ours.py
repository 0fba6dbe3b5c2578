"""Our own objects are told by their equipment, and nobody else's are taken for ours."""

from datetime import UTC, datetime

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from node.results.ours import MANUFACTURER, contributing_equipment, is_ours
from node.results.reading import ModelIdentity

MODEL = ModelIdentity("exam_encoder", "1", "5e" * 32, "openvino f32", "fit-760x456", False)


def item() -> Dataset:
    return contributing_equipment(MODEL, datetime(2026, 3, 14, 12, tzinfo=UTC))


def holding(*items: Dataset) -> Dataset:
    dataset = Dataset()
    dataset.ContributingEquipmentSequence = Sequence(items)
    return dataset


def another(**changes: object) -> Dataset:
    changed = item()
    for keyword, value in changes.items():
        setattr(changed, keyword, value)
    return changed


def test_our_item_is_found_among_others():
    assert is_ours(holding(another(Manufacturer="Acme"), item()))


def test_the_time_states_its_zone():
    assert item().ContributionDateTime == "20260314120000.000000+0000"


@pytest.mark.parametrize(
    "dataset",
    [
        Dataset(),
        holding(),
        holding(Dataset()),
        holding(another(Manufacturer="Acme")),
        holding(another(PurposeOfReferenceCodeSequence=[])),
    ],
)
def test_others_are_not_ours(dataset):
    assert not is_ours(dataset)


def test_a_manufacturer_alone_is_not_enough():
    dataset = Dataset()
    dataset.Manufacturer = MANUFACTURER
    assert not is_ours(dataset)
