"""UIDs name one content each."""

from dataclasses import replace

import pytest
from pydicom.uid import UID

from node.mammography.views import LCC, RCC
from node.results import uids
from node.results.reading import ModelIdentity, ResultKind
from tests.node.results import exams


@pytest.fixture(scope="module")
def made():
    return exams.reading(lesions={})


def changed(reading):
    """One reading for each thing that shapes a result."""
    model = reading.model
    yield replace(reading, settings_hash="d1" * 32)
    yield replace(reading, allow_probability=True)
    yield replace(reading, selection=(("1.2.3", "ab" * 32), *reading.selection[1:]))
    yield replace(reading, selection=((reading.selection[0][0], "cd" * 32), *reading.selection[1:]))
    for field in ("name", "version", "weights_hash", "variant", "preset"):
        yield replace(reading, model=replace(model, **{field: "other"}))
    yield replace(reading, model=replace(model, calibrated_on_patients=True))


def test_everything_that_shapes_a_result_changes_its_uids(made):
    readings = [made, *changed(made)]
    for kind in ResultKind:
        assert len({uids.instance_uid(reading, kind) for reading in readings}) == len(readings)
        assert len({uids.series_uid(reading, kind) for reading in readings}) == len(readings)


def test_the_order_of_the_selection_changes_nothing(made):
    other = replace(made, selection=tuple(reversed(made.selection)))
    assert uids.tracking_uid(made, "x") == uids.tracking_uid(other, "x")


def test_uids_differ_by_kind_view_and_name_and_are_valid(made):
    made_uids = [
        *(uids.instance_uid(made, kind) for kind in ResultKind),
        *(uids.instance_uid(made, ResultKind.SEGMENTATION, view) for view in (RCC, LCC)),
        *(uids.series_uid(made, kind) for kind in ResultKind),
        *(uids.tracking_uid(made, name) for name in ("Exam", "RCC Mass 1")),
        *(uids.dimension_organization_uid(made, ResultKind.SEGMENTATION, view) for view in (RCC, LCC)),
        uids.device_uid(made.model),
        uids.IMPLEMENTATION_CLASS_UID,
    ]
    assert len(set(made_uids)) == len(made_uids)
    assert all(UID(uid).is_valid and uid.startswith("2.25.") for uid in made_uids)


def test_uids_are_the_same_on_every_machine():
    model = ModelIdentity("exam_encoder", "1", "00", "fp32", "fit-760x456", False)
    assert uids.device_uid(model) == "2.25.143216787738741776862987243641941591418"
