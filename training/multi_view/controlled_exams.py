"""Exams of the controlled runs, rendered straight into squares of 8 bits, with what is known of them.

Most are ordinary phantom exams. The others are members of pairs that a single view cannot tell apart (pairs.py): an
irregular mass in both views of a breast against a shadow in one view each ("needs two views"), a density in one breast
against one in both or in neither ("needs two breasts"). An exam is positive if it is to be recalled: it holds a kind
that the table of kinds calls malignant, or a focal asymmetry, which a pair is about.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.mammography.findings import FindingKind
from node.mammography.views import STANDARD_VIEWS
from training.cache import RENDER_MM, truth_in_model
from training.mammo_clip.breasts import DataError
from training.mammo_clip.texts import clean_section
from training.multi_view.squares import square_of_display
from training.phantoms import GENERATOR_VERSION, PhantomExam, make_exam, render_view
from training.phantoms.lesions import ASYMMETRY_FOCAL, MASS_IRREGULAR, Lesion
from training.phantoms.pairs import make_asymmetry_pair, make_mass_pair
from training.phantoms.reports import description, view_sentences

ORDINARY, TWO_VIEWS, TWO_BREASTS = "ordinary", "needs two views", "needs two breasts"
SUSPICIOUS, BENIGN, NEGATIVE = "suspicious for malignancy", "benign finding", "no suspicious finding"
"""Impressions of a view, as the end of a report says them."""
Plane = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Mark:
    """A lesion in one view: its phrase, the sentence that the view allows, its box in pixels of the square."""

    view: int
    phrase: str
    sentence: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ExamRecord:
    """What is known of one exam. `small_mm`: the largest calcification cluster where positive lesions are all such
    clusters, else 0. `impressions` by view; `absent`: numbers of the views that are missing.
    """

    seed: int
    group: str
    positive: bool
    small_mm: float
    impressions: tuple[str, ...]
    marks: tuple[Mark, ...]
    patient: str = ""
    absent: tuple[int, ...] = ()


def exam_of(seed: int, number: int, pair_share: float) -> tuple[str, PhantomExam]:
    """The exam of that number in a split that begins at `seed`, and its group."""
    if pair_share and _is_pair(number, pair_share):
        which = _pairs_before(number, pair_share)
        pair, member = divmod(which, 2)
        pair, is_asymmetry = divmod(pair, 2)
        if is_asymmetry:
            return TWO_BREASTS, make_asymmetry_pair(seed + pair)[member]
        return TWO_VIEWS, _irregular(*make_mass_pair(seed + pair))[member]
    return ORDINARY, make_exam(seed + number)


def _is_pair(number: int, share: float) -> bool:
    return _pairs_before(number + 1, share) > _pairs_before(number, share)


def _pairs_before(number: int, share: float) -> int:
    return int(number * share + 1e-9)


def _irregular(with_mass: PhantomExam, with_shadows: PhantomExam) -> tuple[PhantomExam, PhantomExam]:
    """The pair with a malignant mass: sizes are drawn alike for all masses, so single views stay alike."""
    lesions = tuple(replace(lesion, kind=MASS_IRREGULAR) for lesion in with_mass.lesions)
    shadows = tuple(d if d.like is None else replace(d, like=MASS_IRREGULAR) for d in with_shadows.distractors)
    return replace(with_mass, lesions=lesions), replace(with_shadows, distractors=shadows)


def is_positive(lesion: Lesion) -> bool:
    """To be recalled."""
    return lesion.malignant or lesion.kind.subtype == ASYMMETRY_FOCAL.subtype


def record_of(seed: int, group: str, exam: PhantomExam, marks: tuple[Mark, ...]) -> ExamRecord:
    """What the exam's lesions tell."""
    positive = [lesion for lesion in exam.lesions if is_positive(lesion)]
    calcified = [x.size_mm for x in positive if x.finding is FindingKind.SUSPICIOUS_CALCIFICATION]
    small = max(calcified) if calcified and len(calcified) == len(positive) else 0.0
    impressions = []
    for view in STANDARD_VIEWS:
        here = [lesion for lesion in exam.lesions if lesion.laterality is view.laterality]
        impressions.append(SUSPICIOUS if any(map(is_positive, here)) else BENIGN if here else NEGATIVE)
    return ExamRecord(seed, group, bool(positive), round(small, 2), tuple(impressions), marks, str(exam.seed))


