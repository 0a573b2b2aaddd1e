"""Average precision and recall as COCO computes them; scores of a person detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from humanpose.evaluate.metrics.pck import Bool
from humanpose.geometry import iou, overlap
from humanpose.types import F32, F64, Score

_LEVELS: F64 = np.array([0.5])  # least IoU of a find with its person


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Boxes found in one picture and boxes annotated in it.

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


def detection_scores(pictures: Sequence[Picture]) -> list[Score]:
    """Return recall and AP at IoU 0.5 over all pictures.

    Finds take people as in `match_finds`. A find that takes no person and lies with more than half
    of its area in a place to ignore leaves the list.

    Returns:
        "recall" over counted people (finds of any score that is given), and "AP", see
        `average_precision`.

    Raises ValueError if no annotated person is counted.
    """
    outcomes, people = [], 0
    for picture in pictures:
        people += int(picture.counted.sum())
        area = np.maximum(picture.boxes[:, 2] * picture.boxes[:, 3], 1e-6)
        hidden = overlap(picture.boxes, picture.ignore) / area[:, None]
        outcome = match_finds(iou(picture.boxes, picture.truth), ~picture.counted, _LEVELS)
        outcome[(outcome == 0) & (hidden > 0.5).any(1)] = -1
        outcomes.append(outcome)
    if not people:
        raise ValueError("no annotated person to score against")
    ((precision,), (recall,)) = ap_and_recall([p.scores for p in pictures], outcomes, people)
    return [Score("recall, IoU 0.5", float(recall)), Score("AP, IoU 0.5", float(precision))]


def match_finds(
    alike: F32 | F64, ignore: Bool, levels: F64, crowd: Bool | None = None
) -> np.ndarray:
    """Return (L, D) per level and find: 1 right, 0 wrong, -1 left out.

    Each find takes the free person that it resembles most, if at least by the level; people who
    count come before those to ignore, which leave the find out. As pycocotools' COCOeval.

    Args:
        alike: (D, N) IoU or OKS of the finds, best score first, with the annotated people.
        ignore: (N,) people who may be found or not.
        levels: (L,) least resemblance.
        crowd: (N,) people who may be found any number of times; None = none.
    """
    finds, people = alike.shape
    crowd = np.zeros(people, bool) if crowd is None else crowd
    outcome = np.zeros((len(levels), finds), np.int64)
    free = np.ones((len(levels), people), bool)
    rows = np.arange(len(levels))
    for i in range(finds if people else 0):
        enough = alike[i] >= levels[:, None]
        for kind, group in ((1, ~ignore), (-1, ignore)):
            open_to = enough & (free | crowd) & group & (outcome[:, i] == 0)[:, None]
            # Of equals the last, as COCOeval takes it.
            fits = np.where(open_to, alike[i], -1)[:, ::-1]
            taken = open_to.any(1)
            free[rows[taken], people - 1 - fits.argmax(1)[taken]] = False
            outcome[taken, i] = kind
    return outcome


def ap_and_recall(
    scores: Sequence[F32], outcomes: Sequence[np.ndarray], people: int
) -> tuple[F64, F64]:
    """Return (L,) AP and (L,) recall over all pictures' finds: (D,) `scores`, (L, D) `outcomes`."""
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = [row[row >= 0].astype(np.float64) for row in np.concatenate(outcomes, axis=1)[:, order]]
    precision = np.array([average_precision(row, people) for row in hits])
    return precision, np.array([row.sum() / people for row in hits])


def average_precision(hits: F64, people: int) -> float:
    """Return COCO's AP of finds sorted by falling score (1 right, 0 wrong).

    The area under the precision-recall curve, precision made monotone, at 101 recalls.
    """
    if not len(hits):
        return 0.0
    right = np.cumsum(hits)
    recall = right / people
    precision = right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    reached = precision[np.minimum(place, len(hits) - 1)]
    return float(np.where(place < len(precision), reached, 0).mean())
