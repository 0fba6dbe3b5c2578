"""The Mammography CAD SR against the worked examples of PS3.17 Annex E.3.

The tables hold the examples' nodes by number, with the relationships and codes that PS3.16 gives them. A row that ends
in "x" is of an algorithm that these models do not have: single calcifications, their number, areas, and the second
clustering. Example 3 differs from example 2 by comparison with a prior report, which the node does not make.
"""

from dataclasses import dataclass, field, replace

from node.destinations import CadProfile
from node.mammography.findings import Correspondence, FindingKind
from node.mammography.views import LCC, LMLO, RCC, RMLO
from node.results import cad_report
from node.results.reading import Reading
from tests.node.results import exams
from tests.node.results.cad_exams import finding
from tests.node.results.sr_tree import Node, tree

LIBRARY = """
1       |                 | 111036 |
1.1     | CONTAINS        | 111028 |
1.1.1   | CONTAINS        | IMAGE  |
1.1.1.1 | HAS ACQ CONTEXT | 111027 | 73056007
1.1.1.2 | HAS ACQ CONTEXT | 111031 | 399162004
1.1.1.3 | HAS ACQ CONTEXT | 111060 |
1.1.2   | CONTAINS        | IMAGE  |
1.1.2.1 | HAS ACQ CONTEXT | 111027 | 80248007
1.1.2.2 | HAS ACQ CONTEXT | 111031 | 399162004
1.1.2.3 | HAS ACQ CONTEXT | 111060 |
1.1.3   | CONTAINS        | IMAGE  |
1.1.3.1 | HAS ACQ CONTEXT | 111027 | 73056007
1.1.3.2 | HAS ACQ CONTEXT | 111031 | 399368009
1.1.3.3 | HAS ACQ CONTEXT | 111060 |
1.1.4   | CONTAINS        | IMAGE  |
1.1.4.1 | HAS ACQ CONTEXT | 111027 | 80248007
1.1.4.2 | HAS ACQ CONTEXT | 111031 | 399368009
1.1.4.3 | HAS ACQ CONTEXT | 111060 |
"""
"""Right CC, left CC, right MLO, left MLO; the same in all examples."""

NO_FINDINGS = f"""{LIBRARY}
1.2       | CONTAINS       | 111017    | 111241
1.3       | CONTAINS       | 111064    | 111222
1.3.1     | INFERRED FROM  | 111063    |
1.3.1.1   | CONTAINS       | 111022    | 129793001
1.3.1.1.1 | HAS PROPERTIES | 111001    |
1.3.1.1.2 | HAS PROPERTIES | 111003    |
1.3.1.1.3 | HAS PROPERTIES | reference | 1.1.1
1.3.1.1.4 | HAS PROPERTIES | reference | 1.1.2
1.3.1.1.5 | HAS PROPERTIES | reference | 1.1.3
1.3.1.1.6 | HAS PROPERTIES | reference | 1.1.4
1.3.1.2   | CONTAINS       | 111022    | 129769006
1.3.1.2.1 | HAS PROPERTIES | 111001    |
1.3.1.2.2 | HAS PROPERTIES | 111003    |
1.3.1.2.3 | HAS PROPERTIES | reference | 1.1.1
1.3.1.2.4 | HAS PROPERTIES | reference | 1.1.2
1.3.1.2.5 | HAS PROPERTIES | reference | 1.1.3
1.3.1.2.6 | HAS PROPERTIES | reference | 1.1.4
1.4       | CONTAINS       | 111065    | 111225
"""
"""E.3.1. Its calcification detector finds single ones (129770007), the node's finds clusters (129769006)."""

