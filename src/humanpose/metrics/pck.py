"""PCK: share of joints within a fraction of the torso."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from humanpose.skeleton import Skeleton
from humanpose.types import F32, Score

Bool = NDArray[np.bool_]

_LEAST_TORSO = 5.0  # pixels; below it the person says nothing about precision
LIMB_JOINTS = tuple(
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
)


def pck_torso(joints: F32, truth: F32, skeleton: Skeleton, *, threshold: float = 0.2) -> Score:
    """PCK@`threshold` of the torso, pooled over the twelve limb joints.

    A joint is right if its distance to the truth is at most `threshold` times the distance
    between the true left shoulder and right hip. Persons whose truth lacks one of these, or whose
    torso is under 5 px, are left out.

    Args:
        joints: (N, J, 2) predicted, picture pixels; NaN counts as a miss.
        truth: (N, J, 2) annotated, NaN = not annotated and not counted.
        skeleton: meaning of the J rows.
        threshold: a distance equal to it is a hit.

    Returns:
        `value` over the limb joints; `per_joint` over all of the skeleton's joints.

    Source: Sapp & Taskar 2013 (MODEC), section 6.2; the two joints are those of CPM's LSP scorer.
    """
    ends = truth[:, skeleton.index("left_shoulder")] - truth[:, skeleton.index("right_hip")]
    torso = np.linalg.norm(ends, axis=-1)
    usable = np.nan_to_num(torso, nan=0.0) >= _LEAST_TORSO
    joints, truth, torso = joints[usable], truth[usable], torso[usable]
    counted = np.asarray(~np.isnan(truth).any(-1))
    distance = np.linalg.norm(joints - truth, axis=-1)
    hit = np.asarray(np.nan_to_num(distance, nan=np.inf) <= threshold * torso[:, None])
    return pooled(f"PCK@{threshold:g} torso, 12 limb joints", hit, counted, skeleton, LIMB_JOINTS)


def pooled(
    rule: str, hit: Bool, counted: Bool, skeleton: Skeleton, names: tuple[str, ...]
) -> Score:
    """Score from hits (N, J) among counted (N, J): `value` pools the joints in `names`."""
    count = counted.sum(0)
    right = (hit & counted).sum(0)
    rows = [skeleton.index(name) for name in names]
    total = int(count[rows].sum())
    return Score(
        rule,
        float(right[rows].sum() / total) if total else float("nan"),
        np.where(count > 0, right / np.maximum(count, 1), np.nan),
        count.astype(np.int64),
        skeleton.joints,
    )
