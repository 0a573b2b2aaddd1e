"""Measure one combination in a process of its own: `python -m humanpose.lab.bench_child FILE`.

FILE holds a job as JSON and is replaced by the result. Peak memory and start-up are those of the
combination only in a process of its own. Imports count as start-up, so they are timed inline.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from humanpose.types import Frame


def main() -> None:
    """Run the job in the file that the command line names."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    from humanpose.errors import HumanPoseError

    try:
        result = measure(job)
    except HumanPoseError as error:
        result = {"why": str(error)}
    path.write_text(json.dumps(result), encoding="utf-8")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Measure `job["frames"]` frames, one after another.

    Args:
        job: `options` (fields of InferenceOptions), `source` (a video, a picture, "" for a made-up
            picture) and `frames`.

    Returns:
        `frames`: of each its number of people and ms of the whole (reading, detector, pose,
        drawing), of the detector and of the pose network; `start`: seconds from the first import
        to the first result; `memory`: peak in bytes, or None; `networks`: of "pose" and "detector"
        `input` ("WxH"), `gmac` of one input and the `precision` of the computation.

    Raises HumanPoseError: it cannot run.
    """
    start = time.perf_counter()
    from humanpose.api import PoseEstimator
    from humanpose.geometry import box_of_picture
    from humanpose.infer.options import InferenceOptions
    from humanpose.infer.profile import DETECTOR, POSE, Profile

    options, profile, made_up = InferenceOptions(**job["options"]), Profile(), not job["source"]
    estimator = PoseEstimator(options=options, profile=profile)
    loading = time.perf_counter() - start
    first = next(iter(frames_of(job["source"], 1)))
    start = time.perf_counter()
    whole = box_of_picture(first.image)
    if not estimator.process(first).people:
        estimator.estimate(first.image, whole)
    loading += time.perf_counter() - start
    # A network may be compiled anew for several people: not while a frame is timed.
    estimator.estimate(first.image, whole.repeat(2, axis=0))

    from dataclasses import replace

    from humanpose.draw import DrawStyle

    style, times = DrawStyle(), []
    start = time.perf_counter()
    for frame in frames_of(job["source"], job["frames"]):
        profile.seconds.clear()
        found = estimator.process(frame)
        if made_up:
            found = replace(found, people=estimator.estimate(frame.image, whole))
        style.draw(found)
        end = time.perf_counter()
        spent = {phase: 1e3 * seconds for (_, phase), seconds in profile.seconds.items()}
        each = (spent.get(phase, 0.0) for phase in (DETECTOR, POSE))
        times.append((len(found.people), 1e3 * (end - start), *each))
        start = time.perf_counter()
    memory = peak_memory()  # before `macs` reads the graphs, which takes memory of its own

    from humanpose.infer.runtime import weights_path
    from humanpose.lab.bench import macs

    pairs = (("pose", options.model), ("detector", options.detector))
    networks = {}
    for (task, weights), model in zip(pairs, estimator.header("")["models"], strict=False):
        width, height = model["input"]
        gmac = macs(weights_path(str(weights)), (width, height)) / 1e9
        networks[task] = {
            "input": f"{width}x{height}", "gmac": gmac, "precision": model["precision"]
        }  # fmt: skip
    return {"frames": times, "start": loading, "memory": memory, "networks": networks}


def frames_of(source: str, count: int) -> Iterator[Frame]:
    """Yield the first `count` frames of a video, or a picture read anew each time, or noise ("").

    Raises:
        InputError and its children: `source` cannot be read.
    """
    from itertools import islice

    import cv2
    import numpy as np

    from humanpose.images import load_image
    from humanpose.media.sources import find_inputs, open_source
    from humanpose.types import Frame

    if not source:
        coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
        soft = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        image = np.asarray(soft, np.uint8)
        yield from (Frame(image, index=i, time=i / 30) for i in range(count))
    elif find_inputs([source])[0].kind == "picture":
        yield from (Frame(load_image(source), index=i, time=i / 30) for i in range(count))
    else:
        with open_source(source) as video:
            yield from islice(video, count)


def peak_memory() -> int | None:
    """Return the peak memory of this process in bytes; None where it is not known."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent's memory too
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
