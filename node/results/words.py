"""One reading as a short text in the language of screening: side, quadrant, depth, finding, value, CC beside MLO.

The same lines stand in the SR objects and in the HL7 message. They hold no patient attributes.
"""

from collections.abc import Iterable, Sequence

from pydicom import Dataset

from node.mammography.findings import Finding, Place, Sector
from node.mammography.quality import QualityFinding
from node.mammography.views import BREASTS, View, ViewPosition
from node.results import names
from node.results.document import DISCLAIMER, local_time
from node.results.reading import Outcome, Reading

NO_STATEMENT = "This says nothing about findings: the exam needs a reader as if no AI were there."


def report_text(reading: Reading, source: Dataset | None = None) -> str:
    """The report, its lines parted by CR LF (PS3.5 6.1.3). `source` tells the time zone of times, UTC without it."""
    return "\r\n".join(report_lines(reading, source))


def report_lines(reading: Reading, source: Dataset | None = None) -> tuple[str, ...]:
    """The report as lines: what this is, values, findings, what was not assessed."""
    body = _read_lines(reading) if reading.outcome is Outcome.READ else _unread_lines(reading)
    return (f"{DISCLAIMER}.", *_replaces(reading, source), *body, *_not_assessed_lines(reading))


def _replaces(reading: Reading, source: Dataset | None) -> tuple[str, ...]:
    """ "AI reading 2 replaces reading 1 of 14:05." """
    before = reading.predecessor
    if before is None:
        return ()
    at = f"{before.read_at:%H:%M} UTC" if source is None else f"{local_time(before.read_at, source):%H:%M}"
    return (f"AI reading {reading.number} replaces reading {before.number} of {at}.",)


def _read_lines(reading: Reading) -> list[str]:
    return [*_value_lines(reading), *_density_lines(reading), *_finding_lines(reading)]


def _value_lines(reading: Reading) -> list[str]:
    meaning = "Probability of cancer" if names.writes_probability(reading) else "Suspicion index (0 to 1)"
    breasts = [
        f"{names.SIDE_WORDS[breast.laterality].lower()} breast {_number(reading, breast.probability)}"
        for breast in reading.breasts
    ]
    lines = [f"{meaning}: exam {_number(reading, reading.exam_probability)}; {', '.join(breasts)}."]
    if not names.writes_probability(reading):
        lines.append("The index is not calibrated on patients and is no probability.")
    return lines


def _number(reading: Reading, probability: float | None) -> str:
    """ "87 %", "0.87", "not assessed"."""
    return names.value_words(reading, probability).removeprefix("index ")


def _density_lines(reading: Reading) -> list[str]:
    density = reading.density
    if density is None:
        return []
    return [f"Breast composition: ACR BI-RADS {density.category}, {names.value_words(reading, density.probability)}."]


def _finding_lines(reading: Reading) -> list[str]:
    """A line for each lesion, right before left; one of two views is one line."""
    kinds = dict.fromkeys(kind for view in reading.views for kind, _ in view.finding_probabilities)
    if not kinds:
        return []
    views = ", ".join(view.view.name for view in reading.views)
    looked_for = f"Looked for in {views}: {', '.join(names.KIND_WORDS[kind].lower() for kind in kinds)}."
    if not reading.findings:
        return [looked_for, "No region marked."]
    return [looked_for, *(finding_sentence(reading, index) for index in lesions(reading))]


def lesions(reading: Reading) -> list[int]:
    """Indices of the findings that begin a line: of two that correspond, the one in CC."""
    second = {pair.mlo for pair in reading.correspondences}
    first = [index for index in range(len(reading.findings)) if index not in second]
    return sorted(first, key=lambda index: BREASTS.index(reading.findings[index].view.laterality))


def finding_sentence(reading: Reading, index: int) -> str:
    """One lesion in a sentence; the same for both findings of a correspondence.

    "Right breast, upper outer quadrant, middle third, 38 mm from the nipple in CC, 41 mm in MLO: mass, seen in CC and
    MLO, index 0.87 in CC, 0.80 in MLO."
    """
    pair = _together(reading, index)
    findings = [reading.findings[each] for each in pair]
    first = findings[0]
    where = [f"{names.SIDE_WORDS[first.view.laterality]} breast", *_place_words(findings)]
    what = [names.lesion_words(findings).lower(), _comparison(reading, findings), _values(reading, findings)]
    return f"{', '.join(where)}: {', '.join(what)}."


