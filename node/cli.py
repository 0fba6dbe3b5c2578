"""`mammoclip-node`: one command a verb."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from node import status
from node.database import Database, open_database, upgrade
from node.database.deliveries import retry_failed
from node.database.exams import advance
from node.database.leases import failed_exams
from node.errors import NodeError
from node.exam import ExamStatus
from node.settings import LOG_FORMAT, SETTINGS_VARIABLE, Settings, load_settings

SERVICES = ("serve", "listen", "work")


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
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    database = open_database(settings.database_url)
    try:
        upgrade(database)
        return _retry(database) if options.verb == "retry" else _status(options, database)
    finally:
        database.close()


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
    shown.add_argument("--limit", type=int, default=100, help="exams that changed last (default: %(default)s)")
    verbs.add_parser("retry", parents=[common], help="read and send again what was given up")
    verbs.add_parser("doctor", parents=[common], help="try each thing that the node depends on, and say the fix")
    return parser


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
