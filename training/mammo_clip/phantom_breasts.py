"""Breasts of phantom exams with sentences of the report grammar, placed where the truth says the lesions lie.

Phantom views are mirrored to one side, so sentences name no side, and only those place words that the view shows: upper
or lower in an MLO, inner or outer in a CC.
"""

import time
from pathlib import Path

from node.mammography.findings import FINDING_KINDS, FindingKind
from node.mammography.views import BREASTS, STANDARD_VIEWS, View, ViewPosition
from training.cache import cached_seeds, load_truth, render_seeds
from training.mammo_clip.breasts import Breast
from training.mammo_clip.grammar import Location
from training.mammo_clip.images import PhantomView
from training.mammo_clip.seen import Seen, SeenViews
from training.mammo_clip.texts import clean_section
from training.phantoms import make_exam
from training.phantoms.lesions import Lesion
from training.phantoms.reports import description, view_sentences

# fmt: off
SUBTYPES: dict[str, tuple[str, ...]] = {
    "round": ("", "possible", "questioned"),
    "oval": ("", "possible", "questioned"),
    "lobulated": ("", "indeterminate", "questionable"),
    "irregular": ("", "suspicious", "irregular"),
    "spiculated": ("", "suspicious", "spiculated"),
    "punctate grouped": ("indeterminate grouped", "possible grouped", "questionable clustered"),
    "round grouped": ("possible grouped", "questioned grouped", "questionable clustered"),
    "pleomorphic grouped": ("pleomorphic grouped", "suspicious grouped", "suspicious clustered"),
    "fine linear": ("suspicious linear", "indeterminate linear"),
    "pleomorphic segmental": ("pleomorphic segmental", "suspicious segmental"),
    "radiating": ("", "suspicious"),
    "scar with clips": ("", "questionable"),
    "focal": ("", "possible", "indeterminate"),
    "focal with distortion": ("", "suspicious"),
}
# fmt: on
"""What the grammar may call each of the phantoms' kinds."""
GRAMMAR_NAMES = {
    FindingKind.MASS: "Mass",
    FindingKind.SUSPICIOUS_CALCIFICATION: "Suspicious_Calcification",
    FindingKind.ARCHITECTURAL_DISTORTION: "Architectural_Distortion",
    FindingKind.ASYMMETRY: "Focal_Asymmetry",
}
_RETROAREOLAR_MM = 22.0
_WAIT_SECONDS = 0.5


def phantom_breasts(
    cache: Path, first: int, count: int, report_chance: float = 0.0, *, render: bool = True
) -> list[Breast]:
    """Both breasts of the exams first, first + 1, ...; exams that the cache lacks are rendered first.

    Of the processes of one machine one renders; the others wait for its files.
    """
    return [breast for path in rendered(cache, first, count, render) for breast in _breasts(path, report_chance)]


def rendered(cache: Path, first: int, count: int, render: bool) -> tuple[Path, ...]:
    """Files of the exams first, first + 1, ...: made here, or waited for."""
    if render:
        render_seeds(cache, first, count)
    while len(cached_seeds(cache, first, count)) < count:
        time.sleep(_WAIT_SECONDS)
    return cached_seeds(cache, first, count)


def _breasts(path: Path, report_chance: float) -> list[Breast]:
    cached = load_truth(path)
    exam, found = make_exam(cached.seed), []
    shown = {(box.view, box.kind) for box in cached.boxes}
    for side in BREASTS:
        numbers = [number for number, view in enumerate(STANDARD_VIEWS) if view.laterality is side]
        seen = tuple(
            tuple(
                _seen(lesion, STANDARD_VIEWS[number])
                for lesion in exam.lesions
                if lesion.laterality is side and (number, FINDING_KINDS.index(lesion.finding)) in shown
            )
            for number in numbers
        )
        pictures = tuple((PhantomView(path, number),) for number in numbers)
        name = f"phantom {cached.seed} {side.value}"
        found.append(
            Breast(
                name,
                str(cached.seed),
                pictures,
                SeenViews(seen, tuple(GRAMMAR_NAMES.values()), report_chance=report_chance),
            )
        )
    return found


def _seen(lesion: Lesion, view: View) -> Seen:
    (reported,) = view_sentences([lesion], view)
    sentence = " ".join(clean_section(reported, keep_short=True))
    place = location_seen(lesion, view.position)
    return Seen(GRAMMAR_NAMES[lesion.finding], SUBTYPES[lesion.subtype], place, sentence, described(lesion))


def described(lesion: Lesion) -> str:
    """A report's words for the finding alone, cleaned."""
    return " ".join(clean_section(description(lesion), keep_short=True))


def location_seen(lesion: Lesion, position: ViewPosition) -> Location:
    """The words that one view can tell of where a lesion lies."""
    site = lesion.site
    if site.nipple_distance_mm < _RETROAREOLAR_MM:
        return Location("subareolar")
    if position is ViewPosition.CC:
        sector = "outer" if site.outer > 0 else "inner"
    else:
        sector = "upper" if site.upper > 0 else "lower"
    return Location(sector, {"middle": "mid"}.get(site.depth, site.depth))
