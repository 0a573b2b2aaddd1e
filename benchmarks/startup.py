"""How long the first and the second start take, and what importing costs.

    python benchmarks/startup.py PHOTO

Prints medians of five rounds, interleaved: the bare interpreter, `import humanpose`, `humanpose
predict` with an empty model cache, and with a filled one.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def predict(photo: str, cache: Path, out: Path) -> float:
    main = [sys.executable, "-m", "humanpose.cli.main", "predict", photo, "-q", "--force"]
    return seconds(*main, "-o", str(out), "--cache", str(cache))


def main() -> None:
    photo = sys.argv[1]
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(ROUNDS):
            cache = Path(folder) / f"cache{i}"
            out = Path(folder) / "out"
            rows = {
                "python": seconds(sys.executable, "-c", "pass"),
                "import humanpose": seconds(sys.executable, "-c", "import humanpose"),
                "predict, empty cache": predict(photo, cache, out),
                "predict, filled cache": predict(photo, cache, out),
            }
            for name, value in rows.items():
                times.setdefault(name, []).append(value)
    for name, values in times.items():
        print(f"{name:24} {statistics.median(values):.2f} s")


if __name__ == "__main__":
    main()
