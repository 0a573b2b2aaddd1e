"""Scores of joints as the tables of the toolkits print them: by group, pooled, unweighted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from humanpose.types import Score

# What a toolkit calls "Head" and "Mean"; figures of different conventions do not compare.
CONVENTIONS = {
    "mpii": "Head = mean of neck and head top, Mean = pooled over joints",
    "hrnet": "Head = head top, Mean = pooled over joints",
    "pytorch-pose": "Head = head top, Mean = unweighted mean of the joints",
}
_LIMBS = ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
_UPPER_BODY = ("shoulder", "elbow", "wrist")


def in_groups(score: Score, names: Sequence[str], *, convention: str = "mpii") -> Score:
    """`score` by group: the mean of left and right, as evalMPII prints it.

    Args:
        score: of joints.
        names: the joints that `score.value` pools.
        convention: a key of CONVENTIONS.

    Returns:
        `joints` Head, Shoulder ... Ankle and UBody (shoulders, elbows and wrists pooled), NaN where
        a joint of the group was never counted; `value` is the convention's Mean.

    Raises:
        ValueError: on an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"no convention {convention!r}; there are: {', '.join(CONVENTIONS)}")
    neck = ("upper_neck" if "upper_neck" in score.joints else "neck",)
    head = (*(neck if convention == "mpii" else ()), "head_top")
    groups = {"Head": head} | {
        limb: (f"left_{limb.lower()}", f"right_{limb.lower()}") for limb in _LIMBS
    }
    values = {name: _of(score, joints) for name, joints in groups.items()}
    right, count = _sums(score, [f"{s}_{j}" for s in ("left", "right") for j in _UPPER_BODY])
    values["UBody"] = right / count if count else float("nan")
    counts = [_sums(score, joints)[1] for joints in groups.values()]
    mean = _of(score, names, lacking=True) if convention == "pytorch-pose" else score.value
    return Score(
        f"{score.rule}; {CONVENTIONS[convention]}",
        mean,
        np.array(list(values.values())),
        np.array([*counts, count], np.int64),
        tuple(values),
    )


def unweighted(score: Score, names: Sequence[str]) -> Score:
    """The mean of the joints' figures, each joint counting the same."""
    return Score(f"{score.rule}, unweighted mean", _of(score, names, lacking=True))


def _of(score: Score, names: Sequence[str], *, lacking: bool = False) -> float:
    """Mean over `names`; a joint never counted makes it NaN unless `lacking` ones are left out."""
    each = [score.per_joint[score.joints.index(n)] for n in names if n in score.joints]
    if lacking:
        each = [value for value in each if not np.isnan(value)]
    return float(np.mean(each)) if each and (lacking or len(each) == len(names)) else float("nan")


def _sums(score: Score, names: Sequence[str]) -> tuple[float, int]:
    rows = [score.joints.index(name) for name in names if name in score.joints]
    count = score.count[rows]
    return float((np.nan_to_num(score.per_joint[rows]) * count).sum()), int(count.sum())
