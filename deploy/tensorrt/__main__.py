"""`deploy/tensorrt/build`: build plans, or check those that are there."""

import argparse
import sys
from pathlib import Path

from deploy.tensorrt.plan import PlanError, build, check, this_machine


def main() -> None:
    """Exit 1 where something fails; an error ends it with its words alone."""
    parser = argparse.ArgumentParser(prog="deploy/tensorrt/build", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="derived models: 1/model.onnx, build.json, config.pbtxt")
    parser.add_argument("--trtexec", help="the program, where it is not found by itself")
    parser.add_argument("--timing-cache", type=Path, help="file that makes the next build on this card faster")
    parser.add_argument("--check", action="store_true", help="build nothing: do the plans fit this machine's TensorRT?")
    arguments = parser.parse_args()
    failed = False
    try:
        for folder in arguments.folders:
            if not arguments.check:
                print(build(folder, arguments.trtexec, arguments.timing_cache), flush=True)
            lines = check(folder, this_machine())
            failed |= not all(line.passed for line in lines)
            print(*lines, sep="\n", flush=True)
    except PlanError as error:
        raise SystemExit(f"error: {error}") from error
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