def render_exam(seed: int, number: int, pair_share: float, size: int) -> tuple[Plane, ExamRecord]:
    """Squares uint8 (4, size, size) and the record of one exam."""
    group, exam = exam_of(seed, number, pair_share)
    planes, marks = [], []
    for index, view in enumerate(STANDARD_VIEWS):
        rendered = render_view(exam, view, RENDER_MM)
        prepared = square_of_display(rendered.pixels, view.laterality, size)
        planes.append(np.round(prepared.pixels * 255.0).astype(np.uint8))
        for truth in rendered.truth:
            if truth.finding is None:
                continue
            for box in truth_in_model(replace(rendered, truth=(truth,)), prepared.placement, index)[1]:
                lesion = exam.lesions[truth.index]
                (sentence,) = view_sentences([lesion], view)
                edges = (box.left, box.top, box.right, box.bottom)
                marks.append(Mark(index, cleaned(description(lesion)), cleaned(sentence), edges))
    return np.stack(planes), record_of(exam.seed, group, exam, tuple(marks))


def cleaned(words: str) -> str:
    """As texts are trained on."""
    return " ".join(clean_section(words, keep_short=True))


@dataclass(frozen=True, slots=True, eq=False)
class ExamStore:
    """N exams: `planes` uint8 (N, 4, S, S) of a file, and their records."""

    planes: Plane
    records: tuple[ExamRecord, ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(N)."""
        return np.array([record.positive for record in self.records], np.bool_)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which views are there, (N, 4)."""
        return np.array([[view not in r.absent for view in range(len(STANDARD_VIEWS))] for r in self.records])

    def views(self, rows: NDArray[np.int64], size: int) -> Plane:
        """Planes of views numbered 4 * exam + view, (B, size, size), by area means."""
        planes = self.planes.reshape(-1, *self.planes.shape[2:])[rows]
        return shrunk(planes, size)


def shrunk(planes: Plane, size: int) -> Plane:
    """(..., S, S) to (..., size, size); size divides S."""
    times = planes.shape[-1] // size
    if times == 1:
        return planes
    cut = planes.reshape(*planes.shape[:-2], size, times, size, times)
    means: Plane = np.rint(cut.mean((-3, -1))).astype(np.uint8)
    return means


@dataclass(frozen=True, slots=True)
class Wanted:
    """Exams of one split: `count` from `seed` on, `pair_share` of them members of pairs."""

    split: str
    seed: int
    count: int
    pair_share: float


def render_store(
    folder: Path,
    wanted: Wanted,
    size: int,
    may_go_on: Callable[[], bool],
    workers: int = 1,
) -> ExamStore | None:
    """Render what is not there yet, in order; a run that was cut off goes on. None where the time was spent before.

    Raises DataError for a file that holds something else.
    """
    split, seed, count, pair_share = wanted.split, wanted.seed, wanted.count, wanted.pair_share
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{split}-{GENERATOR_VERSION}-{seed}-{count}-{pair_share:g}-{size}"
    table, file = folder / f"{name}.jsonl", folder / f"{name}.u8"
    records = _read_records(table)
    shape = (count, len(STANDARD_VIEWS), size, size)
    if len(records) < count:
        planes = np.memmap(file, np.uint8, "r+" if file.exists() else "w+", shape=shape)
        with table.open("a", encoding="utf-8") as lines:
            for number, (squares, record) in _rendered(seed, len(records), count, pair_share, size, workers):
                planes[number] = squares
                planes.flush()
                lines.write(json.dumps(asdict(record)) + "\n")
                lines.flush()
                records.append(record)
                _tell(split, number + 1, count)
                if not may_go_on():
                    break
    if len(records) < count:
        return None
    if len(records) != count:
        raise DataError(f"{table}: holds {len(records)} exams, not {count}; delete it and {file.name}")
    return ExamStore(np.memmap(file, np.uint8, "r", shape=shape), tuple(records))


def _rendered(
    seed: int, done: int, count: int, pair_share: float, size: int, workers: int
) -> Iterator[tuple[int, tuple[Plane, ExamRecord]]]:
    numbers = range(done, count)
    if workers < 2:
        yield from ((number, render_exam(seed, number, pair_share, size)) for number in numbers)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        arguments = [[value] * len(numbers) for value in (seed, pair_share, size)]
        found = pool.map(render_exam, arguments[0], numbers, arguments[1], arguments[2], chunksize=4)
        try:
            yield from zip(numbers, found, strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _tell(split: str, done: int, count: int) -> None:
    if done == count or done % 100 == 0:
        print(f"{split}: {done} of {count} exams rendered", flush=True)


def _read_records(table: Path) -> list[ExamRecord]:
    """Those whose line is whole; a line cut off in the middle is dropped from the file."""
    if not table.exists():
        return []
    lines = table.read_text(encoding="utf-8").split("\n")
    if lines[-1]:
        table.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    return [_record(json.loads(line)) for line in lines[:-1]]


def _record(table: dict[str, Any]) -> ExamRecord:
    marks = tuple(Mark(m["view"], m["phrase"], m["sentence"], tuple(m["box"])) for m in table["marks"])
    return ExamRecord(
        table["seed"],
        table["group"],
        table["positive"],
        table["small_mm"],
        tuple(table["impressions"]),
        marks,
        table["patient"],
        tuple(table["absent"]),
    )
