"""`mammoclip-node model`: which model reads, and the decisions of persons about it. No model is loaded for that."""

import argparse
import getpass
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from node.candidate import CandidateSettings
from node.choosing import canary_share, choose, reason_of
from node.database import Database
from node.database.canaries import exams_by_reader, hasten, read_again, read_by
from node.database.decisions import Decided, Decision, decide, decisions_of, latest_decision
from node.database.readings import StoredReading, readings_of
from node.errors import NodeError, SettingsError
from node.settings import InferenceSettings, Settings, candidate_inference

Answer = tuple[str, dict[str, Any]]
"""The same in words and as JSON."""


def add_model(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """The actions of `model`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("show", parents=[common], help="which models there are, who reads what, what was decided")
    exams = actions.add_parser("exams", parents=[common], help="the exams that the candidate read in the first's place")
    explained = actions.add_parser("explain", parents=[common], help="which model reads one exam, and why")
    explained.add_argument("study", metavar="STUDY_UID")
    rollback = actions.add_parser("rollback", parents=[common], help="from now on the first model reads every exam")
    rollback.add_argument("--reread", action="store_true", help="also read again what the candidate has read")
    promote = actions.add_parser("promote", parents=[common], help="from now on the candidate reads every exam")
    resume = actions.add_parser("resume", parents=[common], help="the candidate's share in the settings holds again")
    for action in (rollback, promote, resume):
        action.add_argument("--by", default="", metavar="NAME", help="who decides (default: the user of this command)")
        action.add_argument("--because", default="", metavar="TEXT", help="why, for the record; nothing of patients")
    for action in (exams, rollback, promote, resume):
        action.add_argument("--candidate", metavar="NAME", help="instead of the one in the settings")
    for action in actions.choices.values():
        action.add_argument("--json", action="store_true", help="for scripts")


def act(options: argparse.Namespace, settings: Settings, database: Database) -> Answer:
    """Do what was asked. Raises SettingsError where there is no candidate."""
    if options.action == "show":
        return show(settings, database)
    if options.action == "explain":
        return explain(settings, database, options.study)
    name = _candidate_name(options, settings)
    if options.action == "exams":
        return exams(database, name)
    decision = Decision(options.action)
    decided = Decided(name, decision, datetime.now(UTC), (options.by or _user())[:128], options.because)
    return carry_out(database, decided, reread=decision is Decision.ROLLBACK and options.reread)


def carry_out(database: Database, decided: Decided, *, reread: bool = False) -> Answer:
    """Record a decision; every worker follows it with its next exam. `reread`: the candidate's exams are read again."""
    decide(database, decided)
    name, rolled_back = decided.candidate, decided.decision is Decision.ROLLBACK
    hastened = hasten(database, name) if rolled_back else 0
    again = read_again(database, name, decided.at) if reread else 0
    lines = [f"{decided.decision} of candidate {name} by {decided.by}: {_CONSEQUENCES[decided.decision]}"]
    if hastened:
        lines.append(f"{hastened} exams that waited for it are read now")
    if again:
        lines.append(f"{again} exams are read again; their new readings replace the candidate's")
    elif rolled_back and (left := len(read_by(database, name))):
        lines.append(f"{left} exams keep its readings; `model exams` lists, `model rollback --reread` replaces them")
    return "\n".join(lines), {**_decided_json(decided), "hastened": hastened, "read_again": again}


_CONSEQUENCES = {
    Decision.ROLLBACK: "the first model reads every exam from now on",
    Decision.PROMOTE: "it reads every exam from now on; put its place under [inference] at the next restart",
    Decision.RESUME: "its share in the settings holds again",
}


def show(settings: Settings, database: Database) -> Answer:
    """Both models, who read how many exams, all decisions."""
    candidate, counts, decided = settings.candidate, exams_by_reader(database), decisions_of(database)
    lines = [f"first model  {_place(settings.inference)}"]
    if candidate is None:
        lines.append("candidate    none")
    else:
        lines += [
            f"candidate    {candidate.name}: {_place(candidate_inference(settings))}",
            f"shadow       of {candidate.shadow:g} of the exams",
            f"canary       reads {_share(database, candidate)}",
        ]
    lines += [f"exams        {count} read by {_reader(name)}" for name, count in sorted(counts.items())]
    lines += [f"decision     {_decided_words(each)}" for each in decided]
    said = None if candidate is None else _candidate_json(settings, database, candidate)
    document = {"candidate": said, "exams": counts, "decisions": [_decided_json(each) for each in decided]}
    return "\n".join(lines), document


def exams(database: Database, name: str) -> Answer:
    """What the candidate read in the first model's place, and no later reading replaced."""
    found = read_by(database, name)
    lines = [
        f"{each.study_instance_uid}  reading {each.number} at {each.read_at:%Y-%m-%d %H:%M} UTC by {each.model_name} "
        f"{each.model_version} ({each.model_variant}), weights {each.model_weights_hash[:12]}"
        for each in found
    ]
    document = [
        {
            "study_instance_uid": each.study_instance_uid,
            "number": each.number,
            "read_at": each.read_at.isoformat(),
            "model": {
                "name": each.model_name,
                "version": each.model_version,
                "variant": each.model_variant,
                "weights_hash": each.model_weights_hash,
            },
        }
        for each in found
    ]
    return "\n".join(lines) or f"no exam has a reading of candidate {name}", {"candidate": name, "exams": document}


def explain(settings: Settings, database: Database, study_instance_uid: str) -> Answer:
    """Which model reads an exam if it is read now, why, and which ones have."""
    choice = choose(database, settings.candidate, study_instance_uid)
    reader = _reader(choice.candidate)
    readings = readings_of(database, study_instance_uid)
    lines = [f"reader       {reader}: {choice.why}"]
    lines.append(f"shadow       {choice.shadow or 'none'}")
    lines += [f"reading {each.number:<5}{_reading_words(each)}" for each in readings]
    document = {
        "study_instance_uid": study_instance_uid,
        "candidate": choice.candidate,
        "shadow": choice.shadow,
        "why": choice.why,
        "readings": [{"number": each.number, "candidate": each.candidate, **_model_json(each)} for each in readings],
    }
    return "\n".join(lines), document


def _candidate_name(options: argparse.Namespace, settings: Settings) -> str:
    if options.candidate:
        return str(options.candidate)
    if settings.candidate is None:
        raise SettingsError("candidate: settings.toml has no [candidate]; --candidate names one that there was")
    return settings.candidate.name


def _user() -> str:
    """Whoever runs this command, and where."""
    who: Callable[[], str] = getpass.getuser
    try:
        return f"{who()}@{socket.gethostname()}"
    except (KeyError, OSError) as error:
        raise NodeError("who decides? this user has no name; give --by NAME") from error


def _place(inference: InferenceSettings) -> str:
    if inference.backend == "triton":
        version = inference.triton_version
        return f"{inference.triton_model}{f' version {version}' if version else ''} on Triton at {inference.triton_url}"
    return f"{inference.model_folder}, {inference.backend} {inference.precision}"


def _share(database: Database, candidate: CandidateSettings) -> str:
    decided = latest_decision(database, candidate.name)
    return f"{canary_share(candidate, decided):g} of the exams ({reason_of(candidate, decided)})"


def _reader(candidate: str) -> str:
    return f"candidate {candidate}" if candidate else "the first model"


def _candidate_json(settings: Settings, database: Database, candidate: CandidateSettings) -> dict[str, Any]:
    decided = latest_decision(database, candidate.name)
    return {
        "name": candidate.name,
        "place": _place(candidate_inference(settings)),
        "shadow": candidate.shadow,
        "canary": candidate.canary,
        "share": canary_share(candidate, decided),
    }


def _decided_words(decided: Decided) -> str:
    because = f": {decided.reason}" if decided.reason else ""
    return f"{decided.at:%Y-%m-%d %H:%M} UTC {decided.decision} of {decided.candidate} by {decided.by}{because}"


def _decided_json(decided: Decided) -> dict[str, Any]:
    return {
        "candidate": decided.candidate,
        "decision": decided.decision.value,
        "at": decided.at.isoformat(),
        "by": decided.by,
        "because": decided.reason,
    }


def _reading_words(reading: StoredReading) -> str:
    return (
        f"by {_reader(reading.candidate)}: {reading.model_name} {reading.model_version} ({reading.model_variant}), "
        f"weights {reading.model_weights_hash[:12]}"
    )


def _model_json(reading: StoredReading) -> dict[str, Any]:
    return {
        "model": {
            "name": reading.model_name,
            "version": reading.model_version,
            "variant": reading.model_variant,
            "weights_hash": reading.model_weights_hash,
        }
    }
