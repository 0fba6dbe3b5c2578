"""OHIF in headless Chromium, driven as a person does: open a study, double click an object, look at the picture."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from node.results.reading import EncodedResult
from tests.servers import Running
from tests.viewers.web_server import serve

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
FLAGS += ("--ignore-gpu-blocklist", "--disable-background-networking", "--disable-component-update")
WIDTH, HEIGHT = 1400, 900
SECONDS = 45.0
_NO_TOUR = "localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))"
_OF_INSTANCE = """uid => services.displaySetService.getActiveDisplaySets()
    .filter(set => set.SOPInstanceUID === uid || set.instances?.some(one => one.SOPInstanceUID === uid))
    .map(set => [set.displaySetInstanceUID, Boolean(set.unsupported)])"""
_LISTED = """uids => uids.every(uid => services.displaySetService.getActiveDisplaySets()
    .some(set => set.SOPInstanceUID === uid || set.instances?.some(one => one.SOPInstanceUID === uid)))"""
_DRAWN = """uid => cornerstone.getEnabledElements().some(({viewport}) =>
    viewport.getCurrentImageId?.()?.includes(uid) && viewport.viewportStatus === 'rendered')"""
_BOXES = """() => {
    const pane = document.querySelector('[data-cy=viewport-pane]').getBoundingClientRect();
    return [...document.querySelectorAll('svg.svg-layer text, svg.svg-layer line')].map(one => {
        const box = one.getBoundingClientRect();
        return [box.left - pane.left, box.top - pane.top, box.right - pane.left, box.bottom - pane.top];
    });
}"""
_POINTS = "all => all.map(one => one.getAttribute('points'))"
_SEGMENTS = """entry => services.segmentationService.getSegmentations()
    .filter(one => one.segmentationId === entry)
    .flatMap(one => Object.values(one.segments).map(segment => [segment.segmentIndex, segment.label]))"""


@dataclass(frozen=True, slots=True)
class Ohif:
    """A browser and the address that serves OHIF to it."""

    browser: Any
    url: str

    @contextlib.contextmanager
    def study(self, study_instance_uid: str, instances: list[str]) -> Iterator["OhifPage"]:
        """The study in a page of its own, once these instances are listed."""
        context = self.browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        try:
            page = context.new_page()
            made = OhifPage(page, [], [])
            page.on("console", lambda said: made.errors.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: made.errors.append(str(error)))
            page.on("request", lambda asked: made.outside.append(asked.url) if self._is_outside(asked.url) else None)
            page.add_init_script(_NO_TOUR)
            page.goto(f"{self.url}/viewer?StudyInstanceUIDs={study_instance_uid}")
            page.wait_for_function("() => window.services?.displaySetService", timeout=SECONDS * 1000)
            page.wait_for_function(_LISTED, arg=instances, timeout=SECONDS * 1000)
            page.wait_for_selector("[data-cy=viewport-pane] canvas", timeout=SECONDS * 1000)
            yield made
        finally:
            context.close()

    def _is_outside(self, url: str) -> bool:
        return not url.startswith((self.url, "blob:", "data:"))


@dataclass(frozen=True, slots=True)
class OhifPage:
    """One open study. `errors`: what the console called an error. `outside`: requests that left the server."""

    page: Any
    errors: list[str]
    outside: list[str]

    def entry(self, sop_instance_uid: str) -> tuple[str, bool]:
        """The list entry that holds an instance, and whether OHIF marks it as unsupported."""
        found = self.page.evaluate(_OF_INSTANCE, sop_instance_uid)
        assert len(found) == 1, found
        identifier, unsupported = found[0]
        return str(identifier), bool(unsupported)

    def double_click(self, sop_instance_uid: str) -> None:
        """Double click the entry that holds an instance."""
        identifier, _ = self.entry(sop_instance_uid)
        self.page.locator(f'[id="thumbnail-{identifier}"]').dblclick(force=True)

    def show_image(self, sop_instance_uid: str) -> np.ndarray:
        """Show an image alone; the viewport's picture."""
        self.double_click(sop_instance_uid)
        self.page.wait_for_function(_DRAWN, arg=sop_instance_uid, timeout=SECONDS * 1000)
        return self.settled()

    def open_segmentation(self, result: EncodedResult, source_uid: str) -> list[tuple[int, str]]:
        """Open it and answer Yes; its segments, (number, label)."""
        self.double_click(result.sop_instance_uid)
        yes = self.page.locator("[data-cy=yes-hydrate-btn]")
        yes.wait_for(timeout=SECONDS * 1000)
        yes.click()
        yes.wait_for(state="hidden", timeout=SECONDS * 1000)
        self.page.wait_for_function(_DRAWN, arg=source_uid, timeout=SECONDS * 1000)
        segments = self.page.evaluate(_SEGMENTS, self.entry(result.sop_instance_uid)[0])
        return [(int(number), str(label)) for number, label in segments]

    def open_report(self, result: EncodedResult, source_uid: str) -> None:
        """Open it; OHIF draws the marks of a report with the next redraw, so the picture is moved there and back."""
        self.double_click(result.sop_instance_uid)
        self.page.wait_for_function(_DRAWN, arg=source_uid, timeout=SECONDS * 1000)
        self.settled()
        self.page.evaluate("() => cornerstone.getEnabledElements().forEach(({viewport}) => viewport.render())")
        self.page.wait_for_selector("svg.svg-layer polyline", state="attached", timeout=SECONDS * 1000)

    def contours(self) -> list[np.ndarray]:
        """Points (N, 2) of each drawn line, (x, y) in the viewport's picture."""
        drawn = self.page.locator("svg.svg-layer polyline").evaluate_all(_POINTS)
        return [np.array(points.replace(",", " ").split(), dtype=float).reshape(-1, 2) for points in drawn]

    def annotation_words(self) -> list[str]:
        """The lines of text beside the marks."""
        return list(self.page.locator("svg.svg-layer tspan").all_text_contents())

    def annotation_boxes(self) -> list[tuple[float, float, float, float]]:
        """Left, top, right, bottom of each text and of the line that leads to it, in the viewport's picture."""
        return [tuple(box) for box in self.page.evaluate(_BOXES)]

    def wait_for_error(self, words: str) -> None:
        """Until the console says so. TimeoutError where it does not."""
        for _ in range(100):
            if any(words in error for error in self.errors):
                return
            self.page.wait_for_timeout(200)
        raise TimeoutError(f"no error says {words!r}: {self.errors}")

    def settled(self) -> np.ndarray:
        """The viewport's picture, RGB, once two in a row are equal."""
        before = self.picture()
        for _ in range(40):
            self.page.wait_for_timeout(250)
            now = self.picture()
            if np.array_equal(before, now) and now.max() > 60:
                return now
            before = now
        raise TimeoutError("the picture does not come to rest")

    def picture(self) -> np.ndarray:
        """The viewport as it is, (rows, columns, 3)."""
        shot = self.page.locator("[data-cy=viewport-pane]").first.screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def keep(self, path: Path) -> None:
        """The whole window as a PNG file."""
        self.page.screenshot(path=str(path))


@contextlib.contextmanager
def ohif(folder: Path, pacs: Running) -> Iterator[Ohif]:
    """OHIF's files in `folder`, served with `pacs` behind the same origin, and a browser."""
    from playwright.sync_api import sync_playwright

    texts = {"/app-config.js": (Path(__file__).parent / "app-config.js").read_text(encoding="utf-8")}
    with serve(folder, pacs, texts) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield Ohif(browser, url)
        finally:
            browser.close()
