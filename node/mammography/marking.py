"""Which regions of heat become marks: what a radiologist is shown of one view.

Three rules, so that one lesion gets one mark:

- A further region of a kind is marked only where its heat is at least FURTHER_SHARE of that of the kind's hottest one
  in the view. The heat around a lesion often breaks into islands; a second lesion is about as hot as the first.
- Mass, architectural distortion and asymmetry at one place are one lesion and get one mark, in this order: a distortion
  where a mass is seen is a feature that goes with the mass, and is named in its mark; an asymmetry is by its definition
  (ACR BI-RADS) no mass and no distortion, so beside either it is left out.
- A calcification cluster keeps its own mark, whatever it lies on: it is worked up in another way.

Two regions are at one place where the centre of either lies inside the other's contour. Probabilities of all kinds stay
in every result: what has no mark of its own is not said to be absent. All coordinates are model pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node.mammography.findings import FindingKind
from node.mammography.regions import Region, contains

MAXIMUM_REGIONS = 3
"""At most this many regions of one kind are marked in one view, the hottest ones."""
FURTHER_SHARE = 0.7
"""Chosen on 150 validation phantoms (model 2.0.0): false marks in views with a finding fall from .69 to .30 a view, at
the price of 5 of 150 lesion views marked; at .6 .36 stay and 4 are lost, at .9 .19 and 9."""

SOFT_KINDS = (FindingKind.MASS, FindingKind.ARCHITECTURAL_DISTORTION, FindingKind.ASYMMETRY)
"""Of these one place has one, the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A region that is shown. `associated`: what is seen at its place and has no mark of its own."""

    kind: FindingKind
    region: Region
    associated: tuple[FindingKind, ...] = ()


def marks_of(regions: Mapping[FindingKind, Sequence[Region]]) -> tuple[Mark, ...]:
    """The marks of one view from the regions of each kind, in the order of both; see above for the rules."""
    led: dict[int, list[FindingKind]] = {}
    leading: list[tuple[FindingKind, Region]] = []
    for kind in SOFT_KINDS:
        own: list[tuple[FindingKind, Region]] = []
        for region in regions.get(kind, ()):
            lead = next((other for _, other in leading if at_one_place(other, region)), None)
            if lead is None:
                own.append((kind, region))
            elif kind is not FindingKind.ASYMMETRY:
                led.setdefault(id(lead), []).append(kind)
        leading += own
    kept = {id(region) for _, region in leading}
    return tuple(
        Mark(kind, region, tuple(dict.fromkeys(led.get(id(region), ()))))
        for kind, found in regions.items()
        for region in found
        if kind not in SOFT_KINDS or id(region) in kept
    )


def at_one_place(one: Region, other: Region) -> bool:
    """Whether the centre of either lies inside the other's contour."""
    return contains(one.contour, other.centre) or contains(other.contour, one.centre)
