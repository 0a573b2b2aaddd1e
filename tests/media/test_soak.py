"""An hour of video in constant memory, and proof that the check would notice if it were not."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from humanpose.results import read_records

FRAMES = 108_000  # one hour at 30 per second
LIMIT = 20.0  # MB beyond the first thousand frames

# Cheap stand-ins for the two networks; everything else is what `humanpose predict` runs.
RUN = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import psutil
from humanpose import PoseEstimator
from humanpose.cli.options import changed
from humanpose.cli.predict import Prediction, PredictOptions
from humanpose.infer.options import InferenceOptions
from humanpose.skeleton import BODY19
from humanpose.types import Person

source, folder, leak = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
me, sizes, leaked = psutil.Process(), [], []
rng = np.random.default_rng(0)

class Finder:
    spec, skeleton, threshold = SimpleNamespace(skeleton=BODY19), BODY19, 0.3
    calls = 0
    def find(self, image, expected=(), detect=True):
        boxes = np.array([[4, 5, 20, 40], [34, 5, 20, 40]], np.float32)
        scores = np.array([0.9, 0.8], np.float32)
        if self.calls % 1000 == 0:
            sizes.append(me.memory_info().rss / 1e6)
        self.calls += 1
        leaked.append(bytearray(leak) if leak else None)
        joints = [b[:2] + rng.uniform(0, 1, (19, 2)) * b[2:] for b in boxes]
        return tuple(
            Person(j.astype(np.float32), np.full(19, 0.9, np.float32), b, float(s), None, BODY19)
            for j, b, s in zip(joints, boxes, scores)
        )

class Whole(PoseEstimator):
    def __init__(self):
        self.finder, self._hands, self._profile = Finder(), lambda frame: frame, None
        self._networks, self._options = [], InferenceOptions()

kinds = "video,jsonl,csv,json,coco,trc"
options = {"save": kinds, "output": folder, "force": True, "quiet": True}
outcome = Prediction([source], changed(PredictOptions(), options))
outcome.run(Whole())
assert not outcome.problems, outcome.problems
print(outcome.frames, max(sizes[1:]) - sizes[1])
"""


def film(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), np.uint8), "rgb24")
        for _ in range(4)
    ]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(count):
            picture = pictures[i // 50 % 4]
            picture.pts, picture.time_base = i, Fraction(1, 30)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def growth(video: Path, folder: Path, leak: int) -> tuple[int, float]:
    """(frames done, MB that the process grew by after the first thousand)."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(video), str(folder), str(leak)],
        capture_output=True,
        text=True,
        check=True,
    )
    frames, more = done.stdout.split()
    print(f"\n{frames} frames, {more} MB more")
    return int(frames), float(more)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_an_hour_of_video_needs_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    film(tmp_path / "hour.mp4", FRAMES)
    frames, more = growth(tmp_path / "hour.mp4", tmp_path / "out", 0)
    assert frames == FRAMES and more <= LIMIT
    _, records = read_records(tmp_path / "out" / "hour.jsonl")
    assert [record["index"] for record in records] == list(range(FRAMES))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_kilobyte_lost_per_frame_is_noticed(tmp_path: Path) -> None:
    film(tmp_path / "part.mp4", 40_000)
    frames, more = growth(tmp_path / "part.mp4", tmp_path / "out", 1024)
    assert frames == 40_000 and more > LIMIT
