"""Print the walk of one call through the files of humanpose, to judge how easy it is to follow.

    python benchmarks/trace_call.py photo.jpg            # PoseEstimator()(path), after warm-up
    python benchmarks/trace_call.py photo.jpg --predict  # humanpose predict photo.jpg

Each line is a stay in one file with the functions entered there, in order.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType
from typing import Any

import humanpose

ROOT = Path(humanpose.__file__).parent


def walk(call: Callable[[], object]) -> list[tuple[str, str]]:
    """(file, function) of every function of humanpose that `call` enters, in all threads.

    Comprehensions and lambdas are no functions of their own. Bodies of modules and classes, which
    run once when a module is imported, are none either.
    """
    entered: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED and code.co_name[0] != "<":
            file = Path(code.co_filename)
            if file.is_relative_to(ROOT):
                entered.append((str(file.relative_to(ROOT)), code.co_name))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # None ends it
    return entered


def main() -> None:
    """Trace and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture")
    parser.add_argument("--predict", action="store_true")
    arguments = parser.parse_args()
    if arguments.predict:
        from humanpose.cli.main import app

        with tempfile.TemporaryDirectory() as folder:
            argv = ["predict", arguments.picture, "-o", folder, "--force", "--quiet"]
            entered = walk(lambda: app(argv, standalone_mode=False))
    else:
        estimator = humanpose.PoseEstimator()
        estimator(arguments.picture)
        entered = walk(lambda: estimator(arguments.picture))
    stays: list[tuple[str, list[str]]] = []
    for file, function in entered:
        if not stays or stays[-1][0] != file:
            stays.append((file, []))
        if function not in stays[-1][1]:
            stays[-1][1].append(function)
    for file, functions in stays:
        print(f"{file:<28}{', '.join(functions)}")
    files = {file for file, _ in entered}
    print(f"{len(entered)} calls, {len(set(entered))} functions, {len(files)} files, "
          f"{len(stays) - 1} file changes")  # fmt: skip


if __name__ == "__main__":
    main()
