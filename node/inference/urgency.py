"""How urgent an exam is to a model server, by the priority of the rule that reads it."""

from enum import Enum


class Urgency(Enum):
    """The value is Triton's priority level: a queue serves 1 first."""

    URGENT = 1
    ROUTINE = 2
    RETROSPECTIVE = 3


def urgency_of(priority: int) -> Urgency:
    """Of a rule's priority: 0 to 2 urgent, 3 to 6 routine, 7 to 9 retrospective."""
    if priority <= 2:
        return Urgency.URGENT
    return Urgency.ROUTINE if priority <= 6 else Urgency.RETROSPECTIVE
