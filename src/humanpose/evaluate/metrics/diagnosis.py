"""Diagnosis of a score: intervals, swaps and misses, calibration, a constant predictor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from humanpose.evaluate.metrics.pck import Bool, pooled
from humanpose.skeleton import Skeleton
from humanpose.types import F32, F64, Score

LEVEL = 0.95
RESAMPLES, SEED = 1000, 0
BINS = 10


def bootstrap(right: F64, counted: F64, pictures: Sequence[object]) -> F64:
    """Return (RESAMPLES, K) shares of right among counted, each for pictures drawn anew.

    People of one picture are not independent: they are drawn together. Each call draws the same
    pictures, so that two candidates' shares may be compared draw by draw.

    Args:
        right: (N, K) sums of hits of each person, one column per figure.
        counted: (N, K) sums of what was counted.
        pictures: N names of the persons' pictures.

    Source: Efron & Tibshirani 1993, percentile method; clusters: Davison & Hinkley 1997, 3.8.
    """
    order = {picture: i for i, picture in enumerate(dict.fromkeys(pictures))}
    rows = np.array([order[picture] for picture in pictures], np.int64)
    n, columns = len(order), right.shape[1]
    sums = np.zeros((n, 2 * columns))
    np.add.at(sums, rows, np.hstack([right, counted]))
    # Single precision: sums of hits are exact in it, and it is twice as fast.
    totals = _draws(n) @ sums.astype(np.float32)
    hits, counts = totals[:, :columns].astype(np.float64), totals[:, columns:]
    return np.asarray(np.where(counts > 0, hits / np.maximum(counts, 1e-12), np.nan), np.float64)


@lru_cache(1)
def _draws(n: int) -> F32:
    """Return (RESAMPLES, n): how often each of n pictures is drawn."""
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(0, n, (RESAMPLES, n)) + n * np.arange(RESAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=n * RESAMPLES).reshape(RESAMPLES, n)
    return times.astype(np.float32)


def interval(draws: F64) -> F64:
    """Return the (2, K) lower and upper end of the middle LEVEL of `draws` (R, K)."""
    ends = (1 - LEVEL) / 2
    known = ~np.isnan(draws).any(0)
    out = np.full((2, draws.shape[1]), np.nan)
    if len(draws) and known.any():
        out[:, known] = np.quantile(draws[:, known], [ends, 1 - ends], axis=0)
    return out


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of Student's interval of the mean of `values`; NaN for fewer than two."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    middle = float(np.mean(values))
    return middle - half, middle + half


def difference(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Return the ends of Welch's interval of a difference of means; NaN for fewer than two values.

    Source: Welch 1947, "The generalization of Student's problem when several different population
    variances are involved".
    """
    from scipy.stats import t

    if min(len(values), len(others)) < 2:
        return math.nan, math.nan
    each = [float(np.var(part, ddof=1)) / len(part) for part in (values, others)]
    middle = float(np.mean(values) - np.mean(others))
    if not sum(each):
        return middle, middle
    free = [part**2 / (len(of) - 1) for part, of in zip(each, (values, others), strict=True)]
    half = t.ppf((1 + LEVEL) / 2, sum(each) ** 2 / sum(free)) * math.sqrt(sum(each))
    return middle - half, middle + half


def swaps_and_misses(
    own: F64, other: F64, skeleton: Skeleton, *, threshold: float, names: Sequence[str]
) -> tuple[Score, Score]:
    """Return the shares of swapped and of missed joints; with the hits they add up to 1.

    Swapped: not within `threshold` of its own true joint, but of the same joint on the other side.
    Missed: within neither, or not predicted at all.

    Args:
        own: (N, J) normalised distance to the true joint.
        other: (N, J) normalised distance to the true joint of the other side.
        skeleton: meaning of the J columns.
        threshold: in the unit of the distances.
        names: joints pooled in `value`; for swaps only those that have another side.
    """
    paired = skeleton.flip_index != np.arange(len(skeleton.joints))
    counted = ~np.isnan(own)
    wrong = counted & ~(own <= threshold)
    swapped = wrong & (other <= threshold) & paired
    swap = f"within {threshold:g} of the other side's joint, not of its own"
    miss = f"within {threshold:g} of neither its own nor the other side's joint"
    return (
        pooled(swap, swapped, counted & paired, skeleton.joints, names, "joints"),
        pooled(miss, wrong & ~swapped, counted, skeleton.joints, names, "joints"),
    )


def constant_predictor(truth: F32, centre: F32, side: F64) -> F32:
    """Return (N, J, 2) joints of the constant predictor, which ignores the picture.

    Each joint stands at its mean position over all persons of `truth` (N, J, 2) themselves, none
    left out, in the frame of the person: (joint - `centre` (N, 2)) / `side` (N,).
    """
    frame = (np.asarray(truth, np.float64) - centre[:, None]) / side[:, None, None]
    known = np.isfinite(frame)
    mean = np.where(known, frame, 0).sum(0) / np.maximum(known.sum(0), 1)
    mean[~known.any(0)] = np.nan
    return np.asarray(centre[:, None] + side[:, None, None] * mean, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Joints by their score, in B bins of equal width over [0, 1].

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
    """Compare joint `scores` (N, J) with the share of joints that are right.

    Args:
        scores: in [0, 1]; NaN = the network has no such joint.
        distance: (N, J); at most `threshold` is right, NaN = not annotated.
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
    hit, miss, absent = (float(np.median(scores[g])) if g.any() else np.nan for g in groups)
    error = _error(mean, share, count)
    return Reliability(mean, share, count, error, np.array(each), (hit, miss, absent))


def _binned(scores: F32, right: Bool) -> tuple[F64, F64, F64]:
    """Return (B,) mean score, share of right ones and number in each bin; NaN where it is empty."""
    sure = scores.astype(np.float64)
    bins = np.clip((sure * BINS).astype(np.int64), 0, BINS - 1)
    count, total, hits = (
        np.bincount(bins, weights, BINS).astype(np.float64) for weights in (None, sure, right)
    )
    full = np.where(count > 0, count, np.nan)
    return total / full, hits / full, count


def _error(mean: F64, share: F64, count: F64) -> float:
    """Return the expected calibration error of bins; NaN if all are empty."""
    if not count.any():
        return float("nan")
    return float(np.nansum(np.abs(mean - share) * count) / count.sum())