def _together(reading: Reading, index: int) -> tuple[int, ...]:
    """The finding and the one that corresponds to it, CC first."""
    for pair in reading.correspondences:
        if index in (pair.cc, pair.mlo):
            return (pair.cc, pair.mlo)
    return (index,)


def _place_words(findings: Sequence[Finding]) -> list[str]:
    """What is known of quadrant, depth and distance; nothing where no place is known."""
    places = [(finding.view, finding.place) for finding in findings if finding.place is not None]
    if not places:
        return ["place not measured"]
    words = [_sector_words([place.sector for _, place in places]), _depth_words([place for _, place in places])]
    return [word for word in (*words, _distance_words(places)) if word]


def _sector_words(sectors: Iterable[Sector | None]) -> str:
    """CC tells outer from inner, MLO upper from lower: both make a quadrant, one a half."""
    known = dict.fromkeys(sector for sector in sectors if sector is not None)
    vertical = next((sector for sector in known if sector in (Sector.UPPER, Sector.LOWER)), None)
    horizontal = next((sector for sector in known if sector in (Sector.OUTER, Sector.INNER)), None)
    if vertical and horizontal:
        return f"{vertical} {horizontal} quadrant"
    half = vertical or horizontal
    if Sector.CENTRAL in known:
        return f"{half} central" if half else "central"
    return f"{half} half" if half else ""


def _depth_words(places: Sequence[Place]) -> str:
    depths = dict.fromkeys(place.depth.value for place in places)
    return f"{' to '.join(depths)} third"


def _distance_words(places: Sequence[tuple[View, Place]]) -> str:
    """ "38 mm from the nipple in CC, 41 mm in MLO"; shares of the breast's depth where the spacing is unknown."""
    in_mm = all(place.nipple_distance_mm is not None for _, place in places)
    told = [
        (f"{place.nipple_distance_mm:.0f} mm" if in_mm else f"{100 * place.nipple_distance:.0f} % of the depth", view)
        for view, place in places
    ]
    (first, view), *others = told
    return ", ".join(
        [
            f"{first} from the nipple in {view.position.value}",
            *(f"{words} in {other.position.value}" for words, other in others),
        ]
    )


def _comparison(reading: Reading, findings: Sequence[Finding]) -> str:
    """Whether the other view of the breast shows it: an unread view is not a view that shows nothing."""
    if len(findings) == 2:
        return "seen in CC and MLO"
    view = findings[0].view
    other = ViewPosition.MLO if view.position is ViewPosition.CC else ViewPosition.CC
    was_read = any(each.view == View(view.laterality, other) for each in reading.views)
    return f"seen in {view.position.value}" + (" only" if was_read else f", {other.value} not assessed")


def _values(reading: Reading, findings: Sequence[Finding]) -> str:
    meaning = "probability" if names.writes_probability(reading) else "index"
    values = [_number(reading, finding.probability) for finding in findings]
    if len(values) == 1:
        return f"{meaning} {values[0]}"
    told = zip(values, findings, strict=True)
    return f"{meaning} " + ", ".join(f"{value} in {finding.view.position.value}" for value, finding in told)


def _unread_lines(reading: Reading) -> list[str]:
    what = {
        Outcome.REFUSED: "The images were refused for quality, none was read",
        Outcome.NOT_ATTEMPTED: "The exam was not read",
        Outcome.FAILED: "The reading failed",
    }[reading.outcome]
    return [f"{what}: {reading.reason}." if reading.reason else f"{what}.", NO_STATEMENT]


def _not_assessed_lines(reading: Reading) -> list[str]:
    """Views that nobody looked at and why, outputs not given, what is wrong with the views that were read."""
    unread = {view.view.name: _reasons(view.reason, quality=view.quality) for view in reading.unread}
    others = [words for words in reading.not_assessed if words.partition(":")[0] not in unread]
    told = [*(f"{name}: {'; '.join(reasons)}" for name, reasons in unread.items()), *others]
    noted = [(view.view.name, _reasons(*view.flags, quality=view.quality)) for view in reading.views]
    return [
        *(f"Not assessed: {words}." for words in dict.fromkeys(told)),
        *(f"Note on {name}: {'; '.join(notes)}." for name, notes in noted if notes),
    ]


def _reasons(*reasons: str, quality: Iterable[QualityFinding]) -> list[str]:
    """Each once, and none that another one holds."""
    told = [words for words in dict.fromkeys([*reasons, *(each.words for each in quality)]) if words]
    return [words for words in told if not any(words in other for other in told if other != words)]
