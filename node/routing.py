"""Which exams are read, how, and where their results go: the site's rules, first match wins. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from node.exam import Exam, Instance
from node.settings import Match, Rule

DEFAULT_RULE = Rule(name="default", match=())
"""What holds where no rule of the site does: read with the first model, at its own thresholds, results everywhere."""


@dataclass(frozen=True, slots=True)
class Route:
    """Read the exam. `destinations` empty: all; `thresholds`: finding name to probability, over the model's own."""

    rule: str
    model: str
    thresholds: tuple[tuple[str, float], ...]
    priority: int
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skip:
    """Do not read the exam, for a reason that is shown in these words."""

    rule: str
    reason: str


def route(exam: Exam, rules: Sequence[Rule]) -> Route | Skip:
    """The first rule whose conditions all hold; DEFAULT_RULE where none does."""
    rule = next((rule for rule in rules if holds(rule, exam)), DEFAULT_RULE)
    if rule.skip is not None:
        return Skip(rule.name, rule.skip)
    return Route(rule.name, rule.model, rule.thresholds, rule.priority, rule.destinations)


def holds(rule: Rule, exam: Exam) -> bool:
    """Whether each condition holds for each image that would be read, so that one odd image cannot take an exam along.

    A rule without conditions always holds. Where nothing was chosen, all images of the study count.
    """
    images = [image for _, image in exam.chosen] or list(exam.instances)
    return all(matches(condition, image) for condition in rule.match for image in images)


def matches(condition: Match, image: Instance) -> bool:
    """Whether one image's header meets one condition.

    An element with several values meets it if one of them does (ImageType). Values are compared as they stand, upper
    and lower case apart; `regex` may match anywhere in a value; `present` asks for a value that is not empty.
    """
    text = dict(image.header).get(condition.keyword, "")
    if condition.present is not None:
        return bool(text) == condition.present
    values = text.split("\\") if text else []
    if condition.equals is not None:
        return condition.equals in values
    if condition.one_of is not None:
        return any(value in condition.one_of for value in values)
    return condition.regex is not None and any(re.search(condition.regex, value) for value in values)
