"""Scores of a person detector: recall and average precision at one IoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from humanpose.geometry import iou, overlap
from humanpose.types import F32, F64, Score


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What was found in one picture and what is true.

    Attributes:
        boxes: (N, 4) found, best score first.
        scores: (N,).
        truth: (M, 4) annotated people.
        counted: (M,) bool; an annotated person that is not counted may be found or not.
        ignore: (K, 4) places where a find is neither right nor wrong.
    """

    boxes: F32
    scores: F32
    truth: F32
    counted: np.ndarray
    ignore: F32


def detection_scores(pictures: Sequence[Picture], *, threshold: float = 0.5) -> list[Score]:
    """Recall and AP at IoU `threshold` over all pictures.

    Each find, best first, takes the free person it overlaps most, if IoU >= `threshold`. A find
    that takes a person who is not counted, or lies with more than half of its area in a place
    to ignore, leaves the list.

    Returns:
        "recall" over counted people (finds of any score that is given), and "AP": the area under
        the precision-recall curve, precision made monotone, at 101 recalls as COCO does.
    """
    scores, outcomes, people = [], [], 0
    for picture in pictures:
        people += int(picture.counted.sum())
        outcomes.append(_judge(picture, threshold))
        scores.append(picture.scores)
    if not people:
        raise ValueError("no annotated person to score against")
    score = np.concatenate(scores)
    outcome = np.concatenate(outcomes)
    judged = outcome >= 0
    order = np.argsort(-score[judged], kind="stable")
    hits = outcome[judged][order].astype(np.float64)
    recall = float(hits.sum() / people)
    rule = f"IoU {threshold:g}"
    return [
        Score(f"recall, {rule}", recall),
        Score(f"AP, {rule}", average_precision(hits, people)),
    ]


def _judge(picture: Picture, threshold: float) -> np.ndarray:
    """(N,) per find: 1 right, 0 wrong, -1 left out."""
    overlaps = iou(picture.boxes, picture.truth)
    area = np.maximum(picture.boxes[:, 2] * picture.boxes[:, 3], 1e-6)
    hidden = overlap(picture.boxes, picture.ignore) / area[:, None]
    free = np.ones(len(picture.truth), bool)
    outcome = np.zeros(len(picture.boxes), np.int64)
    for i in range(len(picture.boxes)):
        # Counted people first, as COCO's scorer does: an ignored one must not shadow them.
        for counted in (True, False):
            candidates = np.where(free & (picture.counted == counted), overlaps[i], -1)
            best = int(candidates.argmax()) if len(candidates) else -1
            if best >= 0 and candidates[best] >= threshold:
                free[best] = False
                outcome[i] = 1 if counted else -1
                break
        else:
            if hidden.shape[1] and hidden[i].max() > 0.5:
                outcome[i] = -1
    return outcome


def average_precision(hits: F64, people: int) -> float:
    """COCO's 101-point AP of finds sorted by falling score (1 right, 0 wrong)."""
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    recall = right / people
    precision = right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    wanted = np.linspace(0, 1, 101)
    place = np.searchsorted(recall, wanted, side="left")
    return float(
        np.where(place < len(precision), precision[np.minimum(place, len(hits) - 1)], 0).mean()
    )
