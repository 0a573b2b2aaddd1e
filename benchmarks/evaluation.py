"""How long `humanpose evaluate` takes for published predictions, from the call to its end.

    python benchmarks/evaluation.py DATA/mpii/newell.h5 ... --against mpii=DATA/mpii/valid.h5

Prints the median and the best of five rounds, interleaved: without a report, with a report without
plots, and with all plots; and the seconds of a processor that each takes.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 5


def spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    times: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        report = ["--force", "-o", folder]
        kinds = {"table": [], "table and figures": [*report, "--no-plots"], "all plots": report}
        for _ in range(ROUNDS):
            for name, options in kinds.items():
                command = [sys.executable, "-m", "humanpose.cli.main", "evaluate"]
                start, before = time.perf_counter(), spent()
                subprocess.run(
                    [*command, *sys.argv[1:], *options], check=True, stdout=subprocess.DEVNULL
                )
                row = (time.perf_counter() - start, spent() - before)
                times.setdefault(name, []).append(row)
    for name, rows in times.items():
        clock, processor = zip(*rows, strict=True)
        print(
            f"{name:<18} {statistics.median(clock):6.2f} s (best {min(clock):.2f}), "
            f"of a processor {min(processor):.2f} s"
        )


if __name__ == "__main__":
    main()
