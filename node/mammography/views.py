"""Sides and views of a mammogram, and how a data set states them (PS3.3 C.8.11.7, CID 4014, CID 4015)."""

from dataclasses import dataclass
from enum import StrEnum


class Laterality(StrEnum):
    """Side of one breast, Image Laterality (0020,0062). B (both) has no member: it is refused."""

    RIGHT = "R"
    LEFT = "L"


class ViewPosition(StrEnum):
    """View of CID 4014, by the defined term of View Position (0018,5101)."""

    CC = "CC"
    MLO = "MLO"
    ML = "ML"
    LM = "LM"
    LMO = "LMO"
    FB = "FB"
    SIO = "SIO"
    ISO = "ISO"
    XCC = "XCC"
    XCCL = "XCCL"
    XCCM = "XCCM"


@dataclass(frozen=True, slots=True)
class View:
    """A side and a projection, named as radiologists do: RCC, LCC, RMLO, LMLO."""

    laterality: Laterality
    position: ViewPosition

    @property
    def name(self) -> str:
        """The view in one word, for example LMLO."""
        return f"{self.laterality.value}{self.position.value}"

    def __str__(self) -> str:
        return self.name


RCC = View(Laterality.RIGHT, ViewPosition.CC)
LCC = View(Laterality.LEFT, ViewPosition.CC)
RMLO = View(Laterality.RIGHT, ViewPosition.MLO)
LMLO = View(Laterality.LEFT, ViewPosition.MLO)

STANDARD_VIEWS: tuple[View, View, View, View] = (RCC, LCC, RMLO, LMLO)
"""The view axis (V) of every tensor, in this order: as hung, right before left, CC before MLO."""

BREASTS: tuple[Laterality, Laterality] = (Laterality.RIGHT, Laterality.LEFT)
"""The breast axis of `breast_logits`."""
