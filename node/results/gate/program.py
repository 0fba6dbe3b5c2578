"""dciodvfy of dicom3tools, where it is installed: conditions, enumerated values, functional groups."""

import logging
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from node.results.document import COPIED

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 20.0
_PATH = re.compile(r"^Error - <(?P<path>[^>]*)> - ")
_MESSAGE_LENGTH = 200


def found() -> str | None:
    """The program beside Python, or on the PATH; None where it is not installed."""
    return shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")


def problems(content: bytes, program: str | None = None) -> Iterator[str]:
    """What dciodvfy calls an error, nothing where it is not installed.

    A crash counts against the object. A program that cannot be run, gives up without a word or does not end in time
    (the machine may be busy) says nothing of the object: that is logged, and our own checks alone decide.
    """
    command = program or found()
    if command is None:
        return
    with tempfile.NamedTemporaryFile(suffix=".dcm", prefix="gate-") as file:
        file.write(content)
        file.flush()
        try:
            done = subprocess.run(
                [command, "-new", file.name],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            logger.error("dciodvfy did not end within %g s; an object goes without its word", TIMEOUT_SECONDS)
            return
        except OSError as error:
            logger.error("dciodvfy cannot be run (%s); objects go without its word", type(error).__name__)
            return
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    if done.returncode < 0:
        yield f"dciodvfy ended with status {done.returncode}"
    elif done.returncode != 0 and not lines:
        logger.error("dciodvfy ended with status %d and no error; objects go without its word", done.returncode)
    yield from (f"dciodvfy: {_words(line)}" for line in lines if not _is_of_the_source(line))


def _is_of_the_source(line: str) -> bool:
    """Whether it is about what was copied from the source: the PACS's own words, which no result changes."""
    match = _PATH.match(line)
    return match is not None and match["path"].lstrip("/").split("(")[0] in COPIED


def _words(line: str) -> str:
    """Without the value, which may be the patient's."""
    return re.sub(r"= ?<[^>]*>", "", line.removeprefix("Error - "))[:_MESSAGE_LENGTH]
