"""What Orthanc's own preview shows: of captures the picture, of regions the mask alone, of documents nothing."""

import io
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from node.results.reading import EncodedResult, ResultKind
from node.results.segmentation import region_mask
from tests.servers import Running
from tests.viewers.conftest import Objects
from tests.viewers.phantom import PhantomReading

pytestmark = pytest.mark.viewers

Preview = Callable[[EncodedResult], httpx.Response]


@pytest.fixture
def preview(pacs: Running) -> Preview:
    def of(result: EncodedResult) -> httpx.Response:
        login = (pacs.username, pacs.password)
        with httpx.Client(auth=login, base_url=pacs.http_url, timeout=60) as client:
            (instance,) = client.post("/tools/lookup", content=result.sop_instance_uid).json()
            return client.get(instance["Path"] + "/preview")

    return of


def _pixels(answer: httpx.Response) -> np.ndarray:
    answer.raise_for_status()
    return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.mark.parametrize(
    ("destination", "kind"), [("ohif", ResultKind.SECONDARY_CAPTURE), ("workstation", ResultKind.VIEW_CAPTURE)], ids=str
)
def test_a_capture_is_shown_as_it_is(objects: Objects, preview: Preview, destination: str, kind: ResultKind) -> None:
    for result in objects(destination, kind):
        assert np.array_equal(_pixels(preview(result)), dcmread(io.BytesIO(result.content)).pixel_array)


@pytest.mark.parametrize("destination", ["ohif", "pacs"])
def test_a_segmentation_is_shown_as_its_mask(
    case: PhantomReading, objects: Objects, preview: Preview, destination: str
) -> None:
    finding = case.reading.findings[0]
    shown = _pixels(preview(objects(destination, ResultKind.SEGMENTATION)[0]))
    assert np.array_equal(shown > 0, region_mask(finding, *case.display[finding.view].shape))


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("pacs", ResultKind.STRUCTURED_REPORT),
        ("pacs", ResultKind.PRESENTATION_STATE),
        ("pacs", ResultKind.KEY_OBJECTS),
        ("workstation", ResultKind.CAD_REPORT),
    ],
    ids=str,
)
def test_a_document_has_no_preview(objects: Objects, preview: Preview, destination: str, kind: ResultKind) -> None:
    first, *_ = objects(destination, kind)
    assert preview(first).status_code == 415
