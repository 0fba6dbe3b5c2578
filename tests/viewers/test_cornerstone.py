"""Our objects as dcmjs 0.52.2 and @cornerstonejs/adapters 5.14.0 read them in Node, without a browser."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.mammography.views import View
from node.results import names
from node.results.labelmap import label_map
from node.results.reading import EncodedResult, ResultKind
from tests.viewers.conftest import Objects, need_tool
from tests.viewers.phantom import PhantomReading

pytestmark = pytest.mark.viewers

SCRIPT = Path(__file__).parent / "read_objects.mjs"
Read = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def read(node_js: str, tmp_path: Path) -> Read:
    """(task, arguments), an object among the arguments is a file: runs the script; it answers in answer.json."""
    modules = need_tool("npm/node_modules")

    def run(task: str, *arguments: EncodedResult | str) -> subprocess.CompletedProcess[str]:
        command = [node_js, str(SCRIPT), str(modules), str(tmp_path / "answer.json"), task]
        for number, argument in enumerate(arguments):
            if isinstance(argument, EncodedResult):
                (tmp_path / f"{number}.dcm").write_bytes(argument.content)
                argument = str(tmp_path / f"{number}.dcm")
            command.append(argument)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


def _answer(done: subprocess.CompletedProcess[str], folder: Path) -> Any:
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "answer.json").read_text())


def _image(case: PhantomReading, view: View) -> str:
    source = case.sources[view]
    return f"{source.SOPInstanceUID},{source.Rows},{source.Columns}"


@pytest.mark.parametrize(
    ("destination", "kind"),
    [("ohif", ResultKind.SEGMENTATION), ("labels", ResultKind.LABELMAP)],
    ids=["SEG", "LABELMAP"],
)
def test_every_pixel_of_a_segmentation_has_our_segment(
    case: PhantomReading, objects: Objects, read: Read, tmp_path: Path, destination: str, kind: ResultKind
) -> None:
    results = objects(destination, kind)
    views = list(dict.fromkeys(finding.view for finding in case.reading.findings))
    assert len(results) == len(views) == 4
    asked = [
        each
        for view, result in zip(views, results, strict=True)
        for each in (result, _image(case, view), str(tmp_path / view.name))
    ]
    for view, answer in zip(views, _answer(read("segmentations", *asked), tmp_path), strict=True):
        named = names.findings_of(case.reading, view.name)
        segments = [(number, label) for number, label, _ in answer if number]
        assert segments == [(number, name) for number, (name, _) in enumerate(named, start=1)]
        shape = case.display[view].shape
        labels = np.frombuffer((tmp_path / view.name).read_bytes(), np.uint8).reshape(shape)
        assert np.array_equal(labels, label_map([finding for _, finding in named], *shape))


def test_a_segmentation_without_a_frame_of_its_own_is_not_read(
    case: PhantomReading, objects: Objects, read: Read, tmp_path: Path
) -> None:
    """Why `segmentation_frame = "own"` exists: without an orientation cornerstone places nothing."""
    first, *_ = objects("pacs", ResultKind.SEGMENTATION)
    done = read("segmentations", first, _image(case, case.reading.findings[0].view), str(tmp_path / "labels"))
    assert done.returncode != 0
    assert "ImageOrientationPatient" in done.stderr


@pytest.mark.parametrize("destination", ["ohif", "pacs"])
def test_outlines_and_centres_of_the_report_are_ours(
    case: PhantomReading, objects: Objects, read: Read, tmp_path: Path, destination: str
) -> None:
    (report,) = objects(destination, ResultKind.STRUCTURED_REPORT)
    images = [_image(case, view) for view in case.sources]
    answer = _answer(read("report", report, *images), tmp_path)
    found = [
        (group["name"], group["graphic"], group["image"], group["points"])
        for group in answer["groups"]
        if group["graphic"]
    ]
    expected = []
    for name, finding in zip(names.finding_names(case.reading), case.reading.findings, strict=True):
        image = str(case.sources[finding.view].SOPInstanceUID)
        expected.append((name, "POLYLINE", image, [value for point in finding.contour for value in point]))
        expected.append((name, "POINT", image, list(finding.centre)))
    assert found == expected


def test_cornerstone_places_the_centres_at_their_pixels(
    case: PhantomReading, objects: Objects, read: Read, tmp_path: Path
) -> None:
    """Its plane has the centre of the first pixel at 0, ours is 0.5 there: both mean the same place."""
    (report,) = objects("ohif", ResultKind.STRUCTURED_REPORT)
    answer = _answer(read("report", report, *(_image(case, view) for view in case.sources)), tmp_path)
    centres = [[finding.centre[0] - 0.5, finding.centre[1] - 0.5, 0.0] for finding in case.reading.findings]
    assert [point for _, point in answer["probes"]] == centres
