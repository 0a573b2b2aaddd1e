"""Confidence intervals by bootstrap: whole pictures are drawn again, with replacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from humanpose.types import F64


def bootstrap(
    right: F64,
    counted: F64,
    pictures: Sequence[object],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> F64:
    """(resamples, K) shares of right among counted, had other pictures been taken.

    People of one picture are not independent of each other: they are drawn together. The same
    seed draws the same pictures, so that two candidates' shares may be compared draw by draw.

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
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n)
    # Single precision: sums of hits are exact in it, and it is twice as fast.
    totals = times.astype(np.float32) @ sums.astype(np.float32)
    hits, counts = totals[:, :columns].astype(np.float64), totals[:, columns:]
    return np.asarray(np.where(counts > 0, hits / np.maximum(counts, 1e-12), np.nan), np.float64)


def interval(draws: F64, *, level: float = 0.95) -> F64:
    """(2, K) lower and upper end of the middle `level` of `draws` (R, K)."""
    ends = (1 - level) / 2
    if not len(draws) or np.isnan(draws).all():
        return np.full((2, draws.shape[1]), np.nan)
    known = ~np.isnan(draws).any(0)
    out = np.full((2, draws.shape[1]), np.nan)
    out[:, known] = np.quantile(draws[:, known], [ends, 1 - ends], axis=0)
    return out
