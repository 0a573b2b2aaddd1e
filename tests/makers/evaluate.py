"""Made people, their scores by the table of scores, and MATLAB structs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from humanpose.evaluate.predictions import Matched
from humanpose.evaluate.scores import SCORES, Comparison, Rules, Truth
from humanpose.geometry import box_of_joints
from humanpose.skeleton import MPII16, Skeleton
from humanpose.types import F32, Sample, Score


def comparison(found: F32, truth: F32, skeleton: Skeleton, compat: str = "") -> Comparison:
    """Joints (N, J, 2) beside the true ones, without samples, heads and areas."""
    n = len(truth)
    known = np.ones(len(skeleton.joints), bool)
    gap = np.full(n, np.nan)
    return Comparison(
        Matched(found, np.ones(n, np.float32), known, n, "matched by row"),
        Truth((), skeleton, truth, gap, gap),
        Rules(compat=compat),
    )


def score(
    name: str, found: F32, truth: F32, skeleton: Skeleton, threshold: float, compat: str = ""
) -> Score:
    """The first score that the entry `name` of SCORES gives at `threshold`."""
    compared = comparison(found, truth, skeleton, compat)
    return next(iter(SCORES[name].scores(compared, (threshold,))))


def pck_torso(
    found: F32, truth: F32, skeleton: Skeleton, *, threshold: float = 0.2, compat: str = ""
) -> Score:
    return score("pck-torso", found, truth, skeleton, threshold, compat)


def pck_box(found: F32, truth: F32, skeleton: Skeleton, *, threshold: float = 0.2) -> Score:
    return score("pck-box", found, truth, skeleton, threshold)


def samples(n: int, skeleton: Skeleton = MPII16, *, split: str = "validation") -> list[Sample]:
    rng = np.random.default_rng(1)
    people = []
    for i in range(n):
        joints = rng.uniform(0, 100, (len(skeleton.joints), 2)).astype(np.float32)
        joints += np.float32(150 * (i % 3))  # three people stand apart in each picture
        box = box_of_joints(joints)
        people.append(
            Sample(
                picture=Path(f"pictures/{i // 3 + 1:012d}.jpg"),
                joints=joints,
                visible=np.full(len(joints), 2, np.uint8),
                box=box,
                area=float(box[2] * box[3]),
                split=split,
                origin=("set", f"{i // 3 + 1}/{i % 3 + 1}"),
                skeleton=skeleton,
            )
        )
    return people


def struct(**fields: object) -> np.ndarray:
    """A 1 x 1 MATLAB struct."""
    out = np.empty((1, 1), [(name, object) for name in fields])
    for name, value in fields.items():
        out[0, 0][name] = value
    return out


def structs(*entries: np.ndarray) -> np.ndarray:
    return np.concatenate(entries, axis=1) if entries else np.zeros((0, 0))
