"""`doctor` on a node whose parts work, and on one where each is broken."""

import io
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from node.doctor import Check, examine, report
from node.settings import Destination, Rule, Settings, load_settings
from tests.models import make_tiny_model, make_tiny_phrase_models
from tests.node.listeners import hl7_listener
from tests.servers import dcmqrscp, free_port, orthanc

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), height=128, width=96)


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path) -> Settings:
    environment = {"MAMMOCLIP_DATA_FOLDER": str(tmp_path / "data"), "MAMMOCLIP_LISTENER_PORT": str(free_port())}
    loaded = load_settings(REPOSITORY / "settings.toml", environment)
    return replace(loaded, inference=replace(loaded.inference, model_folder=model_folder), destinations=())


@pytest.fixture
def reports_only() -> Iterator[Destination]:
    """A PACS that answers C-ECHO and takes reports, nothing else."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(Verification)
    ae.add_supported_context(Comprehensive3DSRStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    yield Destination("pacs", "dicom", "127.0.0.1", server.socket.getsockname()[1], "PACS", timeout_seconds=5)
    server.shutdown()


def _failures(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in examine(settings) if not check.works}


def test_everything_works_between_real_peers(settings: Settings) -> None:
    with orthanc() as pacs:
        destinations = (
            Destination("pacs", "dicom", pacs.host, pacs.port, pacs.ae_title),
            Destination("web", "dicomweb", url=pacs.dicomweb_url, username=pacs.username, password=pacs.password),
            Destination("archive", "dicom", pacs.host, pacs.port, pacs.ae_title, preset="archive", retract=True),
        )
        seen = io.StringIO()
        code = report(examine(replace(settings, destinations=destinations)), seen)
        wrong = replace(destinations[1], password="wrong")
        refused = _failures(replace(settings, destinations=(wrong,)))["destination web: DICOMweb"]
    assert (code, seen.getvalue().count("FAIL")) == (0, 0), seen.getvalue()
    for words in (
        "a real inference in",
        "gate: own checks and dciodvfy, ",
        "free",
        "C-ECHO",
        "takes SR, SEG, HEATMAP, GSPS, SC, KOS",
        "takes CADSR, SR, LABELMAP, HEATMAP, KOS, REJECT",
        "lets orthanc store",
    ):
        assert words in seen.getvalue()
    assert "401" in refused.seen
    assert "MAMMOCLIP_DESTINATION_WEB_PASSWORD" in refused.fix


def test_each_broken_part_is_named_with_its_fix(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        broken = replace(
            settings,
            data_folder=tmp_path / "file" / "data",
            database_url=f"sqlite:///{tmp_path}/no/such/folder/node.db",
            broker_url=f"redis://127.0.0.1:{free_port()}/0",
            listener=replace(settings.listener, host="127.0.0.1", port=taken.getsockname()[1]),
            inference=replace(settings.inference, model_folder=tmp_path / "nothing"),
            destinations=(
                Destination("pacs", "dicom", "127.0.0.1", free_port(), "PACS", timeout_seconds=2),
                Destination("web", "dicomweb", url=f"http://127.0.0.1:{free_port()}/dicom-web", timeout_seconds=2),
                Destination("ris", "hl7", "127.0.0.1", free_port(), timeout_seconds=2),
            ),
        )
        seen = io.StringIO()
        checks = list(examine(broken))
        assert report(checks, seen) == 1
    failed = {check.name for check in checks if not check.works}
    assert failed == {
        "listener port",
        "disk",
        "database",
        "broker",
        "model",
        "clock",
        "destination pacs: C-ECHO",
        "destination pacs: may store",
        "destination web: DICOMweb",
        "destination ris: MLLP",
    }
    assert all(check.seen and (check.works or check.fix) for check in checks)
    assert seen.getvalue().count("fix: ") == len(failed)


def test_class_that_the_pacs_does_not_take_is_named(settings: Settings, reports_only: Destination) -> None:
    failures = _failures(replace(settings, destinations=(reports_only,)))
    assert set(failures) == {"destination pacs: may store"}
    assert failures["destination pacs: may store"].seen == "takes no SEG, HEATMAP, GSPS, SC, KOS"
    assert _failures(replace(settings, destinations=(replace(reports_only, objects=("SR",)),))) == {}


def test_a_pacs_that_takes_no_rejection_notes_names_the_key(settings: Settings, reports_only: Destination) -> None:
    retracting = replace(reports_only, objects=("SR",), retract=True)
    failure = _failures(replace(settings, destinations=(retracting,)))["destination pacs: may store"]
    assert failure.seen == "takes no REJECT"
    assert failure.fix.endswith("or set retract = false")


def test_what_goes_instead_of_a_label_map_is_said(settings: Settings) -> None:
    with dcmqrscp() as pacs, hl7_listener() as ris:
        destinations = (
            Destination("pacs", "dicom", pacs.host, pacs.port, pacs.ae_title, objects=("SR", "LABELMAP")),
            Destination("ris", "hl7", "127.0.0.1", ris.port),
        )
        seen = {check.name: check for check in examine(replace(settings, destinations=destinations))}
    assert seen["destination pacs: may store"].works
    assert seen["destination pacs: may store"].seen == "takes SR; takes no LABELMAP, SEG goes instead"
    assert seen["destination ris: MLLP"].seen.endswith("takes a connection; no message was sent")
    assert ris.received == []


def test_threshold_for_an_unknown_finding_is_named(settings: Settings, reports_only: Destination) -> None:
    rules = (Rule("screening", (), thresholds=(("masses", 0.5),)),)
    here = replace(settings, rules=rules, destinations=(replace(reports_only, objects=("SR",)),))
    failures = _failures(here)
    assert set(failures) == {"model"}
    assert "masses" in failures["model"].seen


def test_server_whose_clock_is_wrong_is_named(settings: Settings) -> None:
    class Late(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() - 3600)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Late)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
        failures = _failures(replace(settings, destinations=(Destination("web", "dicomweb", url=url),)))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert set(failures) == {"clock"}
    assert failures["clock"].seen.startswith("web is -360")


def test_the_models_of_phrases_and_their_text_space_are_told(settings: Settings, tmp_path: Path) -> None:
    without = {check.name: check for check in examine(settings)}["phrases"]
    assert without.works
    assert "not offered" in without.seen
    assert without.seen.endswith("exams are read all the same")
    exam_encoder = make_tiny_phrase_models(tmp_path / "three", height=128, width=96)
    said = {check.name: check for check in examine(_with_models(settings, exam_encoder))}
    assert said["model"].works
    assert "exam_query 0.0.1-tiny (openvino f32), text_encoder 0.0.1-tiny" in said["phrases"].seen
    assert f"text space {'e' * 12} as exam_encoder's" in said["phrases"].seen
    other = make_tiny_phrase_models(tmp_path / "other", height=128, width=96, text={"text_space": "0" * 64})
    refused = _failures(_with_models(settings, other))["phrases"]
    assert "text_space differs" in refused.seen
    assert "of one export" in refused.fix


def _with_models(settings: Settings, model_folder: Path) -> Settings:
    return replace(settings, inference=replace(settings.inference, model_folder=model_folder))
