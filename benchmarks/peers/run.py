"""Our networks beside their peers: the same pictures, the same scorer, one table.

    python benchmarks/peers/run.py --data $HUMANPOSE_DATA -o OUT [--mediapipe mp/bin/python]

Reads coco/, lspet/, mpii_small/, mpii/, videos/ and the peers' weights/ below --data; writes
OUT/peers.md and OUT/peers.csv. MediaPipe Pose runs in a Python of its own, made by
`python3.11 -m venv mp && mp/bin/pip install mediapipe==0.10.21` (its models come inside the
wheel). What is not there is a row that says so. docs/peers.md tells what is compared and how.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))  # mark_people.py, which decodes YOLOX

import conditions  # noqa: E402
import joints  # noqa: E402
import people  # noqa: E402
import speed  # noqa: E402
from mediapipe_pose import MediaPipePose  # noqa: E402
from table import Figure, as_csv, markdown  # noqa: E402

from humanpose.errors import HumanPoseError  # noqa: E402
from humanpose.files import atomic_write, prepare_output  # noqa: E402

PARTS = ("joints", "conditions", "people", "speed")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--weights", type=Path, help="the peers' files; DATA/weights if not given")
    parser.add_argument("--mediapipe", metavar="PYTHON", help="of MediaPipe's own environment")
    parser.add_argument("--limit", type=int, metavar="N", help="persons or pictures of each set")
    parser.add_argument("--rounds", type=int, default=5, help="of the speed tables")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; repeatable")
    parser.add_argument("--force", action="store_true", help="replace existing results")
    args = parser.parse_args()
    if (args.limit is not None and args.limit < 1) or args.rounds < 1:
        parser.error("--limit and --rounds must be at least 1")
    return args


def heading(args: argparse.Namespace) -> str:
    """What was run on what."""
    cores = psutil.cpu_count(logical=False)
    packages = ("humanpose", "openvino", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    scope = "whole validation parts" if args.limit is None else f"at most {args.limit} of each set"
    return (
        f"{scope}; {cores} cores, {platform.system()} {platform.machine()}; {versions}; "
        f"speed: medians of {args.rounds} interleaved rounds, load {psutil.getloadavg()[0]:.1f} "
        "at the end\n\n"
    )


def measured(args: argparse.Namespace) -> list[Figure]:
    """All figures of the parts asked for."""
    parts, found = args.part or PARTS, []
    weights = args.weights or args.data / "weights"
    with ExitStack() as stack:
        child = stack.enter_context(MediaPipePose(args.mediapipe)) if args.mediapipe else None
        if "joints" in parts:
            found += joints.figures(args.data, weights, child, args.limit)
        if "conditions" in parts:
            found += conditions.figures(args.data, weights, child, args.limit)
        if "people" in parts:
            found += people.figures(args.data, weights, args.limit)
        if "speed" in parts:
            found += speed.figures(args.data, child, args.rounds, args.limit)
    return found


def main() -> None:
    args = arguments()
    files = {suffix: args.output / f"peers{suffix}" for suffix in (".md", ".csv")}
    try:
        for file in files.values():
            prepare_output(file, force=args.force)
        found = measured(args)
        text = heading(args) + markdown(found)
        for suffix, content in ((".md", text), (".csv", as_csv(found))):
            with atomic_write(files[suffix], "w") as file:
                file.write(content)
    except HumanPoseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"\n{text}\nwritten to {args.output}/")


if __name__ == "__main__":
    main()
