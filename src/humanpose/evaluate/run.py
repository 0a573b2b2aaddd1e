"""Run an evaluation: read data sets and candidates, run networks, compare with the truth."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from humanpose.data.detection import PersonPicture, pictures_of
from humanpose.data.pack import image_of
from humanpose.data.readers import read
from humanpose.data.readers.coco import coco_samples, load_annotations
from humanpose.data.sets import Marks, data_path, part_of
from humanpose.errors import InputError
from humanpose.evaluate.metrics.detection import Picture, detection_scores
from humanpose.evaluate.metrics.diagnosis import constant_predictor
from humanpose.evaluate.predictions import (
    SUFFIXES,
    Matched,
    Predictions,
    ignored_people,
    match,
    read_predictions,
)
from humanpose.evaluate.scores import Comparison, Rules, Truth
from humanpose.files import sha256
from humanpose.images import load_image
from humanpose.infer.detector import Detector
from humanpose.infer.options import InferenceOptions
from humanpose.infer.topdown import TopDown
from humanpose.skeleton import convert, joint_map
from humanpose.types import F64, Sample, Score

T = TypeVar("T")
Progress = Callable[[Sequence[T]], Iterable[T]]

FLOOR = "floor"
_MIN_HEIGHT = 64.0  # picture pixels; smaller people do not count in scores of detectors


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A predictions file or a network.

    Attributes:
        label: its name in tables.
        about: facts for the report.
        predictions: of the file, or None.
        network: finds joints in given boxes, or people in pictures; or None.
    """

    label: str
    about: dict[str, Any]
    predictions: Predictions | None = None
    network: TopDown | Detector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All candidates on one data set.

    Attributes:
        truth: the persons of the data set.
        scores: by label; the data set's own first, the floor last.
        comparisons: by label, of the candidates whose joints are scored, and the floor.
        floor: how the floor was made.
    """

    truth: Truth
    scores: dict[str, list[Score]]
    comparisons: dict[str, Comparison]
    floor: str


def read_all(
    data: Sequence[str],
    entries: Sequence[str],
    split: str,
    rules: Rules,
    options: InferenceOptions | None = None,
) -> tuple[list[Truth], dict[str, Candidate]]:
    """Read the data sets and predictions files, all at the same time; then load the networks.

    Args:
        data: "NAME=PATH" or "NAME" of each data set.
        entries: predictions files, and networks by built-in name or file.
        split: part of the data sets, or "all".
        rules: what to score.
        options: of the networks.

    Returns:
        The data sets, and the candidates by label; those that share one by their entry.

    Raises:
        InputError and its children: as the readers say; a set that is named twice.
    """
    places = [data_path(entry) for entry in data]
    if len({name for name, _ in places}) < len(places):
        raise InputError("--against: name each data set once")
    found: dict[str, Candidate] = {}
    # Foreign files are parsed in child processes: threads are enough to run those side by side.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sets = [pool.submit(_read_set, name, path, split, rules) for name, path in places]
        files = {
            entry: pool.submit(read_predictions, Path(entry))
            for entry in entries
            if Path(entry).suffix.lower() in SUFFIXES
        }
        for entry, future in files.items():
            people = future.result()
            about = {"file": entry, "sha256": sha256(entry)}
            found[entry] = Candidate(Path(entry).stem, about, people)
        truths = [each.result() for each in sets]
    least = rules.thresholds[0] if rules.thresholds else None
    for entry in entries:
        if entry not in found:
            found[entry] = load_network(entry, options or InferenceOptions(), least)
    labels = [FLOOR, *(each.label for each in found.values())]
    return truths, {
        entry if labels.count(found[entry].label) > 1 else found[entry].label: found[entry]
        for entry in dict.fromkeys(entries)
    }  # fmt: skip


def _read_set(name: str, path: Path, split: str, rules: Rules) -> Truth:
    ignored = {}
    if name == "coco" and "ap" in rules.scores:
        contents = load_annotations(path)
        whole, ignored = coco_samples(path, contents), ignored_people(contents, split)
    else:
        # The CPM release labels and scores FLIC by the picture's left and right.
        quirk = "cpm" if name == "flic" and rules.compat == "cpm-flic" else ""
        whole = read(name, path, compat=quirk)
    part = part_of(whole, split, name)
    return Truth.of(part, name=name, path=path, split=split, whole=whole, ignored=ignored)


def load_network(
    entry: str, options: InferenceOptions, threshold: float | None = None
) -> Candidate:
    """Load a network by built-in name or file.

    `threshold` is the least score of a detector's finds; its own if not given.
    """
    from humanpose.api import load_model

    loaded, spec, path = load_model(entry, options, options.size)
    changed = {name: getattr(options, name) for name in ("tta", "crop", "decode", "compat")}
    about = {
        "model": spec.name, "file": str(path), "sha256": sha256(path),
        "runtime": loaded.name, "precision": loaded.precision, "input": list(spec.input),
        "procedure": ", ".join(f"{name} {value}" for name, value in changed.items() if value),
    }  # fmt: skip
    if spec.task == "person":
        return Candidate(spec.name, about, network=Detector(loaded, spec, threshold=threshold))
    return Candidate(spec.name, about, network=TopDown(loaded, spec, options))


def evaluate(
    truth: Truth,
    candidates: Mapping[str, Candidate],
    rules: Rules,
    marks: Marks,
    progress: Progress[Any] = iter,
) -> Evaluation:
    """Score all `candidates` on `truth`; `marks` are places that detection scores ignore.

    Raises InputError if predictions do not fit the set, or the set has no truth for a score.
    """
    comparisons: dict[str, Comparison] = {}
    scores: dict[str, list[Score]] = {}
    how = ""
    for label, candidate in candidates.items():
        if isinstance(candidate.network, Detector):
            pictures = pictures_of(truth.samples, marks)
            scores[label] = person_scores(candidate.network, pictures, progress=progress)
        else:
            found = matched_on(truth, candidate, progress)
            comparisons[label] = Comparison(found, truth, rules, candidate.predictions)
            scores[label] = comparisons[label].scores
    if comparisons:
        lowest, how = floor(truth)
        comparisons[FLOOR] = Comparison(lowest, truth, rules)
        scores[FLOOR] = comparisons[FLOOR].scores
    return Evaluation(truth, scores, comparisons, how)


def matched_on(truth: Truth, candidate: Candidate, progress: Progress[Any] = iter) -> Matched:
    """Return the candidate's joints of each person; a network gets the annotated boxes."""
    if candidate.predictions is not None:
        return match(candidate.predictions, truth.samples, truth.whole)
    assert isinstance(candidate.network, TopDown)
    return estimate_samples(candidate.network, truth.samples, progress=progress)


