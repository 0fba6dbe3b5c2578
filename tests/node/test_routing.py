"""Rules as tables: which one wins, and when a condition holds."""

from typing import Any

import pytest

from node.routing import Route, Skip, matches, route
from node.settings import Match, Rule
from tests.node.exams import exam_of, four, image

HOLOGIC = Match("Manufacturer", regex="(?i)^hologic")
SIEMENS = Match("Manufacturer", equals="SIEMENS")

CONDITIONS: dict[str, tuple[Match, str | None, bool]] = {
    "equals": (Match("Manufacturer", equals="SIEMENS"), "SIEMENS", True),
    "equals, upper and lower case apart": (Match("Manufacturer", equals="Siemens"), "SIEMENS", False),
    "equals, not a part": (Match("Manufacturer", equals="SIEMENS"), "SIEMENS Healthineers", False),
    "equals one value of several": (Match("Manufacturer", equals="PRIMARY"), "ORIGINAL\\PRIMARY\\", True),
    "equals, absent": (Match("Manufacturer", equals="SIEMENS"), None, False),
    "equals nothing, absent": (Match("Manufacturer", equals=""), None, False),
    "one of": (Match("Manufacturer", one_of=("GE", "SIEMENS")), "SIEMENS", True),
    "one of, none": (Match("Manufacturer", one_of=("GE", "SIEMENS")), "FUJIFILM", False),
    "one of, absent": (Match("Manufacturer", one_of=("GE",)), None, False),
    "regex": (Match("Manufacturer", regex="(?i)^holo"), "HOLOGIC, Inc.", True),
    "regex, anywhere": (Match("Manufacturer", regex="Inc"), "HOLOGIC, Inc.", True),
    "regex, nowhere": (Match("Manufacturer", regex="^Inc"), "HOLOGIC, Inc.", False),
    "regex of anything, absent": (Match("Manufacturer", regex=".*"), None, False),
    "present": (Match("Manufacturer", present=True), "GE", True),
    "present, absent": (Match("Manufacturer", present=True), None, False),
    "not present": (Match("Manufacturer", present=False), None, True),
    "not present, there": (Match("Manufacturer", present=False), "GE", False),
    "without a condition": (Match("Manufacturer"), "GE", False),
}


@pytest.mark.parametrize("what", CONDITIONS)
def test_conditions(what: str) -> None:
    condition, value, expected = CONDITIONS[what]
    header = () if value is None else (("Manufacturer", value),)
    assert matches(condition, image("LCC", header=header)) is expected


def of(maker: str, **changes: Any) -> Any:
    return exam_of(four(header=(("Manufacturer", maker), ("StationName", "MAMMO1")), **changes))


def test_the_first_rule_that_holds_wins() -> None:
    rules = [
        Rule("siemens", (SIEMENS,), skip="not validated for this maker"),
        Rule("hologic", (HOLOGIC, Match("StationName", present=True)), priority=2, destinations=("PACS",)),
        Rule("later", (HOLOGIC,)),
    ]
    assert route(of("SIEMENS"), rules) == Skip("siemens", "not validated for this maker")
    assert route(of("HOLOGIC, Inc."), rules) == Route("hologic", "exam_encoder", (), 2, ("PACS",))


def test_without_a_rule_that_holds_the_exam_is_read_and_sent_everywhere() -> None:
    assert route(of("GE"), [Rule("siemens", (SIEMENS,))]) == Route("default", "exam_encoder", (), 5, ())


def test_a_rule_without_conditions_always_holds() -> None:
    rule = Rule("all", (), model="other", thresholds=(("mass", 0.3),))
    assert route(of("GE"), [rule]) == Route("all", "other", (("mass", 0.3),), 5, ())


def test_a_condition_must_hold_for_every_image_that_is_read() -> None:
    images = [*four(header=(("Manufacturer", "SIEMENS"),))[:3], image("LMLO", header=(("Manufacturer", "GE"),))]
    assert isinstance(route(exam_of(images), [Rule("siemens", (SIEMENS,), skip="no")]), Route)
    others = [*four(header=(("Manufacturer", "SIEMENS"),)), image("LML", header=(("Manufacturer", "GE"),))]
    assert route(exam_of(others), [Rule("siemens", (SIEMENS,), skip="no")]) == Skip("siemens", "no")
