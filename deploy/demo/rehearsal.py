"""The run itself: prepare, start, send each exam, wait for what becomes of it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from deploy.demo.answer import answer_of
from deploy.demo.archive import Archive
from deploy.demo.cases import READ, DemoExam, Run
from deploy.demo.chest import chest_exam
from deploy.demo.film import film_exams
from deploy.demo.modality import send_exam
from deploy.demo.node_process import NodeProcess
from deploy.demo.outcome import Answer, Outcome, problems_of
from deploy.demo.phantom import PLANS, phantom_exam

EXAM_SECONDS = 120.0
"""Longest wait for one exam."""
SETTLE_SECONDS = 5.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.3, 3.0
_FINAL = ("read", "skipped", "failed")


class Progress:
    """Lines with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        print(f"[{self.seconds:5.0f} s] {text}", flush=True)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began


@contextmanager
def prepared_exams(run: Run) -> Iterator[Callable[[], list[DemoExam]]]:
    """Begin to make the exams in two processes; the call waits for them. In the order in which they are sent."""
    pool = ProcessPoolExecutor(2)
    try:
        phantoms = [pool.submit(phantom_exam, run, plan) for plan in PLANS]
        films = pool.submit(film_exams, run)

        def wait() -> list[DemoExam]:
            incomplete, *others = [job.result() for job in phantoms]
            first, second = films.result()
            return [first, incomplete, second, *others, chest_exam(run)]

        yield wait
    finally:
        pool.shutdown(cancel_futures=True)


def rehearse(exams: list[DemoExam], node: NodeProcess, archive: Archive, progress: Progress) -> list[Outcome]:
    """Send every exam, one after the other; an exam that waits for images does not hold up the next one."""
    outcomes: dict[str, Outcome] = {}
    waiting: list[tuple[DemoExam, float]] = []
    for exam in exams:
        sent_at = send_exam(exam.files, node.peer.host, node.peer.port, node.peer.ae_title)
        progress.say(f"sent: {exam.title} ({len(exam.files)} image{'s' if len(exam.files) > 1 else ''}, {exam.form})")
        answer = _wait(exam, node, archive, lambda answer: answer.status == "waiting")
        if answer.status == "waiting":
            progress.say(f"      {answer.reason}")
            waiting.append((exam, sent_at))
        else:
            outcomes[exam.key] = _outcome(exam, answer, archive, sent_at, progress)
    for exam, sent_at in waiting:
        answer = _wait(exam, node, archive, lambda answer: False)
        outcomes[exam.key] = _outcome(exam, answer, archive, sent_at, progress)
    return [outcomes[exam.key] for exam in exams]


def _wait(exam: DemoExam, node: NodeProcess, archive: Archive, enough: Callable[[Answer], bool]) -> Answer:
    """Ask until the exam has ended and its results are delivered, or `enough` holds, or the time is up."""
    until = time.monotonic() + EXAM_SECONDS
    while True:
        node.check_alive()
        answer = answer_of(node.status(), exam.study_instance_uid)
        if enough(answer) or _has_ended(exam, answer) or time.monotonic() > until:
            return answer
        _pause(exam, archive)


def _pause(exam: DemoExam, archive: Archive) -> None:
    """Until something arrives in the PACS, which costs less to see than a status, or for a while."""
    before = archive.last_arrival(exam.study_instance_uid)
    until = time.monotonic() + _LONGEST_PAUSE_SECONDS
    while archive.last_arrival(exam.study_instance_uid) == before and time.monotonic() < until:
        time.sleep(_SHORTEST_PAUSE_SECONDS)


def _has_ended(exam: DemoExam, answer: Answer) -> bool:
    if answer.status != READ and not (answer.status in _FINAL and exam.expected.explained):
        return answer.status in _FINAL
    return bool(answer.undelivered) or (answer.promised > 0 and len(answer.delivered_kinds) >= answer.promised)


def _outcome(exam: DemoExam, answer: Answer, archive: Archive, sent_at: float, progress: Progress) -> Outcome:
    study = exam.study_instance_uid
    held = archive.kinds(study)
    if held is None:
        held = answer.delivered_kinds
    last = archive.last_arrival(study) or answer.last_delivery
    seconds = None if last is None or not held else last - sent_at
    problems = problems_of(exam, answer, held, archive.unreadable(study))
    said = answer.status if answer.status == READ else f"{answer.status}, {answer.reason}"
    took = "" if seconds is None else f", in the PACS after {seconds:.1f} s"
    progress.say(f"      {exam.title}: {said}{took}{'' if not problems else '  WRONG: ' + '; '.join(problems)}")
    return Outcome(exam, answer, held, seconds, problems)


def capture_files(outcomes: list[Outcome], archive: Archive) -> dict[str, tuple[Path, str]]:
    """By key of an exam, the file of its Secondary Capture and whose it is: the PACS's, else the node's own copy."""
    found: dict[str, tuple[Path, str]] = {}
    for outcome in outcomes:
        received = archive.capture(outcome.exam.study_instance_uid)
        if received is not None:
            found[outcome.exam.key] = (received, "as the PACS received it")
        elif outcome.answer.capture:
            found[outcome.exam.key] = (Path(outcome.answer.capture), "as the node sent it")
    return found
