"""The candidate: a second model that is tried beside the first, and the exams that fall to it. Pure.

In *shadow* it reads an exam after the first model's results have gone; what it says is stored, compared, never sent.
As *canary* it reads a share of the exams in place of the first model; its results are sent and carry its identity.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from node.errors import SettingsError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
CANARY = "canary"
SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class CandidateSettings:
    """`[candidate]` of settings.toml. What is left out of backend, place and precision is as in `[inference]`."""

    name: str
    """Decisions, lists and the choice of exams go by it: another model gets another name."""
    backend: str | None = None
    model_folder: Path | None = None
    triton_model: str | None = None
    triton_version: str | None = None
    precision: str | None = None
    shadow: float = 0.0
    """Share of the exams, in [0, 1], that it reads too."""
    canary: float = 0.0
    """Share of the exams, in [0, 1], that it reads in place of the first model."""


def check_candidate(candidate: CandidateSettings) -> None:
    """Raises SettingsError naming the key."""
    if not NAME.fullmatch(candidate.name):
        raise SettingsError("candidate.name: 1 to 64 letters, digits and . _ + -")
    for key, share in ((SHADOW, candidate.shadow), (CANARY, candidate.canary)):
        if not 0 <= share <= 1:
            raise SettingsError(f"candidate.{key}: a share of the exams, 0 to 1")


def place_of(study_instance_uid: str, name: str, use: str) -> float:
    """Where an exam lies in [0, 1) for one candidate and one use of it: it falls to a share where it lies below that.

    A function of these words alone: the same exam goes the same way in every process, at every retry, with every late
    view. A greater share adds exams to those of a smaller one. The first 52 bits of a SHA-256.
    """
    digest = hashlib.sha256(f"{use}\n{name}\n{study_instance_uid}".encode()).hexdigest()
    return int(digest[:13], 16) / 16**13
