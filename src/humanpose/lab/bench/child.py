"""One combination measured in a process of its own: `python -m humanpose.lab.bench.child FILE`.

FILE is a job as JSON and becomes its result. A process of its own, because only so peak memory and
start-up are those of the combination, and no pool of threads of another one is awake beside it.
Imports are part of the start-up: they stand where they are timed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from humanpose.infer.detector import Detector
    from humanpose.infer.options import InferenceOptions
    from humanpose.infer.runtime import Runtime
    from humanpose.infer.topdown import TopDown
    from humanpose.types import F32, U8, Frame


def main() -> None:
    """Do the job in the file that the command line names."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    from humanpose.errors import HumanPoseError

    try:
        result = measure(job)
    except HumanPoseError as error:
        result = {"why": str(error)}
    path.write_text(json.dumps(result), encoding="utf-8")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Times of `job["frames"]` frames, one after another, and what else tells about them.

    Args:
        job: the fields of a Combination, `source` (a video, a picture, "" for a made-up picture),
            `frames`, `cache` (folder of compiled models) and `folder` (for files of its own).

    Returns:
        `frames`: of each its number of people and the ms of the whole, the detector, the pose;
        `start`: seconds from the first import to the first result; `memory`: bytes, or None;
        `networks`: of "pose" and "person" input, GMAC of one input, multiply-accumulates a
        second, `precision` that was computed in, and the machine's `peak` in it (None = unknown).

    Raises:
        HumanPoseError: if it cannot run.
    """
    start = time.perf_counter()
    from humanpose.geometry import box_of_picture

    detector, estimator, settings = _loaded(job)
    loading = time.perf_counter() - start
    first = next(iter(frames_of(job["source"], 1)))
    start = time.perf_counter()
    boxes, _ = _boxes(detector, first, made_up=not job["source"])
    whole = box_of_picture(first.image)
    estimator.estimate(first.image, boxes if len(boxes) else whole)
    loading += time.perf_counter() - start
    # A network may be compiled anew for several people: not while a frame is timed.
    estimator.estimate(first.image, whole.repeat(2, axis=0))
    times = list(_times(job, detector, estimator))
    memory = peak_memory()  # before the peaks are measured, which need some of their own
    networks = {"pose": _work(estimator.runtime, job["model"])}
    if detector is not None:
        networks["person"] = _work(detector.runtime, job["person"])
    kinds = {net["precision"] for net in networks.values()}
    peaks = {precision: _peak(job, settings, precision) for precision in kinds}
    for net in networks.values():
        net["peak"] = peaks[net["precision"]]
    return {"frames": times, "start": loading, "memory": memory, "networks": networks}


def _loaded(job: dict[str, Any]) -> tuple[Detector | None, TopDown, InferenceOptions]:
    from humanpose.api import load_detector, load_model
    from humanpose.infer.detector import Detector
    from humanpose.infer.topdown import TopDown

    backend = "auto" if job["runtime"] == "torch" else job["runtime"]
    options = InferenceOptions(
        model=job["model"],
        detector=job["person"],
        runtime=backend,
        precision=job["precision"],
        device=job["device"],
        threads=job["threads"],
        cache=job["cache"],
        size=job["size"],
    )
    detector = None
    if job["person"] != "none":
        loaded, spec, _ = load_detector(options)
        detector = Detector(Clocked(loaded), spec)
        if spec.decode == "peaks":
            options = replace(options, crop="picture-height")
    loaded, spec, _ = load_model(job["model"], options, job["size"])
    return detector, TopDown(Clocked(loaded), spec, options), options


class Clocked:
    """A `Runtime` that notes for every call its shape of input and its seconds."""

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.precision = runtime.name, runtime.precision
        self.calls: list[tuple[tuple[int, ...], float]] = []
        self._runtime = runtime

    def run(self, crops: U8) -> dict[str, F32]:
        """As the runtime's own."""
        start = time.perf_counter()
        found = self._runtime.run(crops)
        self.calls.append((crops.shape, time.perf_counter() - start))
        return found


