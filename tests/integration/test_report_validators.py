"""The report before two strangers: PixelMed's template validator, and DCMTK's parser of SR trees."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from node.mammography.findings import FindingKind
from node.mammography.views import LCC, RCC, RMLO
from node.results import structured_report
from node.results.reading import Reading
from tests.node.results import exams

JARS = [Path("/usr/share/java") / name for name in ("pixelmed.jar", "slf4j-api.jar", "slf4j-simple.jar")]
LIMITS = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprOp", "TotalOp", "ExprGrp")]

needs_pixelmed = pytest.mark.skipif(
    shutil.which("java") is None or not all(jar.exists() for jar in JARS),
    reason="no PixelMed: apt-get install default-jre-headless libpixelmed-java libslf4j-java",
)
needs_dcmtk = pytest.mark.skipif(shutil.which("dsrdump") is None, reason="no DCMTK: apt-get install dcmtk")


def written(reading: Reading, folder: Path) -> Path:
    path = folder / "report.dcm"
    path.write_bytes(structured_report.encode(reading, exams.sources()).content)
    return path


READINGS = {
    "findings": lambda: exams.reading(),
    "one region": lambda: exams.reading(lesions={LCC: (FindingKind.MASS, 300.0, 700.0)}),
    "nothing found, LMLO missing": lambda: exams.reading(views=(RCC, LCC, RMLO), lesions={}),
    "probability": lambda: replace(exams.reading(), allow_probability=True),
}


@needs_pixelmed
@pytest.mark.parametrize("name", ["findings", "one region", "nothing found, LMLO missing"])
def test_pixelmed_finds_the_template_and_no_error(name, tmp_path):
    file = written(READINGS[name](), tmp_path)
    command = ["java", "-Xmx2g", "-Xss64m", *LIMITS, "-cp", ":".join(map(str, JARS))]
    done = subprocess.run(
        [*command, "com.pixelmed.validate.DicomSRValidator", str(file)], capture_output=True, text=True, timeout=280
    )
    said = done.stdout + done.stderr
    assert "Found Root Template TID_1500" in said
    assert "IOD validation complete" in said
    assert [line for line in said.splitlines() if "Error" in line] == []


@needs_dcmtk
@pytest.mark.parametrize("name", READINGS)
def test_dsrdump_reads_the_tree(name, tmp_path):
    file = written(READINGS[name](), tmp_path)
    done = subprocess.run(["dsrdump", "+Pc", str(file)], capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Suspicion index" in done.stdout or "Probability of cancer" in done.stdout