FINDINGS = f"""{LIBRARY}
1.2             | CONTAINS        | 111017    | 111242
1.2.1           | INFERRED FROM   | 111034    |
1.2.1.1         | HAS CONCEPT MOD | 111056    | 111150
1.2.1.2         | CONTAINS        | 111015    | 129788004
1.2.1.2.1       | HAS CONCEPT MOD | 111056    | 111150
1.2.1.2.2       | HAS PROPERTIES  | 111016    | 111154
1.2.1.2.3       | HAS PROPERTIES  | 111057    | 111158
1.2.1.2.4       | HAS PROPERTIES  | 111001    |
1.2.1.2.5       | HAS PROPERTIES  | 111003    |
1.2.1.2.6       | INFERRED FROM   | 111059    | 129793001
1.2.1.2.6.1     | HAS CONCEPT MOD | 111056    | 111150
1.2.1.2.6.2     | HAS PROPERTIES  | 111001    |
1.2.1.2.6.3     | HAS PROPERTIES  | 111003    |
1.2.1.2.6.4     | HAS PROPERTIES  | 111010    | POINT
1.2.1.2.6.4.1   | SELECTED FROM   | reference | 1.1.2
1.2.1.2.6.5     | HAS PROPERTIES  | 111041    | POLYLINE
1.2.1.2.6.5.1   | SELECTED FROM   | reference | 1.1.2
1.2.1.2.7       | INFERRED FROM   | 111059    | 129793001
1.2.1.2.7.1     | HAS CONCEPT MOD | 111056    | 111150
1.2.1.2.7.2     | HAS PROPERTIES  | 111001    |
1.2.1.2.7.3     | HAS PROPERTIES  | 111003    |
1.2.1.2.7.4     | HAS PROPERTIES  | 111010    | POINT
1.2.1.2.7.4.1   | SELECTED FROM   | reference | 1.1.4
1.2.1.2.7.5     | HAS PROPERTIES  | 111041    | POLYLINE
1.2.1.2.7.5.1   | SELECTED FROM   | reference | 1.1.4
1.2.1.2.7.6     | HAS PROPERTIES  | 42798000  | x
1.2.1.2.7.6.1   | INFERRED FROM   | 121056    | x
1.2.1.2.7.6.1.1 | SELECTED FROM   | reference | x
1.2.2           | INFERRED FROM   | 111034    |
1.2.2.1         | HAS CONCEPT MOD | 111056    | 111152
1.2.2.2         | CONTAINS        | 111059    | 129793001
1.2.2.2.1       | HAS CONCEPT MOD | 111056    | 111152
1.2.2.2.2       | HAS PROPERTIES  | 111001    |
1.2.2.2.3       | HAS PROPERTIES  | 111003    |
1.2.2.2.4       | HAS PROPERTIES  | 111010    | POINT
1.2.2.2.4.1     | SELECTED FROM   | reference | 1.1.2
1.2.2.2.5       | HAS PROPERTIES  | 111041    | POLYLINE
1.2.2.2.5.1     | SELECTED FROM   | reference | 1.1.2
1.2.3           | INFERRED FROM   | 111034    |
1.2.3.1         | HAS CONCEPT MOD | 111056    | 111150
1.2.3.2         | CONTAINS        | 111059    | 129769006
1.2.3.2.1       | HAS CONCEPT MOD | 111056    | 111150
1.2.3.2.2       | HAS PROPERTIES  | 111001    |
1.2.3.2.3       | HAS PROPERTIES  | 111003    |
1.2.3.2.4       | HAS PROPERTIES  | 111010    | POINT
1.2.3.2.4.1     | SELECTED FROM   | reference | 1.1.3
1.2.3.2.5       | HAS PROPERTIES  | 111041    | POLYLINE
1.2.3.2.5.1     | SELECTED FROM   | reference | 1.1.3
1.2.3.2.6       | HAS PROPERTIES  | 111038    | x
1.2.4           | INFERRED FROM   | 111034    |
1.2.4.1         | HAS CONCEPT MOD | 111056    | 111150
1.2.4.2         | CONTAINS        | 111059    | 129769006
1.2.4.2.1       | HAS CONCEPT MOD | 111056    | 111150
1.2.4.2.2       | HAS PROPERTIES  | 111001    |
1.2.4.2.3       | HAS PROPERTIES  | 111003    |
1.2.4.2.4       | HAS PROPERTIES  | 111010    | POINT
1.2.4.2.4.1     | SELECTED FROM   | reference | 1.1.1
1.2.4.2.5       | HAS PROPERTIES  | 111041    | POLYLINE
1.2.4.2.5.1     | SELECTED FROM   | reference | 1.1.1
1.2.4.2.6       | HAS PROPERTIES  | 111038    | x
1.2.4.2.7       | INFERRED FROM   | 111059    | x
1.2.4.2.8       | INFERRED FROM   | 111059    | x
1.3             | CONTAINS        | 111064    | 111222
1.3.1           | INFERRED FROM   | 111063    |
1.3.1.1         | CONTAINS        | 111022    | 129793001
1.3.1.1.1       | HAS PROPERTIES  | 111001    |
1.3.1.1.2       | HAS PROPERTIES  | 111003    |
1.3.1.1.3       | HAS PROPERTIES  | reference | 1.1.1
1.3.1.1.4       | HAS PROPERTIES  | reference | 1.1.2
1.3.1.1.5       | HAS PROPERTIES  | reference | 1.1.3
1.3.1.1.6       | HAS PROPERTIES  | reference | 1.1.4
1.3.1.2         | CONTAINS        | 111022    | x
1.3.1.3         | CONTAINS        | 111022    | x
1.3.1.4         | CONTAINS        | 111022    | 129769006
1.3.1.4.1       | HAS PROPERTIES  | 111001    |
1.3.1.4.2       | HAS PROPERTIES  | 111003    |
1.3.1.4.3       | HAS PROPERTIES  | reference | 1.1.1
1.3.1.4.4       | HAS PROPERTIES  | reference | 1.1.2
1.3.1.4.5       | HAS PROPERTIES  | reference | 1.1.3
1.3.1.4.6       | HAS PROPERTIES  | reference | 1.1.4
1.4             | CONTAINS        | 111065    | 111222
1.4.1           | INFERRED FROM   | 111062    |
1.4.1.1         | CONTAINS        | 111004    | 133884007
1.4.1.1.1       | HAS PROPERTIES  | 111001    |
1.4.1.1.2       | HAS PROPERTIES  | 111003    |
1.4.1.1.3       | HAS PROPERTIES  | reference | 1.1.2
1.4.1.1.4       | HAS PROPERTIES  | reference | 1.1.4
"""
"""E.3.2. Its "Mass Correlation" is no code of CID 6043: the node writes Spatial collocation analysis (133884007)."""