def frames_of(source: str, count: int) -> Iterator[Frame]:
    """The first `count` frames of a video; or a picture, read so many times; or made-up ones.

    Raises:
        InputError and its children: if `source` cannot be read.
    """
    from itertools import islice

    from humanpose.images import load_image
    from humanpose.media.sources import find_inputs, open_source
    from humanpose.types import Frame

    if not source:
        image = _noise()
        yield from (Frame(image, index=i, time=i / 30) for i in range(count))
    elif find_inputs([source])[0].kind == "picture":
        yield from (Frame(load_image(source), index=i, time=i / 30) for i in range(count))
    else:
        with open_source(source) as video:
            yield from islice(video, count)


def _noise() -> U8:
    """A picture (480, 640, 3) of soft colours, the same every time."""
    import cv2
    import numpy as np

    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC), np.uint8)


def _boxes(detector: Detector | None, frame: Frame, *, made_up: bool) -> tuple[F32, F32 | None]:
    """What the detector finds; the whole picture without one, and in a picture without people."""
    from humanpose.geometry import box_of_picture

    if detector is None:
        return box_of_picture(frame.image), None
    found = detector.detect(frame.image)
    return (box_of_picture(frame.image), None) if made_up else found


def _times(
    job: dict[str, Any], detector: Detector | None, estimator: TopDown
) -> Iterator[tuple[int, float, float, float]]:
    """Of each frame: its people, and ms of the whole, of the detector, of the pose network.

    The whole is reading, detector, pose and drawing. The pose of a frame without people takes 0 ms.
    """
    from dataclasses import replace

    from humanpose.draw import DrawStyle

    look, made_up = DrawStyle(), not job["source"]
    frames = frames_of(job["source"], job["frames"])
    start = time.perf_counter()
    for frame in frames:
        read = time.perf_counter()
        boxes, scores = _boxes(detector, frame, made_up=made_up)
        found = time.perf_counter()
        people = estimator.estimate(frame.image, boxes, scores)
        posed = time.perf_counter()
        look.draw(replace(frame, people=people))
        end = time.perf_counter()
        pose = 1e3 * (posed - found) if people else 0.0
        detecting = 1e3 * (found - read) if detector is not None else 0.0
        yield len(people), 1e3 * (end - start), detecting, pose
        start = time.perf_counter()


def _work(runtime: Runtime, model: str) -> dict[str, Any]:
    """Input (w, h), GMAC of one, precision, and the median rate of all calls but the first."""
    from statistics import median

    from humanpose.infer.catalog import weights_path
    from humanpose.lab.bench.multiplies import multiplies

    assert isinstance(runtime, Clocked)
    calls = runtime.calls[1:] or runtime.calls
    _, height, width, _ = calls[-1][0]
    each = multiplies(weights_path(model), (width, height))
    same = [(shape, seconds) for shape, seconds in calls if shape[1:3] == (height, width)]
    rate = median(shape[0] * each / seconds for shape, seconds in same)
    return {
        "input": [width, height],
        "gmac": each / 1e9,
        "rate": rate,
        "precision": runtime.precision,
    }


def _peak(job: dict[str, Any], settings: InferenceOptions, precision: str) -> float | None:
    """The machine's, of networks that compute in `precision`; None where it cannot be measured."""
    from dataclasses import replace

    from humanpose.errors import HumanPoseError
    from humanpose.lab.bench.peak import peak, torch_peak

    try:
        if job["runtime"] == "torch":
            return torch_peak(precision)
        if precision == "int8":
            return peak(Path(job["folder"]), settings, int8=True)
        return peak(Path(job["folder"]), replace(settings, precision=precision), int8=False)
    except HumanPoseError:
        return None


def peak_memory() -> int | None:
    """Most bytes of memory that this process has held so far; None where the system keeps it."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would tell of the parent where that was larger
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
