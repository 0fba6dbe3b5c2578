import pytest

from deploy.conformance import MADE_AS, PAGE, receives, sends, with_generated
from node.results.rendering import ENCODERS
from node.supported import CLASS_OF_KIND, STORAGE_CLASSES, TRANSFER_SYNTAXES
from tests.node.results import exams, report_exams


def test_the_page_says_what_the_node_does() -> None:
    page = PAGE.read_text()
    assert with_generated(page) == page, "run: python -m deploy.conformance"


def test_every_class_and_syntax_is_listed() -> None:
    table = receives()
    assert [uid for uid in (*STORAGE_CLASSES, *TRANSFER_SYNTAXES) if f"| {uid} |" not in table] == []


def test_every_kind_is_made_as_the_page_says() -> None:
    reading, headers = report_exams.later(), exams.sources()
    where = exams.destination(*(kind for kind in MADE_AS if kind not in ("SEG", "REJECT")), retract=True)
    made = {shipment.result.kind.value: shipment.result for shipment in exams.shipments(reading, headers, where)}
    assert {kind: result.transfer_syntax_uid for kind, result in made.items()} == {
        kind: syntax for kind, (syntax, _, _) in MADE_AS.items()
    }
    assert {kind: result.sop_class_uid for kind, result in made.items()} == CLASS_OF_KIND


def test_every_kind_of_object_is_on_the_page() -> None:
    assert {kind.value for kind in ENCODERS} - {"ORU"} <= set(MADE_AS)
    assert [kind for kind in MADE_AS if f"| {kind} | " not in sends()] == []


@pytest.mark.parametrize("part", ["receives", "sends"])
def test_a_page_without_its_marks_is_refused(part: str) -> None:
    page = PAGE.read_text().replace(f"generated: {part}", "something else")
    with pytest.raises(ValueError, match=f"no generated part '{part}'"):
        with_generated(page)
