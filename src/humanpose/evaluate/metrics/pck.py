"""PCK and PCKh: share of joints within a fraction of the torso, the joint box or the head.

All are made from normalised distances (N, J): NaN where a joint is not counted, infinite where it
was not predicted. Visibility is ignored: an annotated joint counts, hidden or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from humanpose.skeleton import Skeleton
from humanpose.types import F32, F64, Score

Bool = NDArray[np.bool_]

# evalMPII's 51 thresholds, for curves and for the area under them.
THRESHOLDS: F64 = np.asarray(np.arange(51) * 0.01, np.float64)
# What each toolkit calls "Head" and "Mean"; values of different conventions do not compare.
CONVENTIONS = {
    "mpii": "Head = mean of neck and head top, Mean = pooled over joints",
    "hrnet": "Head = head top, Mean = pooled over joints",
    "pytorch-pose": "Head = head top, Mean = unweighted mean of the joints",
}
_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
LIMB_JOINTS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _LIMBS)
_MIN_TORSO = 5.0  # pixels; people with a smaller torso are not counted


def scored_joints(skeleton: Skeleton, compat: str = "") -> tuple[str, ...]:
    """Return the joints that PCKh pools: all but pelvis and thorax, 14 of MPII's 16.

    `compat` "student" also leaves out the left wrist.
    """
    left_out = ("pelvis", "thorax", *(("left_wrist",) if compat == "student" else ()))
    return tuple(name for name in skeleton.joints if name not in left_out)


def normalised(joints: F32, truth: F32, size: F64) -> F64:
    """Return the (N, J) distance between `joints` and `truth` (N, J, 2) in units of `size` (N,).

    NaN where the truth is NaN or the size not above 0; infinite where only the prediction is NaN.
    """
    distance = np.linalg.norm(np.asarray(joints, np.float64) - truth, axis=-1)
    distance[np.isnan(joints).any(-1)] = np.inf
    distance[np.isnan(truth).any(-1)] = np.nan
    usable = np.where(np.nan_to_num(size) > 0, size, np.nan)
    return np.asarray(distance / usable[:, None], np.float64)


def within(distance: F64, threshold: float, compat: str = "") -> tuple[Bool, str]:
    """Return the (N, J) hits, and a note for the rule's name.

    A distance equal to `threshold` is a hit. Compat "student": strictly less than one step of
    0.01 below it; "hrnet": what HRNet prints as Mean@0.1 is its threshold 0.11.
    """
    if compat == "student":
        limit = round(threshold - 0.01, 10)
        return distance < limit, f" (student: < {limit:g})"
    if compat == "hrnet" and threshold == 0.1:
        return distance <= 0.11, " (hrnet: <= 0.11)"
    return distance <= threshold, ""


def torso_size(joints: F32, skeleton: Skeleton) -> F64:
    """Return the (N,) pixels from left shoulder to right hip; NaN under 5 or without both.

    PCK by the torso: Sapp & Taskar 2013 (MODEC), section 6.2; these joints as in CPM's LSP scorer.
    """
    ends = joints[:, skeleton.index("left_shoulder")] - joints[:, skeleton.index("right_hip")]
    torso = np.linalg.norm(ends.astype(np.float64), axis=-1)
    return np.asarray(np.where(torso >= _MIN_TORSO, torso, np.nan), np.float64)


def box_size(truth: F32) -> F64:
    """Return the (N,) longer side of the tight box of the joints, pixels; NaN without any.

    PCK by this box: Yang & Ramanan 2013, "Articulated human detection", section 6.
    """
    known = np.isfinite(truth)
    low = np.where(known, truth, np.inf).min(1)
    high = np.where(known, truth, -np.inf).max(1)
    size = (high - low).max(-1).astype(np.float64)
    return np.asarray(np.where(np.isfinite(size), size, np.nan), np.float64)


def pckh(
    distance: F64,
    skeleton: Skeleton,
    *,
    threshold: float = 0.5,
    names: Sequence[str] | None = None,
    compat: str = "",
) -> Score:
    """Return PCKh@`threshold`, pooled over the joints in `names` (default: `scored_joints`).

    Args:
        distance: (N, J) of `normalised` by the head size, 0.6 of the head box's diagonal.
        skeleton: meaning of the J columns.
        threshold: a distance equal to it is a hit.
        names: joints pooled in `value`.
        compat: "student" or "hrnet", see `within`.

    Source: evalMPII (Andriluka et al. 2014).
    """
    what = "limb joints" if names == LIMB_JOINTS else "joints"
    names = scored_joints(skeleton, compat) if names is None else names
    hit, note = within(distance, threshold, compat)
    known = ~np.isnan(distance)
    return pooled(f"PCKh@{threshold:g}{note}", hit, known, skeleton.joints, names, what)


def pckh_auc(distance: F64, skeleton: Skeleton) -> Score:
    """Return the area under PCKh over the thresholds 0, 0.01 ... 0.5 (trapezoids), over 0.5."""
    steps = [pckh(distance, skeleton, threshold=t) for t in THRESHOLDS]
    return Score(
        f"AUC of PCKh, 0 to {THRESHOLDS[-1]:g}, {steps[0].rule.partition(', ')[2]}",
        float(_area([step.value for step in steps])),
        _area([step.per_joint for step in steps]),
        steps[0].count,
        skeleton.joints,
    )


def _area(steps: Sequence[float] | Sequence[F64]) -> F64:
    values = np.array(steps)
    return np.asarray((values[1:] + values[:-1]).mean(0) / 2, np.float64)


def pooled(
    rule: str, hit: Bool, counted: Bool, joints: Sequence[str], names: Sequence[str], what: str
) -> Score:
    """Return the share of hits (N, J) among counted (N, J); `value` pools the `joints` in `names`.

    The rule's name ends with the number of these that were counted at all, and `what` they are.
    """
    count = counted.sum(0)
    right = (hit & counted).sum(0)
    rows = [joints.index(name) for name in names if name in joints]
    total = int(count[rows].sum())
    return Score(
        f"{rule}, {np.count_nonzero(count[rows])} {what}",
        float(right[rows].sum() / total) if total else float("nan"),
        np.where(count > 0, right / np.maximum(count, 1), np.nan),
        count.astype(np.int64),
        tuple(joints),
    )


def in_groups(score: Score, names: Sequence[str], *, convention: str = "mpii") -> Score:
    """Return `score` by group, the mean of left and right, as evalMPII prints it.

    Args:
        score: of joints.
        names: the joints that `score.value` pools.
        convention: a key of CONVENTIONS.

    Returns:
        `joints` Head, Shoulder ... Ankle and UBody (shoulders, elbows and wrists pooled), NaN where
        a joint of the group was never counted; `value` is the convention's Mean.

    Raises ValueError on an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"no convention {convention!r}; there are: {', '.join(CONVENTIONS)}")
    neck = ("upper_neck" if "upper_neck" in score.joints else "neck",)
    head = (*(neck if convention == "mpii" else ()), "head_top")
    groups = {"Head": head} | {
        limb.capitalize(): (f"left_{limb}", f"right_{limb}") for limb in _LIMBS
    }
    values = {name: _mean(score, joints) for name, joints in groups.items()}
    right, count = _sums(score, [f"{s}_{j}" for s in ("left", "right") for j in _LIMBS[:3]])
    values["UBody"] = right / count if count else float("nan")
    counts = [_sums(score, joints)[1] for joints in groups.values()]
    mean = _mean(score, names, known=True) if convention == "pytorch-pose" else score.value
    return Score(
        f"{score.rule}; {CONVENTIONS[convention]}",
        mean,
        np.array(list(values.values())),
        np.array([*counts, count], np.int64),
        tuple(values),
    )


def unweighted(score: Score, names: Sequence[str]) -> Score:
    """Return the mean of the scores of the joints in `names`, each joint counting the same."""
    return Score(f"{score.rule}, unweighted mean", _mean(score, names, known=True))


def _mean(score: Score, names: Sequence[str], *, known: bool = False) -> float:
    """Return the mean over `names`; NaN if one was never counted; `known`: over the others."""
    each = [score.per_joint[score.joints.index(n)] for n in names if n in score.joints]
    if known:
        each = [value for value in each if not np.isnan(value)]
    return float(np.mean(each)) if each and (known or len(each) == len(names)) else float("nan")


def _sums(score: Score, names: Sequence[str]) -> tuple[float, int]:
    """Return the hits and the counted joints of `names`."""
    rows = [score.joints.index(name) for name in names if name in score.joints]
    count = score.count[rows]
    return float((np.nan_to_num(score.per_joint[rows]) * count).sum()), int(count.sum())
