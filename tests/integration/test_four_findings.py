"""A model of four findings through the whole chain: pixels, inference, findings, every kind of object, validators."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from node.database.readings import StoredReading, readings_of
from node.inference.load import load_model
from node.mammography.findings import FINDING_CODES, FindingKind
from node.mammography.views import RCC, RMLO
from node.results import segmentation, structured_report
from node.results.reading import ResultKind
from node.settings import Destination, Settings, load_settings
from tests import mammograms
from tests.integration.desk import Desk, make_desk
from tests.integration.test_cad_report_validators import QUICK
from tests.integration.test_report_validators import errors_in, needs_pixelmed, pixelmed
from tests.models import FOUR_KINDS, make_tiny_model
from tests.node.results import exams
from tests.node.results.cad_exams import finding
from tests.node.results.validators import entity_errors, iod_errors

REPOSITORY = Path(__file__).parents[2]
BOTH = (RCC, RMLO)
OBJECTS = ("CADSR", "SR", "GSPS", "SC", "LABELMAP", "HEATMAP", "KOS")
REQUIRED = tuple((kind, 0.6) for kind in FOUR_KINDS)
DESTINATIONS = (
    Destination("pacs", "dicom", "127.0.0.1", 104, "PACS", objects=OBJECTS),
    Destination("ris", "hl7", "127.0.0.1", 2575),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"), height=304, width=192, kinds=FOUR_KINDS)
    loaded = load_settings(REPOSITORY / "settings.toml", {})
    inference = replace(loaded.inference, model_folder=folder, precision="f32")
    rules = (replace(loaded.rules[0], thresholds=tuple((kind, 0.4) for kind in FOUR_KINDS)),)
    cad = replace(DESTINATIONS[0].cad, required_at=REQUIRED)
    destinations = (replace(DESTINATIONS[0], cad=cad), *DESTINATIONS[1:])
    return replace(loaded, inference=inference, rules=rules, destinations=destinations)


@pytest.fixture(scope="module")
def desk(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = make_desk(settings, load_model(settings.inference), tmp_path_factory.mktemp("desk"))
    yield made
    made.database.close()


def with_specks(image: Dataset) -> None:
    """Three bright grains beside the disc, in the tissue of a right breast."""
    pixels = np.frombuffer(image.PixelData, "<u2").reshape(image.Rows, image.Columns).copy()
    for row, column in zip((180, 186, 194), (421, 411, 416), strict=True):
        pixels[row : row + 4, column : column + 4] = 4095
    image.PixelData = pixels.tobytes()


@pytest.fixture(scope="module")
def reading(desk: Desk) -> StoredReading:
    images = mammograms.exam(bright=BOTH)
    with_specks(images[0])
    assert desk.read(desk.receive(images)) is not None
    [made] = readings_of(desk.database, str(images[0].StudyInstanceUID))
    return made


def content(desk: Desk, reading: StoredReading, kind: ResultKind) -> list[bytes]:
    return [
        (desk.bench.settings.data_folder / result.path).read_bytes()
        for result in reading.results
        if result.kind is kind
    ]


def test_all_four_are_found_and_told(reading: StoredReading) -> None:
    told = reading.prediction
    found = [(finding["view"], finding["kind"], *finding["associated"]) for finding in told["findings"]]
    assert found == [
        ("RCC", "mass", "architectural_distortion"),  # at one place: one mark
        ("RCC", "suspicious_calcification"),
        ("RCC", "asymmetry"),
        ("RMLO", "mass", "architectural_distortion"),
    ]
    assert [told["findings"][cc]["kind"] for cc, _ in told["correspondences"]] == ["mass"]
    assert set(told["views"]["LMLO"]["probabilities"]) == set(FOUR_KINDS)
    assert not any("not looked for" in words for words in told["not_assessed"])
    report = " ".join(told["report"])
    assert "mass, calcification cluster, architectural distortion, asymmetry" in report
    assert "mass with architectural distortion" in report.lower()


def test_every_object_is_valid_and_none_is_held_back(desk: Desk, reading: StoredReading, tmp_path: Path) -> None:
    assert [result.problem for result in reading.results if result.problem] == []
    kinds = {result.kind for result in reading.results}
    assert kinds == {ResultKind(kind) for kind in (*OBJECTS, "SEG", "ORU")}
    files = sorted(desk.folder.glob("*.dcm"))
    for number, result in enumerate(reading.results):
        if result.kind is ResultKind.MESSAGE:
            continue
        written = (desk.bench.settings.data_folder / result.path).read_bytes()
        if result.kind is not ResultKind.LABELMAP:  # dciodvfy does not know the class
            assert iod_errors(written, tmp_path) == [], result.kind
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(written)
    assert entity_errors(files) == []


@needs_pixelmed
def test_a_report_of_all_four_in_one_view_keeps_its_template(tmp_path: Path) -> None:
    """One view: PixelMed's validator takes minutes for the report of a whole exam with four kinds."""
    kinds = tuple((kind, 0.8) for kind in FindingKind)
    found = tuple(finding(kind, RCC, (350.0 + 150.0 * number, 500.0)) for number, kind in enumerate(FindingKind))
    plain = exams.reading(views=(RCC,), lesions={}, findings=found)
    made = replace(plain, views=tuple(replace(view, finding_probabilities=kinds) for view in plain.views))
    headers = {RCC: exams.source(RCC)}
    report = structured_report.encode(made, headers, segmentation.encode(made, headers))
    (tmp_path / "report.dcm").write_bytes(report.content)
    assert iod_errors(report.content, tmp_path) == []
    assert errors_in(pixelmed(tmp_path / "report.dcm", *QUICK)) == []


def test_segments_carry_each_mark_s_code(desk: Desk, reading: StoredReading) -> None:
    wanted = {FINDING_CODES[FindingKind(finding["kind"])].value for finding in reading.prediction["findings"]}
    for kind in (ResultKind.SEGMENTATION, ResultKind.LABELMAP, ResultKind.HEATMAP):
        codes = {
            segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
            for written in content(desk, reading, kind)
            for segment in dcmread(BytesIO(written)).SegmentSequence
        }
        assert wanted <= codes, kind


def test_message_and_presentation_states_name_all_four(desk: Desk, reading: StoredReading) -> None:
    message = content(desk, reading, ResultKind.MESSAGE)[0]
    states = " ".join(
        text.UnformattedTextValue
        for written in content(desk, reading, ResultKind.PRESENTATION_STATE)
        for annotation in dcmread(BytesIO(written)).get("GraphicAnnotationSequence", [])
        for text in annotation.get("TextObjectSequence", [])
    )
    for words in ("mass", "calcification cluster", "architectural distortion", "asymmetry"):
        assert words in message.decode().lower()
        assert words in states.lower()
