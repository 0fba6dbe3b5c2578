"""`deploy/gpu-acceptance BUNDLE`: build, compare, measure; a line each, PASS or FAIL."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.acceptance.answers import answers_of_file, answers_of_plan, answers_of_server, build_facts
from deploy.acceptance.bundle import Bundle, read_bundle
from deploy.acceptance.speed import Speed, measure
from deploy.tensorrt.plan import PlanError, build, check, find_trtexec, this_machine
from node.inference.agreement import ExamOutputs, agreement, verdicts


class Report:
    """Lines as they are printed, and the figures behind them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failed = 0
        self.figures: dict[str, Any] = {}

    def add(self, passed: bool, words: str) -> None:
        """One line."""
        self.lines.append(f"{'PASS' if passed else 'FAIL'}  {words}")
        self.failed += not passed
        print(self.lines[-1], flush=True)


def main() -> None:
    """Exit 1 where a line fails; an error ends it with its words alone."""
    arguments = _parse()
    report = Report()
    try:
        bundle = read_bundle(arguments.bundle)
        compare(bundle, _answers(bundle, arguments, report), report)
        if arguments.onnx is None and arguments.triton is None:
            _measure(bundle, arguments, report)
    except PlanError as error:
        report.add(False, f"error: {error}")
    print("PASS" if not report.failed else f"FAIL: {report.failed} of {len(report.lines)} lines")
    if arguments.out is not None:
        table = {"passed": not report.failed, "lines": report.lines, **report.figures}
        arguments.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    sys.exit(int(bool(report.failed)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/gpu-acceptance", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder that python -m training acceptance wrote")
    parser.add_argument("--triton", metavar="HOST:PORT", help="compare what a server gives instead of a plan; gRPC")
    parser.add_argument("--triton-model", default="exam_encoder", help="its name there")
    parser.add_argument("--onnx", type=Path, help="compare an ONNX by ONNX Runtime instead of a plan")
    parser.add_argument("--trtexec", help="the program, where it is not found by itself")
    parser.add_argument("--timing-cache", type=Path, help="file that makes the next build on this card faster")
    parser.add_argument("--keep-plan", action="store_true", help="do not build the plan that is there again")
    parser.add_argument("--seconds", type=int, default=10, help="of measuring, for each batch size")
    parser.add_argument(
        "--at-least", type=float, default=0.0, metavar="EXAMS", help="exams a second, at the best batch"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the report")
    arguments = parser.parse_args()
    if arguments.triton and arguments.onnx:
        parser.error("give --triton or --onnx, not both")
    if arguments.seconds < 1:
        parser.error("--seconds is at least 1")
    return arguments


def _answers(bundle: Bundle, arguments: argparse.Namespace, report: Report) -> ExamOutputs:
    if arguments.triton:
        return answers_of_server(bundle, arguments.triton, arguments.triton_model)
    if arguments.onnx:
        return answers_of_file(bundle, arguments.onnx)
    build_facts(bundle)
    machine = this_machine()
    report.figures["machine"] = asdict(machine)
    report.add(True, f"{machine.gpu}, compute capability {machine.capability}, driver {machine.driver}")
    if not arguments.keep_plan:
        report.add(True, build(bundle.model, arguments.trtexec, arguments.timing_cache).words)
    for line in check(bundle.model, machine):
        report.add(line.passed, line.words)
    return answers_of_plan(bundle, find_trtexec(arguments.trtexec))


def compare(bundle: Bundle, found: ExamOutputs, report: Report) -> None:
    """The variant's answers against the model's. Raises PlanError where their shapes differ."""
    for name in ("exam", "breasts", "findings", "heat"):
        ours, theirs = getattr(bundle.reference, name), getattr(found, name)
        if (ours is None) != (theirs is None) or (ours is not None and ours.shape != theirs.shape):
            raise PlanError(f"{name}: has another shape than the model's, or is missing; derive the model again")
    result = agreement(bundle.reference, found, bundle.calibration, bundle.findings, bundle.truth)
    report.figures["agreement"] = result.as_table()
    for line in verdicts(result, bundle.limits):
        report.add(line.passed, line.words)


def _measure(bundle: Bundle, arguments: argparse.Namespace, report: Report) -> None:
    speeds = measure(bundle, find_trtexec(arguments.trtexec), arguments.seconds)
    report.figures["speed"] = [asdict(one) for one in speeds]
    for one in speeds:
        report.add(True, str(one))
    best: Speed = max(speeds, key=lambda one: one.exams_per_second)
    if arguments.at_least:
        words = f"{best.exams_per_second:.1f} exams a second at batch {best.batch} (at least {arguments.at_least:g})"
        report.add(best.exams_per_second >= arguments.at_least, words)


if __name__ == "__main__":
    main()
