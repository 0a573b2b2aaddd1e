"""What lies behind a score: which joints are swapped or lost, and what knowing nothing gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from humanpose.evaluate.metrics.pck import normalised, pooled
from humanpose.skeleton import Skeleton
from humanpose.types import F32, F64, Score


def swaps_and_misses(
    joints: F32,
    truth: F32,
    size: F64,
    skeleton: Skeleton,
    *,
    threshold: float,
    names: Sequence[str],
) -> tuple[Score, Score]:
    """What became of the joints that are not right; hits, swaps and misses add up to 1.

    Swapped: not within `threshold` times `size` (N,) of its own truth, but of the same joint on
    the other side. Missed: within neither, or not predicted at all. Pooled over the joints in
    `names`, for swapped over those of them that have another side.
    """
    own = normalised(joints, truth, size)
    other = normalised(joints, truth[:, skeleton.flip_index], size)
    paired = skeleton.flip_index != np.arange(len(skeleton.joints))
    counted = ~np.isnan(own)
    wrong = counted & ~(own <= threshold)
    swapped = wrong & (other <= threshold) & paired
    swap = f"within {threshold:g} of the other side's joint, not of its own"
    miss = f"within {threshold:g} of neither its own nor the other side's joint"
    return (
        pooled(swap, swapped, counted & paired, skeleton, names, "joints"),
        pooled(miss, wrong & ~swapped, counted, skeleton, names, "joints"),
    )


def constant_predictor(truth: F32, centre: F32, side: F64) -> F32:
    """(N, J, 2) of a predictor that looks at nothing: the floor under every score.

    Each joint stands at its mean position over all persons of `truth` (N, J, 2) themselves, none
    left out, in the frame of the person: (joint - `centre` (N, 2)) / `side` (N,).
    """
    frame = (np.asarray(truth, np.float64) - centre[:, None]) / side[:, None, None]
    known = np.isfinite(frame)
    mean = np.where(known, frame, 0).sum(0) / np.maximum(known.sum(0), 1)
    mean[~known.any(0)] = np.nan
    return np.asarray(centre[:, None] + side[:, None, None] * mean, np.float32)
