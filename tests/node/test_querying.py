"""`mammoclip-node query` as a shell runs it, and what it asks of archive and files."""

import io
import json
import logging
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from node import cli
from node.database import open_database, upgrade
from node.inference.load import load_phrases
from node.instance import instance_of
from node.intake import receive
from node.mammography.known_phrases import KnownPhrases, known_phrases_json
from node.mammography.views import LCC, RCC, RMLO
from node.querying import Inquiry, answer, in_folders, inquire
from node.settings import Settings, load_settings
from tests import mammograms
from tests.models import make_tiny_model, make_tiny_phrase_models
from tests.running_node import settings_text

HEIGHT, WIDTH = 304, 192
PATIENT = ("Test^Anna", "P-1", "19610504")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_phrase_models(tmp_path_factory.mktemp("models"), height=HEIGHT, width=WIDTH)


@pytest.fixture
def settings_file(tmp_path: Path, models: Path) -> Path:
    file = tmp_path / "settings.toml"
    text = settings_text(11112, "")
    assert 'model_folder = "model"' in text
    file.write_text(text.replace('model_folder = "model"', f'model_folder = "{models}"'))
    return file


@pytest.fixture
def settings(settings_file: Path) -> Settings:
    return load_settings(settings_file, {})


def saved(images: list[Dataset], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def inquiry_of(settings: Settings, *texts: str) -> Inquiry:
    return inquire(load_phrases(settings.inference), texts, settings.exam)


def test_the_command_on_files_gives_a_line_an_exam_and_pictures(settings_file: Path, tmp_path: Path) -> None:
    saved(mammograms.exam(bright=[RCC]), tmp_path / "dicom/first")
    saved(mammograms.exam(), tmp_path / "dicom/second")
    (tmp_path / "dicom/readme.txt").write_text("no image")
    command = [sys.executable, "-m", "node.cli", "query", "--settings", str(settings_file)]
    command += ["--text", "spiculated mass in the right breast", "--text", "no mass"]
    command += ["--folder", str(tmp_path / "dicom"), "--overlays", str(tmp_path / "png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
    first, second = sorted(lines_of(done.stdout), key=lambda line: -line["phrases"][0]["index"])
    assert first["phrases"][0]["answer"] == "shown in RCC"
    assert first["phrases"][1]["answer"] == "absence cannot be confirmed: RCC"
    assert [phrase["answer"] for phrase in second["phrases"]] == ["not seen", "not seen: absence is not contradicted"]
    view = next(view for view in first["phrases"][0]["views"] if view["view"] == "RCC")
    (mark,) = view["marks"]
    assert mark["centre"] == pytest.approx([mammograms.COLUMNS - 150.0, 330.0], abs=6)
    assert "not calibrated on patients" in first["meaning"]
    for line in (first, second):
        for phrase in line["phrases"]:
            assert np.asarray(Image.open(phrase["overlay"])).std() > 5
    assert not any(word in done.stdout for word in PATIENT)


def test_exams_of_the_archive_are_asked_and_left_as_they_are(settings: Settings, tmp_path: Path) -> None:
    images = mammograms.exam(bright=[LCC])
    folder = saved(images, tmp_path / "kept")
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    database = open_database(settings.database_url)
    upgrade(database)
    now = datetime.now(UTC)
    for number, image in enumerate(images):
        held = instance_of(
            image,
            content_hash=f"{number:064x}",
            path=str(folder / f"{number}.dcm"),
            received_at=now,
            from_patient_orientation=False,
        )
        receive(database, held, settings.exam, settings.rules, now)
    study = str(images[0].StudyInstanceUID)
    before = sorted(path for path in settings.data_folder.rglob("*") if path.suffix != ".db-wal")
    lines = asked_by_command(settings, tmp_path, "--exam", study, "1.2.3.4")
    everything = asked_by_command(settings, tmp_path, "--every-exam")
    assert lines[0]["phrases"][0]["answer"] == "shown in LCC"
    assert lines[1] == {"study_instance_uid": "1.2.3.4", "error": "nothing of this study has arrived"}
    assert [line["study_instance_uid"] for line in everything] == [study]
    after = sorted(path for path in settings.data_folder.rglob("*") if path.suffix not in (".db-wal", ".db-shm"))
    assert [path for path in after if path not in before] == []
    database.close()


def asked_by_command(settings: Settings, tmp_path: Path, *which: str) -> list[dict[str, Any]]:
    """In this process, by the function behind the command."""
    file = tmp_path / "settings.toml"
    written = io.StringIO()
    code, stdout = None, sys.stdout
    try:
        sys.stdout = written
        code = cli.main(["query", "--settings", str(file), "--text", "mass", *which])
    finally:
        sys.stdout = stdout
    lines = lines_of(written.getvalue())
    assert code == (1 if any("error" in line for line in lines) else 0)
    return lines


def test_one_exam_that_cannot_be_asked_stops_no_other(settings: Settings, tmp_path: Path) -> None:
    whole = mammograms.exam(bright=[RMLO])
    torn = mammograms.exam()
    for image in torn:
        image.PixelData = image.PixelData[:100]
    twins = [*mammograms.exam(), *mammograms.exam(patient_id="P-2")]
    for image in twins:
        image.StudyInstanceUID = twins[0].StudyInstanceUID
    for name, images in (("whole", whole), ("torn", torn), ("twins", twins)):
        saved(images, tmp_path / "dicom" / name)
    written = io.StringIO()
    failed = answer(inquiry_of(settings, "mass"), in_folders([tmp_path / "dicom"], settings.exam), written)
    lines = {line["study_instance_uid"]: line for line in lines_of(written.getvalue())}
    assert failed == 2
    assert lines[whole[0].StudyInstanceUID]["phrases"][0]["answer"] == "shown in RMLO"
    assert lines[twins[0].StudyInstanceUID]["error"] == "patients differ"
    assert "RCC: " in lines[torn[0].StudyInstanceUID]["error"]


def test_missing_views_are_told(settings: Settings, tmp_path: Path) -> None:
    saved(mammograms.exam([RCC, LCC], bright=[LCC]), tmp_path / "dicom")
    written = io.StringIO()
    assert answer(inquiry_of(settings, "mass"), in_folders([tmp_path / "dicom"], settings.exam), written) == 0
    (line,) = lines_of(written.getvalue())
    assert line["not_asked"] == ["RMLO: no image", "LMLO: no image"]
    assert [view["view"] for view in line["phrases"][0]["views"]] == ["RCC", "LCC"]


def test_words_that_the_model_does_not_know_are_said(settings: Settings) -> None:
    known, unknown = inquiry_of(settings, "grouped calcifications", "mass with a crescent").questions
    assert known.remarks == ()
    assert unknown.remarks[0].startswith("not known to the text encoder as words: with, crescent")


def test_a_phrase_far_from_those_that_were_trained_is_said(settings: Settings, tmp_path: Path) -> None:
    exam_encoder = make_tiny_phrase_models(tmp_path / "known", height=128, width=96)
    known = KnownPhrases(("mass", "spiculated mass"), frozenset({"mass", "spiculated"}), 0.8)
    (tmp_path / "known/text_encoder/phrases.json").write_text(known_phrases_json(known))
    inference = replace(settings.inference, model_folder=exam_encoder)
    near, far = inquiry_of(replace(settings, inference=inference), "mass", "grouped calcifications").questions
    assert near.remarks == ()
    assert far.remarks[0].startswith("not among the words that were trained: grouped, calcifications")
    assert far.remarks[1].startswith("far from every phrase that was trained")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--text", "in the left breast", "--folder", "."], "names no finding"),
        (["--folder", "."], "no phrase is asked for"),
        (["--text", "mass", "--folder", "nowhere"], "nowhere: no such file or folder"),
        (["--text", "mass", "--folder", "."], "no DICOM file in ."),
        (["--text", "mass", "--every-exam"], "--every-exam: nothing has arrived"),
        (["--phrases", "nothing.txt", "--folder", "."], "nothing.txt: cannot be read as phrases"),
        (["--text", "mass", "--folder", ".", "--deadline", "0"], "--deadline is 0; it lies between 0 and"),
        (["--text", "mass", "--folder", ".", "--deadline", "1e-6"], "did not answer within 1e-06 s"),
    ],
)
def test_what_cannot_be_asked_ends_in_words(
    settings_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert cli.main(["query", "--settings", str(settings_file), *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_phrases_come_from_a_file_too(settings_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(mammograms.exam(bright=[LCC]), tmp_path / "dicom")
    (tmp_path / "phrases.txt").write_text("# two\nmass\n\ngrouped calcifications\n")
    which = ["--phrases", str(tmp_path / "phrases.txt"), "--folder", str(tmp_path / "dicom")]
    assert cli.main(["query", "--settings", str(settings_file), *which]) == 0
    (line,) = lines_of(capsys.readouterr().out)
    assert [phrase["text"] for phrase in line["phrases"]] == ["mass", "grouped calcifications"]


def test_nothing_of_the_patient_is_logged(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "node")
    saved(mammograms.exam(), tmp_path / "dicom")
    answer(inquiry_of(settings, "mass"), in_folders([tmp_path / "dicom"], settings.exam), io.StringIO())
    assert caplog.records
    assert not any(word in caplog.text for word in PATIENT)


def test_without_the_models_the_command_says_so(
    settings_file: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = make_tiny_model(tmp_path / "alone/exam_encoder", height=128, width=96)
    settings_file.write_text(settings_file.read_text().replace(str(models), str(alone)))
    assert cli.main(["query", "--settings", str(settings_file), "--text", "mass", "--folder", str(tmp_path)]) == 2
    assert "phrase queries are not offered" in capsys.readouterr().err
