"""UIDs of results: a function of what was read, by what, and how it is written down. Never of the clock.

One UID never names two contents: whatever shapes a result's bytes is part of its identity.
"""

import json
import uuid

from node.mammography.views import View
from node.results.reading import ModelIdentity, Predecessor, Reading, ResultKind, ViewReading

ENCODER_VERSION = "2"
"""Raised with every change of the bytes that an equal reading is written as."""

NAMESPACE = uuid.UUID("7f0c6a54-2a1e-4f5e-9f6e-6d1b8a0b0c11")
"""Namespace of all UUIDs (version 5, RFC 9562) of this node's results."""

IMPLEMENTATION_CLASS_UID = f"2.25.{uuid.uuid5(NAMESPACE, 'implementation').int}"
IMPLEMENTATION_VERSION_NAME = "MAMMOCLIP_NODE"


def _uid(*parts: object) -> str:
    """2.25. and a version 5 UUID (PS3.5 B.2) of the parts as JSON."""
    return f"2.25.{uuid.uuid5(NAMESPACE, json.dumps(parts, ensure_ascii=True)).int}"


def _identity(reading: Reading) -> tuple[object, ...]:
    """What was read, by what, and what became of each image; findings and values follow from these."""
    model, words = reading.model, (reading.model.calibrated_on_patients, reading.allow_probability)
    stands = (reading.outcome.value, reading.reason, reading.number, _replaced(reading.predecessor))
    shaped = (model.preset, *words, sorted(reading.selection), reading.settings_hash, *stands, _images(reading))
    return (*_model(model), *shaped, ENCODER_VERSION)


def _images(reading: Reading) -> list[object]:
    """The image that marks stand on and the one that was read, of each view; of one not assessed the reason."""
    read = [(view.view.name, view.sop_instance_uid, _read_from(view)) for view in reading.views]
    unread = [(view.view.name, view.sop_instance_uid, view.reason) for view in reading.unread]
    return [read, unread]


def _read_from(view: ViewReading) -> str:
    return view.read_from.sop_instance_uid if view.read_from else ""


def _replaced(before: Predecessor | None) -> list[object]:
    """The reading that this one replaces: its number, time and those documents of it that are named."""
    if before is None:
        return []
    named = sorted((each.sop_instance_uid, *sorted(each.destinations)) for each in before.documents)
    return [before.number, before.read_at.isoformat(), named]


def _model(model: ModelIdentity) -> tuple[str, ...]:
    return (model.name, model.version, model.weights_hash, model.variant)


def instance_uid(reading: Reading, kind: ResultKind, view: View | None = None, form: str = "") -> str:
    """SOP Instance UID of one object; `view` where there is one object for each view, `form` of EncodedResult."""
    return _uid("instance", kind.value, form, view.name if view else "", *_identity(reading))


def series_uid(reading: Reading, kind: ResultKind, form: str = "", view: View | None = None) -> str:
    """Series Instance UID: one series for each kind of object in each form; `view` where each view has its own."""
    return _uid("series", kind.value, form, view.name if view else "", *_identity(reading))


def form_of(*parts: object) -> str:
    """The name of a form: a short hash of what shapes it, in any type that JSON has."""
    return uuid.uuid5(NAMESPACE, json.dumps(parts, sort_keys=True)).hex[:16]


def tracking_uid(reading: Reading, name: str) -> str:
    """Tracking UID of what is called `name` in this reading; SR and SEG share it."""
    return _uid("tracking", name, *_identity(reading))


def dimension_organization_uid(reading: Reading, kind: ResultKind, view: View, form: str = "") -> str:
    """Dimension Organization UID of a view's segmentation."""
    return _uid("dimensions", kind.value, form, view.name, *_identity(reading))


def frame_of_reference_uid(reading: Reading, view: View) -> str:
    """Frame of Reference UID of our own for one view, the same in all our objects on that view's image."""
    return _uid("frame", view.name, *_identity(reading))


def device_uid(model: ModelIdentity) -> str:
    """Device UID of the algorithm: the observer in the report."""
    return _uid("device", *_model(model))