BEYOND_THE_EXAMPLES = {
    ("HAS CONCEPT MOD", "121049"): "language, mandatory; left out there",
    ("HAS ACQ CONTEXT", "111044"): "left out there for brevity, as the next four",
    ("HAS ACQ CONTEXT", "111043"): "",
    ("HAS ACQ CONTEXT", "111061"): "",
    ("HAS ACQ CONTEXT", "111026"): "",
    ("HAS ACQ CONTEXT", "111066"): "",
    ("HAS OBS CONTEXT", "112039"): "tracking identifier, TID 4108, younger than the examples",
    ("HAS OBS CONTEXT", "112040"): "",
    ("HAS PROPERTIES", "111002"): "algorithm parameters, optional",
    ("HAS PROPERTIES", "111012"): "certainty of finding, optional",
}
IMAGE_QUALITY = ("CONTAINS", "111022", "111101")
"""The node also looks for what is wrong with each image."""


@dataclass
class Expected:
    relationship: str
    concept: str
    value: str
    children: list["Expected"] = field(default_factory=list)


def transcribed(table: str) -> Expected:
    """The table as a tree. The library is child 1 there and child 2 here, after the language."""
    nodes: dict[str, Expected] = {}
    for line in filter(None, table.splitlines()):
        number, relationship, concept, value = (cell.strip() for cell in line.split("|"))
        if value == "x":
            continue
        if concept == "reference":
            concept, value = "", value.replace("1.1.", "1.2.")
        nodes[number] = Expected(relationship, concept, value)
        if number != "1":
            nodes[number.rpartition(".")[0]].children.append(nodes[number])
    return nodes["1"]


def differences(expected: Expected, made: Node, path: str = "1") -> list[str]:
    """What stands in one and not in the other, in order, but for what may stand beyond the examples."""
    found = []
    if (expected.relationship, expected.concept) != (made.relationship, made.concept):
        found.append(f"{path}: {expected.relationship} {expected.concept} is {made.relationship} {made.concept}")
    if expected.value and expected.value != made.value:
        found.append(f"{path}: {expected.concept} is {made.value}, not {expected.value}")
    children = [child for child in made.children if not beyond(child)]
    if len(children) != len(expected.children):
        wanted, got = ([child.concept for child in each] for each in (expected.children, children))
        return [*found, f"{path}: has {got}, not {wanted}"]
    for number, (wanted, child) in enumerate(zip(expected.children, children, strict=True), 1):
        found += differences(wanted, child, f"{path}.{number}")
    return found


def beyond(node: Node) -> bool:
    is_quality = (node.relationship, node.concept, node.value) == IMAGE_QUALITY
    return is_quality or (node.relationship, node.concept) in BEYOND_THE_EXAMPLES


def without_exam_values(reading: Reading) -> Reading:
    breasts = tuple(replace(breast, probability=None) for breast in reading.breasts)
    return replace(reading, exam_probability=None, breasts=breasts)


def example_2() -> Reading:
    """Two densities in left CC, one in left MLO, clusters in right CC and right MLO that no one compares."""
    found = (
        finding(FindingKind.MASS, LCC, (300.0, 500.0)),
        finding(FindingKind.MASS, LMLO, (320.0, 600.0)),
        finding(FindingKind.MASS, LCC, (200.0, 900.0), probability=0.3),
        finding(FindingKind.SUSPICIOUS_CALCIFICATION, RMLO, (800.0, 700.0)),
        finding(FindingKind.SUSPICIOUS_CALCIFICATION, RCC, (820.0, 400.0)),
    )
    made = without_exam_values(exams.reading(lesions={}))
    return replace(made, findings=found, correspondences=(Correspondence(0, 1),))


def test_example_1_no_findings():
    made = without_exam_values(exams.reading(lesions={}))
    content = cad_report.encode(made, exams.sources(), CadProfile()).content
    assert differences(transcribed(NO_FINDINGS), tree(content)) == []


def test_example_2_findings_one_of_them_not_for_presentation():
    profile = CadProfile(required_at=(("mass", 0.5),), below="not")
    content = cad_report.encode(example_2(), exams.sources(), profile).content
    assert differences(transcribed(FINDINGS), tree(content)) == []


def test_a_tree_that_differs_is_told():
    content = cad_report.encode(exams.reading(), exams.sources(), CadProfile()).content
    told = differences(transcribed(NO_FINDINGS), tree(content))
    assert any("111017 is 111242, not 111241" in line for line in told)


def test_example_3_the_exam_s_impression_and_its_algorithm_stand_before_the_individual_ones():
    root = tree(cad_report.encode(exams.reading(), exams.sources(), CadProfile()).content)
    concepts = list(dict.fromkeys(child.concept for child in root.one("111017").children))
    assert concepts == ["111033", "111001", "111003", "111002", "111034"]
