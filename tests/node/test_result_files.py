"""Our own objects on disk: whole or not at all, and what must not leave apart from what may."""

import os
import time
from pathlib import Path

import pytest

from node.errors import OutOfResourcesError
from node.result_files import UNFINISHED_SECONDS, clear_unfinished, keep_quarantined, keep_result
from node.results.reading import ResultKind

UID = "2.25.329741658924716398521637401"
SR = ResultKind.STRUCTURED_REPORT


def test_an_object_lies_under_its_uid_and_what_was_kept_never_changes(tmp_path: Path) -> None:
    first, again = (keep_result(tmp_path, UID, b"first", SR) for _ in range(2))
    late = keep_result(tmp_path, UID, b"of a worker that lost its lease", SR)
    assert first == again != late
    assert (first.name[: len(UID) + 1], first.suffix, first.read_bytes()) == (f"{UID}.", ".dcm", b"first")
    assert first.is_relative_to(tmp_path / "results")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {first, late}


def test_a_message_is_no_dicom_file_and_quarantine_is_apart(tmp_path: Path) -> None:
    assert keep_result(tmp_path, UID, b"MSH", ResultKind.MESSAGE).suffix == ".hl7"
    assert keep_quarantined(tmp_path, UID, b"odd", SR).parent == tmp_path / "quarantine"


def test_what_a_crash_left_is_cleared_and_what_is_being_written_stays(tmp_path: Path) -> None:
    kept = keep_result(tmp_path, UID, b"whole", SR)
    old, young = kept.parent / "old.part", kept.parent / "young.part"
    for path in (old, young):
        path.write_bytes(b"half")
    now = time.time()
    os.utime(old, (now - 2 * UNFINISHED_SECONDS,) * 2)
    assert clear_unfinished(tmp_path, now) == 1
    assert (old.exists(), young.exists(), kept.exists()) == (False, True, True)
    assert clear_unfinished(tmp_path / "nothing yet", now) == 0


def test_a_folder_that_cannot_be_written_is_out_of_resources(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(OutOfResourcesError):
        keep_result(tmp_path, UID, b"content", SR)
