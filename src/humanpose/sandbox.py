"""Run a parser of foreign files in a child process, with limits.

SciPy's MATLAB reader and HDF5 crash the interpreter on damaged files; here they can only take
a child with them. The child is a fresh `python -m humanpose.sandbox`, so that a caller's
script needs no main guard; it gives back plain arrays and nothing else.
"""

from __future__ import annotations

import importlib
import io
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.errors import EXIT_USAGE, FormatError, InputError, LimitError

Arrays = dict[str, np.ndarray[Any, Any]]

_ERRORS = {kind.__name__: kind for kind in (InputError, FormatError, LimitError)}
_PATIENCE = 5  # seconds by the clock for each of a processor
# What ends a child that used up its processor time; 0 on Windows, which has no such limit.
_OVERTIME = int(getattr(signal, "SIGXCPU", 0))


def parse(
    parser: Callable[[str], Arrays], path: Path, *, memory: int = 2 << 30, timeout: float = 120.0
) -> Arrays:
    """Return `parser(str(path))`, run in a child process.

    Args:
        parser: module-level function that returns named plain arrays (no objects).
        path: file it reads.
        memory: address space of the child, bytes (where the system can limit it).
        timeout: seconds of a processor. By the clock it may take five times as long, as it does on
            a busy machine; where the system cannot limit the former, this is by the clock.

    Raises:
        InputError: if the file is not there, or the parser raises one.
        FormatError: if the parser fails or crashes on it; LimitError on time-out.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    command = [sys.executable, "-P", "-m", "humanpose.sandbox"]
    command += [parser.__module__, parser.__qualname__, str(path), str(memory), str(timeout)]
    late = f"{path}: could not be read within {timeout:.0f} s"
    clock = timeout * (_PATIENCE if _OVERTIME else 1)
    try:
        child = subprocess.run(command, capture_output=True, timeout=clock, check=False)
    except subprocess.TimeoutExpired as error:
        raise LimitError(late) from error
    if _OVERTIME and child.returncode == -_OVERTIME:
        raise LimitError(late)
    if child.returncode != 0:
        said = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        kind, _, reason = said.partition(": ")
        if child.returncode == EXIT_USAGE and kind in _ERRORS:
            raise _ERRORS[kind](reason if str(path) in reason else f"{path}: {reason}")
        reason = said[:200] if said and child.returncode > 0 else "the reader crashed on it"
        raise FormatError(f"{path}: damaged or not what it should be ({reason})")
    with np.load(io.BytesIO(child.stdout), allow_pickle=False) as found:
        names, *arrays = (found[name] for name in found.files)
        return dict(zip(names.tolist(), arrays, strict=True))


def _child(module: str, function: str, path: str, memory: str, seconds: str) -> None:
    parser = getattr(importlib.import_module(module), function)
    with suppress(ImportError):  # Windows: the time-out is all there is
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = math.ceil(float(seconds))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    try:
        arrays = parser(path)
    except BaseException as error:  # whatever it is, the parent needs one line
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, InputError) else 1)
    # Names apart: as names of a zip file's members some would be cut or clash.
    np.savez(sys.stdout.buffer, np.array([*arrays]), *arrays.values(), allow_pickle=False)


if __name__ == "__main__":
    _child(*sys.argv[1:])
