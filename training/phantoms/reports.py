"""What a report would say of a phantom's lesions."""

from collections.abc import Sequence

from node.mammography.findings import FindingKind
from node.mammography.views import Laterality, View, ViewPosition
from training.phantoms.lesions import Lesion, LesionKind

_SIDES = {Laterality.RIGHT: "right", Laterality.LEFT: "left"}

_PHRASES = {
    "round": "round circumscribed mass",
    "oval": "oval circumscribed mass",
    "lobulated": "lobulated circumscribed mass",
    "irregular": "irregular mass with indistinct margins",
    "spiculated": "irregular mass with spiculated margins",
    "punctate grouped": "grouped punctate calcifications",
    "round grouped": "grouped round calcifications",
    "pleomorphic grouped": "grouped fine pleomorphic calcifications",
    "fine linear": "fine linear branching calcifications",
    "pleomorphic segmental": "segmental fine pleomorphic calcifications",
    "radiating": "architectural distortion",
    "scar with clips": "architectural distortion with surgical clips, post-operative",
    "focal": "focal asymmetry",
    "focal with distortion": "focal asymmetry with architectural distortion",
}
"""Words by subtype, after the BI-RADS lexicon's terms."""

NEGATIVE = "No suspicious finding in either breast."
NEGATIVE_VIEW = "No suspicious finding."


def exam_sentences(lesions: Sequence[Lesion]) -> tuple[str, ...]:
    """A sentence for each lesion: size, words, quadrant, side, depth. One negative where there is no lesion."""
    if not lesions:
        return (NEGATIVE,)
    return tuple(
        f"{_opening(lesion)} in the {lesion.site.quadrant} of the {_SIDES[lesion.laterality]} breast, "
        f"{lesion.site.depth} depth."
        for lesion in lesions
    )


def view_sentences(lesions: Sequence[Lesion], view: View) -> tuple[str, ...]:
    """The view's lesions without side words; upper or lower only in an MLO, outer or inner only in a CC."""
    here = [lesion for lesion in lesions if lesion.laterality is view.laterality]
    if not here:
        return (NEGATIVE_VIEW,)
    return tuple(f"{_opening(lesion)} in the {_place(lesion, view.position)}." for lesion in here)


def description(lesion: Lesion) -> str:
    """The finding alone: "irregular mass with spiculated margins"."""
    return _PHRASES[lesion.subtype]


def phrase_of(kind: LesionKind) -> str:
    """The words for any lesion of a kind, as `description` has them."""
    return _PHRASES[kind.subtype]


def _opening(lesion: Lesion) -> str:
    phrase = description(lesion)
    if lesion.finding is FindingKind.SUSPICIOUS_CALCIFICATION:
        return f"{phrase.capitalize()} spanning {lesion.size_mm:.0f} mm"
    return f"{lesion.size_mm:.0f} mm {phrase}"


def _place(lesion: Lesion, position: ViewPosition) -> str:
    site = lesion.site
    if site.nipple_distance_mm < 22.0:
        return "retroareolar breast"
    if position is ViewPosition.CC:
        return f"{'outer' if site.outer > 0 else 'inner'} breast, {site.depth} depth"
    return f"{'upper' if site.upper > 0 else 'lower'} breast, {site.depth} depth"
