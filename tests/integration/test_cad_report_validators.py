"""The Mammography CAD SR before strangers: PixelMed's template validator, DCMTK's parser of SR trees.

PixelMed's rules of 2022 contradict the standard where breast composition stands below a finding. The report that has
one is held against the same rules with that put right; all others against the rules as they come.
"""

import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.results import cad_report
from tests.integration.test_report_validators import JARS, LIMITS, needs_dcmtk, needs_pixelmed
from tests.node.results import cad_exams

RULES = "com/pixelmed/validate/DicomSRDescriptionsCompiled.xsl"
JVMS = 2
QUICK = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
"""Halves the processor time of a run this short."""
COMPOSITION = '<xsl:template name="TID_4007">'
"""TID 4007: a CODE cannot contain anything (PS3.3 Table A.35.5-2), nor does DCMTK read it; it has properties."""

CORRECTED = ("everything",)
AS_THEY_COME = (
    "all kinds in two views",
    "no findings",
    "one view failed",
    "one view refused",
    "refused",
    "failed",
    "not attempted",
    "odd headers",
)


def written(name: str, folder: Path) -> Path:
    variant = cad_exams.VARIANTS[name]
    path = folder / f"{name}.dcm"
    path.write_bytes(cad_report.encode(variant.reading(), variant.headers(), variant.profile).content)
    return path


def corrected_rules(folder: Path) -> Path:
    """A class path entry with PixelMed's rules, the fault put right."""
    with zipfile.ZipFile(JARS[0]) as jar:
        rules = jar.read(RULES).decode("utf-8")
    start = rules.index(COMPOSITION)
    end = rules.index("</xsl:template>", start)
    template = rules[start:end]
    assert "\"'CONTAINS'\"" in template
    rules = rules[:start] + template.replace("\"'CONTAINS'\"", "\"'HAS PROPERTIES'\"") + rules[end:]
    target = folder / RULES
    target.parent.mkdir(parents=True)
    target.write_text(rules, encoding="utf-8")
    return folder


def validated(file: Path, class_path: list[Path]) -> str:
    command = ["java", "-Xmx2g", "-Xss64m", *QUICK, *LIMITS, "-cp", ":".join(map(str, class_path))]
    done = subprocess.run(
        [*command, "com.pixelmed.validate.DicomSRValidator", "-checkcontentitemorder", str(file)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=280,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, str]:
    """What PixelMed says of each report."""
    folder = tmp_path_factory.mktemp("reports")
    rules = corrected_rules(tmp_path_factory.mktemp("rules"))
    jobs = [(name, [*JARS]) for name in AS_THEY_COME] + [(name, [rules, *JARS]) for name in CORRECTED]
    files = [written(name, folder) for name, _ in jobs]
    with ThreadPoolExecutor(JVMS) as pool:
        answers = pool.map(validated, files, [class_path for _, class_path in jobs])
        return {name: answer for (name, _), answer in zip(jobs, answers, strict=True)}


@needs_pixelmed
@pytest.mark.parametrize("name", [*AS_THEY_COME, *CORRECTED])
def test_pixelmed_finds_the_template_and_no_error(said, name):
    assert "Found Root Template TID_4000" in said[name]
    assert "IOD validation complete" in said[name]
    assert [line for line in said[name].splitlines() if "Error" in line] == []


@needs_pixelmed
@pytest.mark.parametrize("name", [*AS_THEY_COME, *CORRECTED])
def test_pixelmed_warns_of_its_own_spelling_alone(said, name):
    """ "Composite type", "Failed Detections", "Failed Analyses" are written otherwise in PS3.16 than in its rules."""
    warnings = [line for line in said[name].splitlines() if "Warning" in line]
    assert [line for line in warnings if "has different code meaning" not in line] == []


@needs_dcmtk
@pytest.mark.parametrize("name", cad_exams.VARIANTS)
def test_dsrdump_reads_the_tree(name, tmp_path):
    file = written(name, tmp_path)
    done = subprocess.run(["dsrdump", "+Pc", str(file)], capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if line] == [
        "W: Check for template constraints not yet supported"
    ]
    assert "Mammography CAD SR Document" in done.stdout


def test_every_variant_goes_before_pixelmed_but_the_plain_one():
    assert {*AS_THEY_COME, *CORRECTED} | {"findings"} == set(cad_exams.VARIANTS)
