"""Time of a full frame and of a 1080p video, ours and MediaPipe in turn, round by round."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import ours
import psutil
from mediapipe_pose import HOW, MediaPipePose, row_name
from table import Figure

from humanpose import PoseEstimator
from humanpose.errors import InputError
from humanpose.geometry import crop_of_picture
from humanpose.media.sinks.video import VideoSink
from humanpose.media.sources import open_source
from humanpose.types import U8, Frame

FULL = "Full frame: detect + one person, 640x480"
VIDEO = "Video 1920x1080, 30 frames/s, one person, with decoding"
FRAMES, RATE, RESTING = 90, 30, 10
VIDEO_FRAMES = 150
WARM = 3  # frames before those that are timed
# What a contender needs for the frames, ms each, and how many people it found in all of them.
Run = Callable[[], tuple[list[float], int]]


def figures(
    data: Path, child: MediaPipePose | None, rounds: int, limit: int | None
) -> list[Figure]:
    """The rows of both tables; the dancer of dance.mp4 is the one person."""
    video = data / "videos" / "dance.mp4"
    count = FRAMES if limit is None else min(FRAMES, max(limit, 2 * WARM))
    try:
        frames = list(scaled(video, (640, 480), count))
    except InputError as error:
        return [Figure(part, "all", note=f"left out, {error}") for part in (FULL, VIDEO)]
    estimators = {}
    for name in ours.named("pose"):
        estimator = PoseEstimator(name)
        pose, person = estimator.header("")["models"]
        label = f"**{name}** ({pose['precision']}) + person at {max(person['input'])}"
        estimators[f"{label} ({person['precision']})"] = estimator
    found = _full(estimators, frames, child, rounds)
    with tempfile.TemporaryDirectory() as folder:
        enlarged = Path(folder) / "enlarged.mp4"
        longest = VIDEO_FRAMES if limit is None else count
        with VideoSink(enlarged, 1920, 1080, RATE) as sink:
            for i, image in enumerate(scaled(video, (1920, 1080), longest)):
                sink.write(Frame(image, time=i / RATE))
        return found + _video(estimators, enlarged, rounds)


def scaled(video: Path, size: tuple[int, int], count: int) -> Iterator[U8]:
    """The first `count` frames of `video`, whole in the middle of pictures of `size`."""
    with open_source(video) as source:
        crop = crop_of_picture((source.width, source.height), size)
        for frame in islice(source, count):
            yield crop.cut(frame.image, (0, 0, 0))


def _full(
    estimators: dict[str, PoseEstimator],
    frames: Sequence[U8],
    child: MediaPipePose | None,
    rounds: int,
) -> list[Figure]:
    runs: dict[str, Run] = {}
    for name, estimator in estimators.items():
        runs[f"{name}, each frame by itself"] = _timer(
            lambda estimator=estimator: estimator.process, frames
        )
        runs[f"{name}, followed, detector every {RESTING} frames"] = _timer(
            lambda estimator=estimator: estimator.follower(RESTING), frames
        )
    peer = row_name(child)
    still, following = f"{peer}, video mode off", f"{peer}, video mode on"
    if child is not None:
        child.keep([*frames[:WARM], *frames])
        runs[still] = lambda: child.times(WARM, video=False)
        runs[following] = lambda: child.times(WARM, video=True)
    times: dict[str, list[float]] = {label: [] for label in runs}
    people = {}
    for i in range(rounds):
        print(f"full frame, round {i + 1}: load {psutil.getloadavg()[0]:.1f}", flush=True)
        for label, run in runs.items():
            time.sleep(0.1)  # the last one's threads come to rest
            each, seen = run()
            times[label].append(statistics.fmean(each))
            people[label] = seen / len(each)
    found = []
    for label, mine in times.items():
        found.append(Figure(FULL, label, "ms a frame", statistics.median(mine), ".1f"))
        found.append(Figure(FULL, label, "people a frame", people[label], ".2f"))
        for other in (still, following) if child else ():
            # Of each round, so that what slows the machine for a while slows both.
            share = statistics.median(a / b for a, b in zip(mine, times[other], strict=True))
            measure = f"of MediaPipe's time, {other.rpartition(', ')[2]}"
            found.append(Figure(FULL, label, measure, share, ".0%"))
    if child is None:
        found.append(Figure(FULL, peer, note=f"left out; {HOW}"))
    return found


def _timer(worker: Callable[[], Callable[[Frame], Frame]], frames: Sequence[U8]) -> Run:
    """Frames one after the other through a fresh worker, which sees the first ones twice."""

    def run() -> tuple[list[float], int]:
        work, times, found = worker(), [], 0
        for image in frames[:WARM]:
            work(Frame(image))
        for i, image in enumerate(frames):
            start = time.perf_counter()
            frame = work(Frame(image, i, i / RATE))
            times.append((time.perf_counter() - start) * 1e3)
            found += len(frame.people)
        return times, found

    return run


def _video(estimators: dict[str, PoseEstimator], video: Path, rounds: int) -> list[Figure]:
    ways = {
        f"{name}, detector every {every} frame{'s' * (every > 1)}": (estimator, every)
        for name, estimator in estimators.items()
        for every in (1, RESTING)
    }
    paces: dict[str, list[float]] = {label: [] for label in ways}
    for i in range(rounds):
        print(f"1080p, round {i + 1}: load {psutil.getloadavg()[0]:.1f}", flush=True)
        for label, (estimator, every) in ways.items():
            start = time.perf_counter()
            frames = sum(1 for _ in estimator.stream(video, detect_every=every))
            paces[label].append(frames / (time.perf_counter() - start))
    found = []
    for label, each in paces.items():
        pace = statistics.median(each)
        found.append(Figure(VIDEO, label, "frames/s", pace, ".0f"))
        found.append(Figure(VIDEO, label, "times real time", pace / RATE, ".1f"))
    return found
