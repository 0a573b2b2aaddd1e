"""Object keypoint similarity, COCO's measure of one person."""

from __future__ import annotations

import numpy as np

from humanpose.skeleton import Skeleton
from humanpose.types import F32, F64, Score


def oks(joints: F32, truth: F32, area: F64, skeleton: Skeleton) -> F64:
    """(N,) similarity of each person, in [0, 1]; NaN where no joint is annotated.

    Args:
        joints: (N, J, 2) predicted, picture pixels; NaN counts as infinitely far.
        truth: (N, J, 2) annotated; NaN = not annotated and not counted.
        area: (N,) of the person, square pixels.
        skeleton: with sigmas.

    Source: cocodataset.org, "Keypoint evaluation": mean of exp(-d^2 / (2 area (2 sigma)^2)).
    """
    if skeleton.sigmas is None:
        raise ValueError(f"skeleton {skeleton.name!r} has no OKS constants")
    variance = (2 * np.array(skeleton.sigmas)) ** 2
    squared = ((joints.astype(np.float64) - truth) ** 2).sum(-1)
    counted = ~np.isnan(truth).any(-1)
    away = squared / (2 * variance * (area[:, None] + np.spacing(1)))
    each = np.where(counted, np.exp(-np.nan_to_num(away, nan=np.inf)), 0.0)
    n = counted.sum(-1)
    return np.asarray(np.where(n > 0, each.sum(-1) / np.maximum(n, 1), np.nan), np.float64)


def mean_oks(joints: F32, truth: F32, area: F64, skeleton: Skeleton) -> Score:
    """Mean OKS over persons with at least one annotated joint; per joint its mean similarity."""
    each = oks(joints, truth, area, skeleton)
    single = np.stack(
        [
            oks(joints[:, i : i + 1], truth[:, i : i + 1], area, _only(skeleton, i))
            for i in range(len(skeleton.joints))
        ],
        axis=1,
    )
    count = (~np.isnan(single)).sum(0)
    total = np.nansum(single, axis=0)
    value = float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")
    return Score(
        "mean OKS, boxes given",
        value,
        np.where(count > 0, total / np.maximum(count, 1), np.nan),
        count.astype(np.int64),
        skeleton.joints,
    )


def _only(skeleton: Skeleton, joint: int) -> Skeleton:
    assert skeleton.sigmas is not None
    return Skeleton(skeleton.name, (skeleton.joints[joint],), (), (), (skeleton.sigmas[joint],))
