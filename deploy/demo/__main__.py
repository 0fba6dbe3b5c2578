"""`python -m deploy.demo`: what scripts/demo runs once everything is installed."""

import argparse
import shlex
import shutil
import signal
import sys
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from deploy.demo.archive import Archive, EmbeddedArchive, RealArchive
from deploy.demo.cases import DemoExam, Run
from deploy.demo.modality import SendError
from deploy.demo.node_process import (
    HOST,
    MODEL_FOLDER,
    NodeError,
    NodeProcess,
    Peer,
    free_port,
    write_settings,
)
from deploy.demo.outcome import Outcome, model_words, number_words
from deploy.demo.rehearsal import SETTLE_SECONDS, Progress, capture_files, prepared_exams, rehearse
from deploy.demo.report import write_report
from deploy.demo.table import render

WORK_FOLDER = Path("data/demo")
"""What the node, the PACS and the modality keep while the demo runs; deleted at a good end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: every exam ended as it should; 1: one did not; 2: the demo could not run."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options)
    except (NodeError, SendError) as error:
        print(f"The demo could not run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Start the node and a receiving PACS, send exams by C-STORE, show what the node says of them.",
        epilog="Exit code 0: every exam ended as it should; whether a lesion was found is shown and does not count.",
    )
    parser.add_argument("--keep", action="store_true", help="leave the node (and the demo's PACS) running")
    parser.add_argument("--pacs", type=_peer, metavar="HOST:PORT:AET", help="send results to this PACS")
    parser.add_argument("--report", type=Path, default=Path("demo-report"), metavar="FOLDER", help="where it writes")
    parser.add_argument("--work", type=Path, default=WORK_FOLDER, metavar="FOLDER", help="files of the run itself")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, metavar="FOLDER", help="another exam encoder")
    return parser.parse_args(arguments)


def _peer(text: str) -> Peer:
    host, port, ae_title = (text.rsplit(":", 2) + ["", ""])[:3]
    if not (host and port.isdigit() and 0 < int(port) < 65536 and 0 < len(ae_title) <= 16):
        raise argparse.ArgumentTypeError("must be HOST:PORT:AET, for example pacs.example.org:104:PACS")
    return Peer(host, int(port), ae_title)


def _run(options: argparse.Namespace) -> int:
    progress = Progress()
    folder = options.work.resolve()
    _make_room(folder)
    with ExitStack() as stack:
        archive: Archive = RealArchive(options.pacs) if options.pacs else EmbeddedArchive(folder / "pacs")
        stack.callback(archive.stop)
        node = _start_node(folder, archive, options.model)
        stack.callback(node.stop)
        exams = _prepare(folder, node, archive, progress)
        outcomes = rehearse(exams, node, archive, progress)
        _show(outcomes, archive, options.report, progress)
        if options.keep:
            print(_how_to_go_on(node, archive))
            stack.pop_all()
    good = all(outcome.as_it_should for outcome in outcomes)
    if good and not options.keep:
        shutil.rmtree(folder)
    elif not good:
        print(f"Left to look at: {folder}, with the node's log in {node.log.name}")
    return 0 if good else 1


def _make_room(folder: Path) -> None:
    """An empty work folder. Raises NodeError where a node that was kept still runs in it."""
    pid_file = folder / "pid"
    if pid_file.exists():
        pid = int(pid_file.read_text())
        if Path(f"/proc/{pid}/cmdline").exists() and b"mammoclip" in Path(f"/proc/{pid}/cmdline").read_bytes():
            raise NodeError(f"a node of an earlier demo still runs; stop it first:  kill {pid}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _start_node(folder: Path, archive: Archive, model: Path) -> NodeProcess:
    if not (model / "1" / "model.onnx").exists():
        raise NodeError(f"no model: {model / '1' / 'model.onnx'} is missing")
    port = free_port(11112)
    settings = folder / "settings.toml"
    write_settings(settings, port, archive.peer, SETTLE_SECONDS, model.resolve())
    node = NodeProcess(settings, port)
    (folder / "pid").write_text(str(node.pid))
    return node


def _prepare(folder: Path, node: NodeProcess, archive: Archive, progress: Progress) -> list[DemoExam]:
    """Make the exams while the node starts."""
    pacs = archive.peer
    with prepared_exams(Run(uuid.uuid4().hex, folder / "sent")) as exams:
        progress.say("starting the node (listener, worker, broker, SQLite, inference) and rendering the phantoms")
        node.wait_until_up()
        progress.say(f"the node listens on {HOST}:{node.peer.port} as {node.peer.ae_title}")
        progress.say(f"its results go to {pacs.ae_title} at {pacs.host}:{pacs.port}")
        ready = exams()
        progress.say(f"{len(ready)} exams are ready to send")
        return ready


def _show(outcomes: list[Outcome], archive: Archive, report: Path, progress: Progress) -> None:
    about = {
        "Model": model_words(outcomes),
        "Numbers": number_words(outcomes),
        "Results went to": f"{archive.peer.ae_title} at {archive.peer.host}:{archive.peer.port}, by C-STORE",
    }
    page = write_report(report, outcomes, capture_files(outcomes, archive), about)
    print()
    print(render(outcomes, shutil.get_terminal_size((140, 40)).columns))
    print()
    print(f"breasts: {number_words(outcomes)}. Report: {page}")
    wrong = sum(not outcome.as_it_should for outcome in outcomes)
    verdict = f"{wrong} of {len(outcomes)} exams went wrong" if wrong else "every exam ended as it should"
    progress.say(verdict)


def _how_to_go_on(node: NodeProcess, archive: Archive) -> str:
    pids = [node.pid] + ([archive.pid] if isinstance(archive, EmbeddedArchive) else [])
    return (
        f"\nThe node goes on: send exams to {node.peer.ae_title} at {HOST}:{node.peer.port}.\n"
        f"  look:  {shlex.join(node.command('status'))}\n"
        f"  log:   tail -f {node.log}\n"
        f"  stop:  kill {' '.join(map(str, pids))}"
    )


if __name__ == "__main__":
    sys.exit(main())
