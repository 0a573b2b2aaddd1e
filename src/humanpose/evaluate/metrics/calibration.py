"""Whether a joint's score is the chance that the joint is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from humanpose.types import F32, F64

Bool = NDArray[np.bool_]
BINS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Joints by their score, in bins of equal width over [0, 1].

    Attributes:
        score: (B,) mean score in each bin, NaN where it is empty.
        right: (B,) share of right joints in it.
        count: (B,) joints in it.
        error: expected calibration error: mean over joints of |score - right| of their bins.
        each: (J,) the same of every joint by itself, NaN where none was counted.
        medians: of the scores of joints that are right, wrong, and not annotated; NaN if none are.
    """

    score: F64
    right: F64
    count: F64
    error: float
    each: F64
    medians: tuple[float, float, float]


def reliability(scores: F32, distance: F64, threshold: float) -> Reliability | None:
    """How `scores` (N, J) fit what is right: a `distance` (N, J) of at most `threshold`.

    Args:
        scores: in [0, 1]; NaN = the network has no such joint.
        distance: NaN = not annotated.
        threshold: in the same unit.

    Returns:
        None if no annotated joint has a score.

    Source: Guo et al. 2017, "On calibration of modern neural networks" (eq. 3, 10 bins).
    """
    known = ~np.isnan(scores)
    counted = known & ~np.isnan(distance)
    if not counted.any():
        return None
    right = distance <= threshold
    mean, share, count = _binned(scores[counted], right[counted])
    each = [_error(*_binned(scores[rows, i], right[rows, i])) for i, rows in enumerate(counted.T)]
    groups = (counted & right, counted & ~right, known & np.isnan(distance))
    medians = [float(np.median(scores[group])) if group.any() else np.nan for group in groups]
    error = _error(mean, share, count)
    return Reliability(
        mean, share, count, error, np.array(each), (medians[0], medians[1], medians[2])
    )


def _binned(scores: F32, right: Bool) -> tuple[F64, F64, F64]:
    """(B,) mean score, share of right ones and number in each bin; NaN where it is empty."""
    sure = scores.astype(np.float64)
    bins = np.clip((sure * BINS).astype(np.int64), 0, BINS - 1)
    count, total, hits = (
        np.bincount(bins, weights, BINS).astype(np.float64) for weights in (None, sure, right)
    )
    full = np.where(count > 0, count, np.nan)
    return total / full, hits / full, count


def _error(mean: F64, share: F64, count: F64) -> float:
    """Expected calibration error of bins; NaN if all are empty."""
    if not count.any():
        return float("nan")
    return float(np.nansum(np.abs(mean - share) * count) / count.sum())
