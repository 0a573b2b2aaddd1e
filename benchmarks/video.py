"""Frames per second and peak memory of `humanpose predict` on a video, and on a longer one.

    python benchmarks/video.py VIDEO [--repeat 6]

Each round runs in a process of its own, A B A B: the video as it is, and the same frames repeated
(remuxed, not re-encoded). Memory must not depend on the length. Results are saved as json and
not as video, so that the encoder is not what is measured.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import av

ROUNDS = 5
_CHILD = """
import resource, sys
from humanpose.cli.main import main
sys.argv[0] = "humanpose"
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def repeated(video: Path, times: int, out: Path) -> None:
    """Write the packets of `video` `times` over, one after the other."""
    with av.open(str(out), "w") as target:
        stream = None
        shift = 0
        for _ in range(times):
            with av.open(str(video)) as source:
                track = source.streams.video[0]
                stream = stream or target.add_stream_from_template(track)
                last = 0
                for packet in source.demux(track):
                    if packet.dts is None or packet.pts is None:
                        continue
                    last = max(last, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    target.mux(packet)
                shift += last


def run(video: Path, folder: Path) -> tuple[float, int]:
    """(frames per second as `predict` reports it, peak memory in MB)."""
    command = [sys.executable, "-c", _CHILD, "predict", str(video), "--save", "json"]
    command += ["-o", str(folder), "--force"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate = re.search(r"\(([\d.]+) frames/s\)", said)
    peak = re.search(r"peak (\d+)", said)
    assert rate and peak, said
    return float(rate[1]), int(peak[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--repeat", type=int, default=6)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        longer = folder / "longer.mp4"
        repeated(args.video, args.repeat, longer)
        rows: dict[Path, list[tuple[float, int]]] = {args.video: [], longer: []}
        for _ in range(ROUNDS):
            for path, results in rows.items():
                results.append(run(path, folder / "out"))
        for path, results in rows.items():
            rate = statistics.median(rate for rate, _ in results)
            peak = statistics.median(peak for _, peak in results)
            print(f"{path.name:16} {rate:6.1f} frames/s   peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
