"""The command as a shell runs it."""

import subprocess
import sys
from pathlib import Path

from tests.running_node import settings_text


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(settings_text(11112, ""))
    command = [sys.executable, "-m", "node.cli", "status", "--settings", str(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
