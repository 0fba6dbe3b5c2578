import pytest

from deploy.conformance import PAGE, generated, with_generated
from node.supported import STORAGE_CLASSES, TRANSFER_SYNTAXES


def test_the_page_says_what_the_listener_does() -> None:
    page = PAGE.read_text()
    assert with_generated(page) == page, "run: python -m deploy.conformance"


def test_every_class_and_syntax_is_listed() -> None:
    table = generated()
    assert [uid for uid in (*STORAGE_CLASSES, *TRANSFER_SYNTAXES) if f"| {uid} |" not in table] == []


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no generated part"):
        with_generated("# something else")
