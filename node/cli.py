"""`mammoclip-node`: one command a verb."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from node import deciding, status
from node.database import Database, open_database, upgrade
from node.database.deliveries import retry_failed
from node.database.exams import advance
from node.database.leases import failed_exams
from node.errors import NodeError, QuestionError
from node.exam import ExamStatus
from node.settings import LOG_FORMAT, SETTINGS_VARIABLE, Settings, load_settings

SERVICES = ("serve", "listen", "work")
MAXIMUM_DEADLINE_SECONDS = 86400


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 well, 1 something needs a person, 2 it cannot run as it is set up."""
    options = _parser().parse_args(arguments)
    _log_to_stderr(options.verb in SERVICES)
    try:
        environment = dict(os.environ)
        if options.data_folder is not None:
            environment["MAMMOCLIP_DATA_FOLDER"] = str(options.data_folder)
        settings = load_settings(options.settings, environment)
        code = _run(options, settings)
        sys.stdout.flush()
        return code
    except NodeError as error:
        print(f"mammoclip-node: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head`: whoever reads has seen enough; the interpreter must not flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(options: argparse.Namespace, settings: Settings) -> int:
    # Imported where they are used: `status` is asked often, and needs neither the model nor the network.
    if options.verb in SERVICES:
        from node import serving

        serving.run(settings, options.settings, serving.ROLES[options.verb])
        return 0
    if options.verb == "doctor":
        from node import doctor

        return doctor.report(doctor.examine(settings), sys.stdout)
    if options.verb == "query":
        return _query(options, settings)
    if options.verb == "status" and options.server:
        return _server(options, settings)
    with _database(settings) as database:
        if options.verb in ("model", "shadow"):
            return _second_model(options, settings, database)
        return _retry(database) if options.verb == "retry" else _status(options, database)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    database = open_database(settings.database_url)
    try:
        upgrade(database)
        yield database
    finally:
        database.close()


def _second_model(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    """What a candidate says in shadow, and the decisions about it."""
    if options.verb == "model":
        words, document = deciding.act(options, settings, database)
    else:
        from node import shadow_report  # scipy

        name = options.candidate or (settings.candidate.name if settings.candidate else None)
        report = shadow_report.report_of(database, name, options.worst)
        words, document = shadow_report.as_words(report), shadow_report.as_json(report)
    print(json.dumps(document, indent=1) if options.json else words)
    return 0


def _query(options: argparse.Namespace, settings: Settings) -> int:
    """Ask phrases of exams. Nothing is stored and nothing is sent."""
    from node import querying
    from node.inference.load import load_phrases

    if options.deadline is not None:
        if not 0 < options.deadline < MAXIMUM_DEADLINE_SECONDS:
            raise QuestionError(f"--deadline is {options.deadline:g}; it lies between 0 and {MAXIMUM_DEADLINE_SECONDS}")
        settings = replace(settings, inference=replace(settings.inference, deadline_seconds=options.deadline))
    texts = [*options.text, *(_lines(options.phrases) if options.phrases else ())]
    inquiry = querying.inquire(load_phrases(settings.inference), texts, settings.exam, options.overlays)
    if options.folder:
        return 1 if querying.answer(inquiry, querying.in_folders(options.folder, settings.exam), sys.stdout) else 0
    with _database(settings) as database:
        uids = options.exam or querying.every_uid(database, options.limit)
        return 1 if querying.answer(inquiry, querying.archived(database, uids, settings.exam), sys.stdout) else 0


def _lines(file: Path) -> list[str]:
    """The lines of a text file that are neither empty nor begin with #."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionError(f"{file}: cannot be read as phrases, one a line: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _retry(database: Database) -> int:
    """A person mended what was wrong: everything that was given up is tried again, by the node that runs."""
    now = datetime.now(UTC)
    exams = sum(
        advance(database, uid, ExamStatus.FAILED, ExamStatus.READY, now, attempts=0, reason="", due_at=None)
        for uid in failed_exams(database)
    )
    print(f"{exams} exams are read and {retry_failed(database, now)} results are sent again")
    return 0


def _status(options: argparse.Namespace, database: Database) -> int:
    if options.study is None:
        states = status.exam_states(database, options.limit)
    else:
        found = status.exam_state(database, options.study)
        if found is None:
            raise NodeError(f"nothing of study {options.study} has arrived")
        states = (found,)
    if options.json:
        print(json.dumps(status.as_json(states), indent=1))
    else:
        print(status.as_table(states) if options.study is None else status.as_details(states[0]))
    return 1 if any(state.needs_a_person for state in states) else 0


def _server(options: argparse.Namespace, settings: Settings) -> int:
    """What the model server says of itself; a node that computes itself has none."""
    if settings.inference.backend != "triton":
        print(
            "null" if options.json else "inference.backend is openvino: the workers compute, there is no server to ask"
        )
        return 0
    from node.inference import triton_statistics

    state = triton_statistics.server_state(settings.inference)
    if options.json:
        print(json.dumps(triton_statistics.as_json(state), indent=1))
    else:
        print(triton_statistics.as_words(state))
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    default = Path(os.environ.get(SETTINGS_VARIABLE, "settings.toml"))
    common.add_argument("--settings", type=Path, default=default, help="settings.toml (default: %(default)s)")
    common.add_argument("--data-folder", type=Path, help="instead of the one in the settings")
    parser = argparse.ArgumentParser(prog="mammoclip-node", description="A DICOM node that reads mammograms.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("serve", parents=[common], help="listener, broker and workers, until stopped")
    verbs.add_parser("listen", parents=[common], help="the listener alone")
    verbs.add_parser("work", parents=[common], help="broker and workers without the listener")
    shown = verbs.add_parser("status", parents=[common], help="what arrived, what was said, what was sent")
    shown.add_argument("--json", action="store_true", help="for scripts")
    shown.add_argument("--study", metavar="UID", help="one study in full")
    shown.add_argument("--server", action="store_true", help="the Triton server instead: waiting, computing, batches")
    shown.add_argument("--limit", type=int, default=100, help="exams that changed last (default: %(default)s)")
    _add_query(verbs.add_parser("query", parents=[common], help="ask where exams show a phrase, one JSON line each"))
    deciding.add_model(verbs.add_parser("model", help="which model reads; promote or roll back a candidate"), common)
    _add_shadow(verbs.add_parser("shadow", parents=[common], help="what a candidate says in shadow, compared"))
    verbs.add_parser("retry", parents=[common], help="read and send again what was given up")
    verbs.add_parser("doctor", parents=[common], help="try each thing that the node depends on, and say the fix")
    return parser


def _add_shadow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--candidate", metavar="NAME", help="instead of the one in the settings")
    parser.add_argument("--worst", type=int, default=10, help="exams furthest apart (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="for scripts")


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask where exams show a phrase, such as 'spiculated mass in the upper outer left breast'. One JSON line an "
        "exam, marks in stored pixels. Relative indices for research, no probabilities; nothing is stored or sent."
    )
    parser.add_argument("--text", action="append", default=[], metavar="PHRASE", help="may be given several times")
    parser.add_argument("--phrases", type=Path, metavar="FILE", help="phrases, one a line; # begins a comment")
    exams = parser.add_mutually_exclusive_group(required=True)
    exams.add_argument("--exam", nargs="+", metavar="STUDY_UID", help="exams that this node has received")
    exams.add_argument("--every-exam", action="store_true", help="all of them, the latest first; see --limit")
    exams.add_argument("--folder", nargs="+", type=Path, metavar="DICOM", help="folders or files, received or not")
    parser.add_argument("--limit", type=int, default=100, help="exams of --every-exam (default: %(default)s)")
    parser.add_argument("--overlays", type=Path, metavar="DIR", help="also a PNG for each exam and phrase")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="of one inference, instead of the settings'")


def _log_to_stderr(is_service: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if is_service else logging.ERROR,
        format=LOG_FORMAT,
        stream=sys.stderr,
    )
    for noisy in ("alembic", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("pynetdicom").setLevel(logging.WARNING if is_service else logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
