"""Skeletons of the field: joint names, limbs, left/right pairs, OKS sigmas, conversions.

Joint orders are those of the data sets' own files (0-based).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# COCO's per-joint constants (cocodataset.org, "keypoints eval"): sigma, not k = 2 sigma.
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
    0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip

# The same body point under another name.
_SAME = {"upper_neck": "neck", "head": "nose"}

# A point that may be derived as the mean of two others, only when asked for.
_MIDDLE = {"pelvis": ("left_hip", "right_hip"), "thorax": ("left_shoulder", "right_shoulder")}


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Names of joints, limbs between them and left-right pairs.

    Attributes:
        name: of the joint set, e.g. "coco17".
        joints: J names; the index of a name is the index of its row everywhere.
        limbs: pairs of joint indices, for drawing and PCP.
        pairs: (left, right) joint indices that a mirror exchanges.
        sigmas: J OKS constants, or None where they are not known.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...] | None = None

    @property
    def flip_index(self) -> I64:
        """(J,) index that puts the joints of a mirrored person in order; its own inverse."""
        index = np.arange(len(self.joints), dtype=np.int64)
        for left, right in self.pairs:
            index[left], index[right] = right, left
        return index

    def index(self, name: str) -> int:
        """Row of joint `name`. Raises ValueError if the skeleton does not have it."""
        return self.joints.index(name)

    def side(self, joint: int) -> str:
        """Which half of the body `joint` belongs to: "left", "right" or "middle"."""
        for left, right in self.pairs:
            if joint == left:
                return "left"
            if joint == right:
                return "right"
        return "middle"

    @property
    def points(self) -> tuple[str, ...]:
        """J names of `joints` without the side they lie on: "wrist" twice, "nose" once."""
        return tuple(name.removeprefix("left_").removeprefix("right_") for name in self.joints)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON value; `from_dict` reads it back."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "limbs": [list(limb) for limb in self.limbs],
            "pairs": [list(pair) for pair in self.pairs],
            "sigmas": None if self.sigmas is None else list(self.sigmas),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Skeleton:
        """The skeleton that `to_dict` described. Raises ValueError or KeyError on nonsense."""
        joints = tuple(str(name) for name in value["joints"])
        n = len(joints)
        limbs = tuple((int(a), int(b)) for a, b in value["limbs"])
        pairs = tuple((int(a), int(b)) for a, b in value["pairs"])
        sigmas = value.get("sigmas")
        if any(not 0 <= i < n for link in limbs + pairs for i in link):
            raise ValueError(f"skeleton {value['name']!r}: a limb or pair names a joint beyond {n}")
        if sigmas is not None and len(sigmas) != n:
            raise ValueError(f"skeleton {value['name']!r}: {len(sigmas)} sigmas for {n} joints")
        return cls(
            str(value["name"]),
            joints,
            limbs,
            pairs,
            None if sigmas is None else tuple(float(s) for s in sigmas),
        )


def _skeleton(
    name: str, joints: str, limbs: str, sigmas: tuple[float, ...] | None = None
) -> Skeleton:
    """Build from words; `limbs` are "a-b" pairs of names, l_/r_ short for left_/right_."""

    def full(word: str) -> str:
        return {"l_": "left_", "r_": "right_"}.get(word[:2], word[:2]) + word[2:]

    names = tuple(full(word) for word in joints.split())
    links = (link.split("-") for link in limbs.split())
    pairs = tuple(
        (i, names.index("right_" + joint[5:]))
        for i, joint in enumerate(names)
        if joint.startswith("left_")
    )
    return Skeleton(
        name,
        names,
        tuple((names.index(full(a)), names.index(full(b))) for a, b in links),
        pairs,
        sigmas,
    )


_LEGS = "r_ankle-r_knee r_knee-r_hip l_hip-l_knee l_knee-l_ankle"
_ARMS = "r_wrist-r_elbow r_elbow-r_shoulder l_shoulder-l_elbow l_elbow-l_wrist"
_COCO_JOINTS = (
    "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle"
)
_COCO_LIMBS = (
    f"{_LEGS} l_hip-r_hip l_shoulder-l_hip r_shoulder-r_hip l_shoulder-r_shoulder {_ARMS} "
    "nose-l_eye nose-r_eye l_eye-l_ear r_eye-r_ear"
)
_FINGERS = ("thumb", "index", "middle", "ring", "little")

MPII16 = _skeleton(
    "mpii16",
    "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax upper_neck head_top "
    "r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist",
    f"{_LEGS} r_hip-pelvis l_hip-pelvis pelvis-thorax thorax-upper_neck upper_neck-head_top "
    f"thorax-r_shoulder thorax-l_shoulder {_ARMS}",
)
LSP14 = _skeleton(
    "lsp14",
    "r_ankle r_knee r_hip l_hip l_knee l_ankle r_wrist r_elbow r_shoulder l_shoulder l_elbow "
    "l_wrist neck head_top",
    f"{_LEGS} {_ARMS} neck-head_top r_shoulder-neck l_shoulder-neck r_shoulder-r_hip "
    "l_shoulder-l_hip r_hip-l_hip",
)
CPM14 = _skeleton(
    "cpm14",
    "head_top neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist r_hip r_knee r_ankle "
    "l_hip l_knee l_ankle",
    # The limb list of the CPM demo, in its order: it draws no shoulder or hip line.
    "head_top-neck r_shoulder-r_elbow r_elbow-r_wrist l_shoulder-l_elbow l_elbow-l_wrist "
    "r_hip-r_knee r_knee-r_ankle l_hip-l_knee l_knee-l_ankle",
)
FLIC9 = _skeleton(
    "flic9",
    "l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist l_hip r_hip head",
    "l_shoulder-l_elbow l_elbow-l_wrist r_shoulder-r_elbow r_elbow-r_wrist",
)
COCO17 = _skeleton("coco17", _COCO_JOINTS, _COCO_LIMBS, _COCO_SIGMAS)
BODY19 = _skeleton(
    "body19",
    f"{_COCO_JOINTS} neck head_top",
    f"{_COCO_LIMBS} nose-neck nose-head_top neck-l_shoulder neck-r_shoulder",
    # Neck and head top have no official constant; shoulders' is the nearest measured kin.
    (*_COCO_SIGMAS, 0.079, 0.079),
)
HAND21 = _skeleton(
    "hand21",
    "wrist " + " ".join(f"{finger}_{i}" for finger in _FINGERS for i in range(1, 5)),
    " ".join(
        f"wrist-{finger}_1 " + " ".join(f"{finger}_{i}-{finger}_{i + 1}" for i in range(1, 4))
        for finger in _FINGERS
    ),
)

SKELETONS = {s.name: s for s in (MPII16, LSP14, CPM14, FLIC9, COCO17, BODY19, HAND21)}


def joint_map(source: Skeleton, target: Skeleton) -> I64:
    """(J_target,) row of `source` that holds each target joint, -1 where it has none."""
    known = {_SAME.get(name, name): i for i, name in enumerate(source.joints)}
    return np.array([known.get(_SAME.get(name, name), -1) for name in target.joints], np.int64)


def convert(joints: F32, source: Skeleton, target: Skeleton, *, derive: bool = False) -> F32:
    """Reorder joints by name.

    Args:
        joints: (..., J_source, 2) in any unit, NaN = missing.
        source: skeleton of `joints`.
        target: skeleton wanted.
        derive: also fill pelvis as mid-hip and thorax as mid-shoulder where `source` lacks them.

    Returns:
        (..., J_target, 2) float32; NaN where `source` does not know the joint.
    """
    index = joint_map(source, target)
    out = np.asarray(joints, np.float32)[..., index, :].copy()
    out[..., index < 0, :] = np.nan
    if derive:
        for row in np.flatnonzero(index < 0):
            ends = _MIDDLE.get(target.joints[row])
            if ends and all(end in source.joints for end in ends):
                left, right = (joints[..., source.index(end), :] for end in ends)
                out[..., row, :] = (left + right) / 2
    return out


def convert_scores(scores: F32, source: Skeleton, target: Skeleton) -> F32:
    """(..., J_target) scores in `target`'s order; 0 where `source` does not know the joint."""
    index = joint_map(source, target)
    out = np.asarray(scores, np.float32)[..., index].copy()
    out[..., index < 0] = 0
    return out
