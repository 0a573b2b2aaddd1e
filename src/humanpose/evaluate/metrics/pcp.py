"""PCP: share of limbs whose two ends are right."""

from __future__ import annotations

import numpy as np

from humanpose.evaluate.metrics.pck import pooled
from humanpose.skeleton import Skeleton
from humanpose.types import F32, Score

_ENDS = {
    "upper_leg": ("hip", "knee"),
    "lower_leg": ("knee", "ankle"),
    "upper_arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
}


def parts_of(skeleton: Skeleton) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """LSP's ten parts, those that `skeleton` has: name -> joints whose middles are its two ends.

    The torso runs from the middle of the shoulders to the middle of the hips.
    """
    neck = "upper_neck" if "upper_neck" in skeleton.joints else "neck"
    parts: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "torso": (("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"))
    }
    for part, (upper, lower) in _ENDS.items():
        for side in ("left", "right"):
            parts[f"{side}_{part}"] = ((f"{side}_{upper}",), (f"{side}_{lower}",))
    parts["head"] = ((neck,), ("head_top",))
    known = set(skeleton.joints)
    return {name: ends for name, ends in parts.items() if known.issuperset(ends[0] + ends[1])}


def pcp(
    joints: F32,
    truth: F32,
    skeleton: Skeleton,
    *,
    threshold: float = 0.5,
    strict: bool = True,
    observer: bool = False,
) -> Score:
    """PCP@`threshold`, pooled over the parts of `parts_of`.

    A limb is right if its ends lie within `threshold` times the true limb's length of their
    truth: both of them (strict), or on average (loose, as Ferrari's toolkit computes it).

    Args:
        joints: (N, J, 2) predicted, picture pixels; NaN counts as a miss.
        truth: (N, J, 2) annotated; a limb with an end not annotated is not counted.
        skeleton: meaning of the J rows.
        threshold: a distance equal to it is a hit.
        strict: both ends, instead of their mean distance.
        observer: sides are the picture's (`observer_centric`) and not the person's.

    Returns:
        `joints` are the parts.

    Source: Ferrari et al. 2008; the two readings: Pishchulin et al. 2012, section 4.1.
    """
    if observer:
        joints, truth = observer_centric(joints, skeleton), observer_centric(truth, skeleton)
    parts = parts_of(skeleton)
    hits, counts = [], []
    for ends in parts.values():
        rows = [[skeleton.index(name) for name in end] for end in ends]
        found, true = (
            np.stack([points[:, row].mean(axis=1, dtype=np.float64) for row in rows])
            for points in (joints, truth)
        )  # each (2, N, 2)
        length = np.linalg.norm(true[0] - true[1], axis=-1)
        counted = length > 0
        away = np.nan_to_num(np.linalg.norm(found - true, axis=-1), nan=np.inf)
        worst = away.max(0) if strict else away.mean(0)
        hits.append(worst <= threshold * length)
        counts.append(counted)
    kind, sides = "strict" if strict else "loose", "observer" if observer else "person"
    rule, names = f"PCP@{threshold:g} {kind}, {sides}-centric", tuple(parts)
    return pooled(rule, np.array(hits).T, np.array(counts).T, names, names, "parts")


def observer_centric(joints: F32, skeleton: Skeleton) -> F32:
    """`joints` (N, J, 2) with left and right as they lie in the picture.

    The arms (with the shoulders) change sides where the left shoulder lies right of the right
    one, the legs where the left hip does; where one of the two is missing nothing changes.
    """
    out = np.array(joints, np.float32)
    for lead, limb in (("shoulder", ("elbow", "wrist")), ("hip", ("knee", "ankle"))):
        left, right = skeleton.index(f"left_{lead}"), skeleton.index(f"right_{lead}")
        turned = joints[:, left, 0] > joints[:, right, 0]
        for name in (lead, *limb):
            if f"left_{name}" in skeleton.joints:
                a, b = skeleton.index(f"left_{name}"), skeleton.index(f"right_{name}")
                out[turned, a], out[turned, b] = joints[turned, b], joints[turned, a]
    return out
