"""People in whole pictures: our person networks and YOLOX-nano, by the same scorer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import networks
import ours
from table import Figure

from humanpose.data.detection import pictures_of
from humanpose.data.readers import read
from humanpose.data.sets import evenly, part_of
from humanpose.errors import InputError
from humanpose.evaluate.run import person_scores
from humanpose.infer.detector import Detector
from humanpose.media.sources import open_source
from humanpose.types import Sample

PART = "People, whole pictures, IoU 0.5"
YOLOX = "YOLOX-nano"
FILE = "yolox_nano_bigisland.onnx"
# First and last frames of walkers.mp4's stretches without anybody.
EMPTY = ((0, 40), (460, 500), (705, 740), (880, 920))


def figures(data: Path, weights: Path, limit: int | None) -> list[Figure]:
    """The rows of all detectors; what is not here is said in notes."""
    found: list[Figure] = []
    absent: list[Figure] = []
    detectors = {
        f"{label}, score >= {spec.threshold:g}": Detector(network, spec)
        for label, network, spec in (*ours.loaded("person"), *ours.beside())
    }
    sets = {}
    for name in ("coco", "lspet"):
        try:
            sets[name] = _some(part_of(read(name, data / name), "validation", name), limit)
        except InputError as error:
            absent.append(Figure(PART, name, note=f"left out, {error}"))
    places: dict[str, list[list[float]]] = {}
    try:
        detectors[f"{YOLOX}, score >= 0.3"] = networks.yolox(weights / FILE)
        pictures = [(name, path) for name in sets for path in _pictures(sets[name])]
        places = networks.marks(weights / FILE, pictures)
    except InputError as error:
        note = f"left out, {error}; without it no place is ignored, which costs the others AP"
        absent.append(Figure(PART, YOLOX, note=note))
    for name, samples in sets.items():
        people = pictures_of(samples, places)
        for label, detector in detectors.items():
            print(f"{name}: {label}", flush=True)
            recall, precision = person_scores(detector, people)
            where = f"{name}, {len(people)} pictures"
            found.append(Figure(PART, label, f"{where}: recall", recall.value, ".1%"))
            found.append(Figure(PART, label, f"{where}: AP", precision.value))
    empty = in_empty_frames(data / "videos" / "walkers.mp4", detectors, limit)
    return found + empty + absent


def _pictures(samples: Iterable[Sample]) -> list[Path]:
    return list(dict.fromkeys(sample.picture for sample in samples))


def _some(samples: list[Sample], limit: int | None) -> list[Sample]:
    """All persons of at most `limit` pictures."""
    kept = set(evenly(_pictures(samples), limit))
    return [sample for sample in samples if sample.picture in kept]


def in_empty_frames(video: Path, detectors: dict[str, Detector], limit: int | None) -> list[Figure]:
    """In how many frames without anybody each detector finds somebody."""
    numbers = [i for first, last in EMPTY for i in range(first, last + 1)]
    wanted = set(evenly(numbers, limit))
    counts, looked = dict.fromkeys(detectors, 0), 0
    print("walkers.mp4", flush=True)
    try:
        with open_source(video) as source:
            for frame in source:
                if frame.index in wanted:
                    looked += 1
                    for label, detector in detectors.items():
                        counts[label] += len(detector.detect(frame.image)[0]) > 0
    except InputError as error:
        return [Figure(PART, label, note=f"no empty frames, {error}") for label in detectors]
    measure = f"walkers.mp4, {looked} empty frames: with a find"
    return [Figure(PART, label, measure, count, ".0f") for label, count in counts.items()]
