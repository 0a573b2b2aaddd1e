"""PCK and PCKh: share of joints within a fraction of the torso, the joint box or the head.

Every score is made of normalised distances (N, J): NaN where a joint is not counted, infinite
where it was not predicted. Visibility never masks: an annotated joint counts, hidden or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from humanpose.skeleton import Skeleton
from humanpose.types import F32, F64, Score

Bool = NDArray[np.bool_]

_LEAST_TORSO = 5.0  # pixels; below it the person says nothing about precision
# evalMPII's 51 thresholds, for curves and for the area under them.
THRESHOLDS: F64 = np.asarray(np.arange(51) * 0.01, np.float64)
LIMB_JOINTS = tuple(
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
)


def scored_joints(skeleton: Skeleton, compat: str = "") -> tuple[str, ...]:
    """The joints that PCKh pools: all but pelvis and thorax, as evalMPII's 14 of 16.

    With `compat` "student" the left wrist is not among them either.
    """
    left_out = ("pelvis", "thorax", *(("left_wrist",) if compat == "student" else ()))
    return tuple(name for name in skeleton.joints if name not in left_out)


def normalised(joints: F32, truth: F32, size: F64) -> F64:
    """(N, J) distance between `joints` and `truth` (N, J, 2) in units of `size` (N,).

    NaN where the truth is NaN or the size not above 0; infinite where only the prediction is NaN.
    """
    distance = np.linalg.norm(np.asarray(joints, np.float64) - truth, axis=-1)
    distance[np.isnan(joints).any(-1)] = np.inf
    distance[np.isnan(truth).any(-1)] = np.nan
    usable = np.where(np.nan_to_num(size) > 0, size, np.nan)
    return np.asarray(distance / usable[:, None], np.float64)


def within(distance: F64, threshold: float, compat: str = "") -> tuple[Bool, str]:
    """(N, J) hits, and what to add to a rule's name.

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
    """(N,) distance of left shoulder and right hip, pixels; NaN under 5 px or without both."""
    ends = joints[:, skeleton.index("left_shoulder")] - joints[:, skeleton.index("right_hip")]
    torso = np.linalg.norm(ends.astype(np.float64), axis=-1)
    return np.asarray(np.where(torso >= _LEAST_TORSO, torso, np.nan), np.float64)


def box_size(truth: F32) -> F64:
    """(N,) longer side of the tight box of the annotated joints, pixels; NaN without any."""
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
    """PCKh@`threshold`, pooled over the joints in `names` (`scored_joints`, if not given).

    Args:
        distance: (N, J) of `normalised` by the head size, 0.6 of the head box's diagonal.
        skeleton: meaning of the J columns.
        threshold: a distance equal to it is a hit.
        names: joints pooled in `value`.
        compat: "student" or "hrnet", see `within`.

    Source: evalMPII (Andriluka et al. 2014).
    """
    what = "joints" if names is None else "limb joints" if names == LIMB_JOINTS else "given joints"
    names = scored_joints(skeleton, compat) if names is None else names
    hit, mark = within(distance, threshold, compat)
    return pooled(f"PCKh@{threshold:g}{mark}", hit, ~np.isnan(distance), skeleton, names, what)


def pckh_auc(distance: F64, skeleton: Skeleton) -> Score:
    """Area under PCKh over the thresholds 0, 0.01 ... 0.5, trapezoids, divided by 0.5."""
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


def pck_torso(
    joints: F32,
    truth: F32,
    skeleton: Skeleton,
    *,
    threshold: float = 0.2,
    compat: str = "",
    torso: F64 | None = None,
) -> Score:
    """PCK@`threshold` of the torso, pooled over the twelve limb joints.

    A joint is right if its distance to the truth is at most `threshold` times the distance
    between the true left shoulder and right hip. Persons whose truth lacks one of these, or whose
    torso is under 5 px, are left out.

    Args:
        joints: (N, J, 2) predicted, picture pixels; NaN counts as a miss.
        truth: (N, J, 2) annotated, NaN = not annotated and not counted.
        skeleton: meaning of the J rows.
        threshold: a distance equal to it is a hit.
        compat: "cpm-flic": the torso is the predicted one, as in the CPM release's FLIC scorer.
        torso: (N,) px, where it is known better than from `truth`, which lacks joints.

    Returns:
        `value` over the limb joints; `per_joint` over all of the skeleton's joints.

    Source: Sapp & Taskar 2013 (MODEC), section 6.2; the two joints are those of CPM's LSP scorer.
    """
    predicted = compat == "cpm-flic"
    if torso is None:
        torso = torso_size(joints if predicted else truth, skeleton)
    distance = normalised(joints, truth, torso)
    rule = f"PCK@{threshold:g} {'predicted ' if predicted else ''}torso"
    hit, counted = distance <= threshold, ~np.isnan(distance)
    return pooled(rule, hit, counted, skeleton, LIMB_JOINTS, "limb joints")


def pck_box(joints: F32, truth: F32, skeleton: Skeleton, *, threshold: float = 0.2) -> Score:
    """PCK: within `threshold` times the longer side of the true joints' tight box.

    Args and rules as in `pck_torso`; pooled over all joints.

    Source: Yang & Ramanan 2013, "Articulated human detection", section 6.
    """
    distance = normalised(joints, truth, box_size(truth))
    rule = f"PCK@{threshold:g} joint box"
    hit, counted = distance <= threshold, ~np.isnan(distance)
    return pooled(rule, hit, counted, skeleton, skeleton.joints, "joints")


def pooled(
    rule: str, hit: Bool, counted: Bool, skeleton: Skeleton, names: Sequence[str], what: str
) -> Score:
    """Score from hits (N, J) among counted (N, J): `value` pools the joints in `names`.

    The rule says how many of them were ever counted: both sides have to know a joint.
    """
    count = counted.sum(0)
    right = (hit & counted).sum(0)
    rows = [skeleton.index(name) for name in names if name in skeleton.joints]
    total = int(count[rows].sum())
    return Score(
        f"{rule}, {np.count_nonzero(count[rows])} {what}",
        float(right[rows].sum() / total) if total else float("nan"),
        np.where(count > 0, right / np.maximum(count, 1), np.nan),
        count.astype(np.int64),
        skeleton.joints,
    )