def estimate_samples(
    estimator: TopDown, samples: Sequence[Sample], *, progress: Progress[Path] = iter
) -> Matched:
    """Run a pose network on the annotated box of each sample.

    A person whose box has no area (one joint annotated and no box) is a miss.
    """
    groups: dict[Path, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        if np.isfinite(sample.box).all() and (sample.box[2:] > 0).all():
            groups[sample.picture].append(i)
    skeleton, own = samples[0].skeleton, estimator.spec.skeleton
    joints = np.full((len(samples), len(own.joints), 2), np.nan, np.float32)
    scores = np.zeros(len(samples), np.float32)
    each = np.full(joints.shape[:2], np.nan, np.float32)
    for path in progress(sorted(groups)):
        rows = groups[path]
        image = image_of(samples[rows[0]])
        people = estimator.estimate(image, np.stack([samples[i].box for i in rows]))
        for i, person in zip(rows, people, strict=True):
            joints[i], scores[i], each[i] = person.joints, person.scores.mean(), person.scores
    order = joint_map(own, skeleton)
    return Matched(
        convert(joints, own, skeleton),
        scores,
        order >= 0,
        sum(map(len, groups.values())),
        "boxes given",
        np.where(order >= 0, each[:, order], np.float32(np.nan)),
    )


def pose_score(estimator: TopDown, samples: Sequence[Sample]) -> Score:
    """Return the data set's own score of a pose network on annotated boxes."""
    return Comparison(estimate_samples(estimator, samples), Truth.of(samples)).scores[0]


def person_scores(
    detector: Detector,
    pictures: Sequence[PersonPicture],
    *,
    progress: Progress[PersonPicture] = iter,
    gather: Callable[[list[tuple[Picture, Picture]]], list[tuple[Picture, Picture]]] = list,
) -> list[Score]:
    """Return recall at the detector's threshold, and AP over all its scores, above 64 px.

    `gather` adds what other processes found in their share of the pictures.
    """
    lowest = Detector(detector.runtime, detector.spec, threshold=0.02)
    found = []
    for picture in progress(pictures):
        boxes, scores = lowest.detect(load_image(picture.picture))
        kept = scores >= detector.threshold
        truth = picture.boxes, picture.boxes[:, 3] > _MIN_HEIGHT, picture.ignore
        found.append((Picture(boxes, scores, *truth), Picture(boxes[kept], scores[kept], *truth)))
    found = gather(found)
    recall, _ = detection_scores([sure for _, sure in found])
    _, precision = detection_scores([every for every, _ in found])
    scale = f"people above {_MIN_HEIGHT:g} px"
    return [
        Score(f"{recall.rule}, score >= {detector.threshold:g}, {scale}", recall.value),
        Score(f"{precision.rule}, {scale}", precision.value),
    ]


def floor(truth: Truth) -> tuple[Matched, str]:
    """Return joints at their mean place in the person's frame, and a sentence that says so."""
    centres = [sample.centre for sample in truth.samples]
    side: F64 = np.array([200 * sample.scale for sample in truth.samples], np.float64)
    if all(centre is not None for centre in centres) and (side > 0).all():
        middle = np.stack([centre for centre in centres if centre is not None])
        frame = "given centre and scale"
    else:
        boxes = np.stack([sample.box for sample in truth.samples])
        middle = np.asarray(boxes[:, :2] + boxes[:, 2:] / 2, np.float32)
        side = boxes[:, 2:].max(1).astype(np.float64)
        frame = "box (middle and longer side)"
    joints = constant_predictor(truth.joints, middle, np.maximum(side, 1))
    known = np.asarray(np.isfinite(truth.joints).all(-1).any(0))
    n = len(joints)
    how = (
        f"each joint at its mean place in the frame of the person's {frame}, over these {n} people"
    )
    return Matched(joints, np.ones(n, np.float32), known, n, "boxes given"), how
