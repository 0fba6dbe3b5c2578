"""Which model reads an exam: by the settings and by what was decided since, asked anew for each exam.

So a decision holds at once, in every worker.

Nobody chooses by what an exam shows: the first model and the canary get shares of the same exams.
"""

from dataclasses import dataclass

from node.candidate import CANARY, SHADOW, CandidateSettings, place_of
from node.database import Database
from node.database.decisions import Decided, Decision, latest_decision


@dataclass(frozen=True, slots=True)
class Choice:
    """`candidate`: the name of the one that reads in place of the first model; empty: the first model reads.

    `shadow`: the name of the one that reads too, afterwards; empty: none does. `why` in words.
    """

    candidate: str
    shadow: str
    why: str


FIRST_MODEL = Choice("", "", "there is no candidate")


def choose(database: Database, candidate: CandidateSettings | None, study_instance_uid: str) -> Choice:
    """The model of one exam. Raises OutOfResourcesError where the database is away."""
    if candidate is None:
        return FIRST_MODEL
    decided = latest_decision(database, candidate.name)
    share, place = canary_share(candidate, decided), place_of(study_instance_uid, candidate.name, CANARY)
    why = f"its place {place:.4f} {'<' if place < share else '>='} share {share:g} ({reason_of(candidate, decided)})"
    if place < share:
        return Choice(candidate.name, "", why)
    shadowed = place_of(study_instance_uid, candidate.name, SHADOW) < candidate.shadow
    return Choice("", candidate.name if shadowed else "", why)


def reads_exams(database: Database, candidate: CandidateSettings | None) -> bool:
    """Whether any exam falls to the candidate now."""
    return candidate is not None and canary_share(candidate, latest_decision(database, candidate.name)) > 0


def canary_share(candidate: CandidateSettings, decided: Decided | None) -> float:
    """The share of the exams that the candidate reads in place of the first model, by the decision that holds."""
    if decided is None or decided.decision is Decision.RESUME:
        return candidate.canary
    return 1.0 if decided.decision is Decision.PROMOTE else 0.0


def reason_of(candidate: CandidateSettings, decided: Decided | None) -> str:
    """Where the share comes from, in words."""
    if decided is None:
        return f"candidate {candidate.name}, canary in the settings"
    return f"candidate {candidate.name}, {decided.decision} of {decided.at:%Y-%m-%d %H:%M} UTC by {decided.by}"
