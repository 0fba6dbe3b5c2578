"""Reports and key objects before three strangers: PixelMed's template validator, DCMTK's parser of SR trees, dcmqi."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from node.results import key_objects, labelmap, names, segmentation, structured_report, uids
from node.results.reading import EncodedResult
from tests.node.results import exams, report_exams

JARS = [Path("/usr/share/java") / name for name in ("pixelmed.jar", "slf4j-api.jar", "slf4j-simple.jar")]
LIMITS = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprOp", "TotalOp", "ExprGrp")]
DCMQI = shutil.which("tid1500reader", path=str(Path(sys.executable).parent)) or shutil.which("tid1500reader")

needs_pixelmed = pytest.mark.skipif(
    shutil.which("java") is None or not all(jar.exists() for jar in JARS),
    reason="no PixelMed: apt-get install default-jre-headless libpixelmed-java libslf4j-java",
)
needs_dcmtk = pytest.mark.skipif(shutil.which("dsrdump") is None, reason="no DCMTK: apt-get install dcmtk")
needs_dcmqi = pytest.mark.skipif(DCMQI is None, reason="no dcmqi: pip install dcmqi")


@cache
def report(name: str) -> EncodedResult:
    """The report of one reading with its segmentations."""
    made, headers = report_exams.READINGS[name](), exams.sources()
    return structured_report.encode(made, headers, segmentation.encode(made, headers))


@cache
def key_object(name: str) -> EncodedResult:
    if name == "rejection":
        return key_objects.reject(report_exams.later(), exams.sources(), report_exams.DOCUMENTS[:2])
    return exams.encode_all(report_exams.whole(), exams.sources(), "SEG", "HEATMAP", "SC", "GSPS", "SR", "KOS")[-1]


def written(result: EncodedResult, folder: Path) -> Path:
    path = folder / "object.dcm"
    path.write_bytes(result.content)
    return path


def pixelmed(file: Path, *options: str) -> str:
    command = ["java", "-Xmx2g", "-Xss64m", *options, *LIMITS, "-cp", ":".join(map(str, JARS))]
    done = subprocess.run(
        [*command, "com.pixelmed.validate.DicomSRValidator", str(file)], capture_output=True, text=True, timeout=280
    )
    return done.stdout + done.stderr


def errors_in(said: str) -> list[str]:
    assert "IOD validation complete" in said, said
    return [line for line in said.splitlines() if "Error" in line]


def dsrdump(file: Path, *options: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["dsrdump", "+Pc", *options, str(file)], capture_output=True, text=True, errors="replace", timeout=60
    )
    return done.returncode, done.stderr, done.stdout


@needs_pixelmed
@pytest.mark.parametrize("name", ["whole", "one region", "refused"])
def test_pixelmed_finds_the_template_and_no_error(name, tmp_path):
    said = pixelmed(written(report(name), tmp_path))
    assert "Found Root Template TID_1500" in said
    assert errors_in(said) == []


@needs_pixelmed
def test_pixelmed_finds_no_error_in_key_objects(tmp_path):
    said = pixelmed(written(key_object("key objects"), tmp_path))
    assert "Found Root Template TID_2010" in said
    assert errors_in(said) == []


@needs_pixelmed
def test_pixelmed_misreads_the_reason_of_a_rejection_alone(tmp_path):
    """TID 2010 row 3 wants the reason under this title; PixelMed of 2022 looks for the title in a CODE item, not in the
    root, and so calls every Document Title Modifier (rows 3 and 4) unconditioned.
    """
    errors = errors_in(pixelmed(written(key_object("rejection"), tmp_path)))
    assert ["/[Row 3]" in errors[0], "/[Row 4]" in errors[1]] == [True, True]
    assert all(line.endswith("Conditional content item present when condition not satisfied") for line in errors)
    assert len(errors) == 2


@needs_dcmtk
@pytest.mark.parametrize("name", report_exams.READINGS)
def test_dsrdump_reads_the_tree(name, tmp_path):
    code, complaints, tree = dsrdump(written(report(name), tmp_path))
    assert (code, complaints) == (0, "")
    assert "Qualitative Evaluations" in tree


@needs_dcmtk
@pytest.mark.parametrize("name", ["key objects", "rejection"])
def test_dsrdump_reads_key_objects(name, tmp_path):
    code, complaints, tree = dsrdump(written(key_object(name), tmp_path))
    assert (code, complaints) == (0, "W: Check for template constraints not yet supported\n")
    assert "Key Object Description" in tree


@needs_dcmtk
def test_dsrdump_passes_over_label_maps_that_it_does_not_know(tmp_path):
    made, headers = report_exams.whole(), exams.sources()
    result = structured_report.encode(made, headers, labelmap.encode(made, headers))
    code, _, tree = dsrdump(written(result, tmp_path), "-Ei")
    assert code == 0
    assert "Qualitative Evaluations" in tree


@needs_dcmqi
def test_dcmqi_reads_every_group_with_values_site_and_tracking_identifier(tmp_path):
    made, output = report_exams.whole(), tmp_path / "report.json"
    file = written(report("whole"), tmp_path)
    assert DCMQI is not None
    subprocess.run(
        [DCMQI, "--inputDICOM", str(file), "--outputMetadata", str(output)], check=True, capture_output=True, timeout=60
    )
    groups = json.loads(output.read_text())["Measurements"]
    found = {
        group["TrackingUniqueIdentifier"]: {item["quantity"]["CodeMeaning"] for item in group["measurementItems"]}
        for group in groups
        if group["measurementItems"]
    }
    for name in names.finding_names(made):
        values = found[uids.tracking_uid(made, name)]
        assert values == {"Score", "Peak Value Within ROI", "Distance from nipple"}
    assert {group["Laterality"]["CodeMeaning"] for group in groups} == {"Right", "Left", "Bilateral"}
    sites = {group["FindingSite"]["CodeMeaning"] for group in groups}
    assert sites == {"Breast", "Upper outer quadrant of breast"}
