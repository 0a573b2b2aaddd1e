"""Scores of weights on data sets: runs the estimator or the detector over samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from humanpose.data.people import PersonPicture
from humanpose.images import load_image
from humanpose.infer.detector import Detector
from humanpose.infer.estimator import Estimator
from humanpose.metrics.detection import Picture, detection_scores
from humanpose.metrics.oks import mean_oks
from humanpose.metrics.pck import pck_torso
from humanpose.skeleton import COCO17, convert
from humanpose.types import Sample, Score

T = TypeVar("T")
Progress = Callable[[Sequence[T]], Iterable[T]]

# Persons whose figures the project reports for its detector: taller than this, picture pixels.
_TALL = 64.0


def pose_scores(
    estimator: Estimator, samples: Sequence[Sample], *, progress: Progress[Path] = iter
) -> list[Score]:
    """The score of a data set's own custom, on joints the network and the set both know.

    COCO: mean OKS. LSPET and others with a torso: PCK@0.2 torso. Boxes are the annotated ones.
    """
    groups: dict[Path, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        groups[sample.picture].append(i)
    skeleton = samples[0].skeleton
    found = np.full((len(samples), len(skeleton.joints), 2), np.nan, np.float32)
    for path in progress(sorted(groups)):
        rows = groups[path]
        boxes = np.stack([samples[i].box for i in rows])
        people = estimator.estimate(load_image(path), boxes)
        for i, person in zip(rows, people, strict=True):
            found[i] = convert(person.joints, person.skeleton, skeleton)
    truth = np.stack([sample.joints for sample in samples])
    if skeleton == COCO17:
        return [mean_oks(found, truth, np.array([s.area for s in samples]), skeleton)]
    return [pck_torso(found, truth, skeleton)]


def person_scores(
    detector: Detector,
    pictures: Sequence[PersonPicture],
    *,
    progress: Progress[PersonPicture] = iter,
) -> list[Score]:
    """Recall at the detector's threshold, and AP over all its scores, people above 64 px tall."""
    every, sure = [], []
    lowest = Detector(detector.runtime, detector.spec, threshold=0.02)
    for picture in progress(pictures):
        boxes, scores = lowest.detect(load_image(picture.picture))
        counted = picture.boxes[:, 3] > _TALL
        every.append(Picture(boxes, scores, picture.boxes, counted, picture.ignore))
        kept = scores >= detector.threshold
        sure.append(Picture(boxes[kept], scores[kept], picture.boxes, counted, picture.ignore))
    recall, _ = detection_scores(sure)
    _, precision = detection_scores(every)
    scale = f"people above {_TALL:g} px"
    return [
        Score(f"{recall.rule}, score >= {detector.threshold:g}, {scale}", recall.value),
        Score(f"{precision.rule}, {scale}", precision.value),
    ]
