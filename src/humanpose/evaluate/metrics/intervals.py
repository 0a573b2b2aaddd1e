"""Confidence intervals: by bootstrap of whole pictures, and of the means of a few runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from humanpose.types import F32, F64

LEVEL = 0.95
RESAMPLES, SEED = 1000, 0


def bootstrap(
    right: F64,
    counted: F64,
    pictures: Sequence[object],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> F64:
    """Return (resamples, K) shares of right among counted, each for pictures drawn anew.

    People of one picture are not independent: they are drawn together. The same seed draws the same
    pictures, so that two candidates' shares may be compared draw by draw.

    Args:
        right: (N, K) sums of hits of each person, one column per figure.
        counted: (N, K) sums of what was counted.
        pictures: N names of the persons' pictures.
        resamples: number of draws.
        seed: of the draws.

    Source: Efron & Tibshirani 1993, percentile method; clusters: Davison & Hinkley 1997, 3.8.
    """
    order = {picture: i for i, picture in enumerate(dict.fromkeys(pictures))}
    rows = np.array([order[picture] for picture in pictures], np.int64)
    n, columns = len(order), right.shape[1]
    sums = np.zeros((n, 2 * columns))
    np.add.at(sums, rows, np.hstack([right, counted]))
    # Single precision: sums of hits are exact in it, and it is twice as fast.
    totals = _draws(n, resamples, seed) @ sums.astype(np.float32)
    hits, counts = totals[:, :columns].astype(np.float64), totals[:, columns:]
    return np.asarray(np.where(counts > 0, hits / np.maximum(counts, 1e-12), np.nan), np.float64)


@lru_cache(1)
def _draws(n: int, resamples: int, seed: int) -> F32:
    """Return (resamples, n): how often each of n pictures is drawn."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n)
    return times.astype(np.float32)


def interval(draws: F64, *, level: float = LEVEL) -> F64:
    """Return the (2, K) lower and upper end of the middle `level` of `draws` (R, K)."""
    ends = (1 - level) / 2
    if not len(draws) or np.isnan(draws).all():
        return np.full((2, draws.shape[1]), np.nan)
    known = ~np.isnan(draws).any(0)
    out = np.full((2, draws.shape[1]), np.nan)
    out[:, known] = np.quantile(draws[:, known], [ends, 1 - ends], axis=0)
    return out


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of Student's interval of the mean of `values`; NaN for fewer than two."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    middle = float(np.mean(values))
    return middle - half, middle + half


def difference(
    values: Sequence[float], others: Sequence[float], *, level: float = LEVEL
) -> tuple[float, float]:
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
    half = t.ppf((1 + level) / 2, sum(each) ** 2 / sum(free)) * math.sqrt(sum(each))
    return middle - half, middle + half
