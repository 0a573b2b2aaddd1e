"""Skeletons of the field: joint names, limbs, left/right pairs, OKS sigmas, conversions.

skeletons.json holds the tables; joint orders are those of the data sets' own files (0-based).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

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
        """Return the (J,) index that reorders the joints of a mirrored person; its own inverse."""
        index = np.arange(len(self.joints), dtype=np.int64)
        for left, right in self.pairs:
            index[left], index[right] = right, left
        return index

    def index(self, name: str) -> int:
        """Return the row of joint `name`. Raises ValueError if the skeleton does not have it."""
        return self.joints.index(name)

    def side(self, joint: int) -> str:
        """Return the side of the body that `joint` lies on: "left", "right" or "middle"."""
        sides = {left: "left" for left, _ in self.pairs}
        sides |= {right: "right" for _, right in self.pairs}
        return sides.get(joint, "middle")

    @property
    def points(self) -> tuple[str, ...]:
        """Return the J names without the side: "wrist" twice, "nose" once."""
        return tuple(name.removeprefix("left_").removeprefix("right_") for name in self.joints)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value that `from_dict` reads back."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "limbs": [list(limb) for limb in self.limbs],
            "pairs": [list(pair) for pair in self.pairs],
            "sigmas": None if self.sigmas is None else list(self.sigmas),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Skeleton:
        """Read what `to_dict` wrote. Raises ValueError or KeyError if it is not a skeleton."""
        joints = tuple(str(name) for name in value["joints"])
        n = len(joints)
        limbs = tuple((int(a), int(b)) for a, b in value["limbs"])
        pairs = tuple((int(a), int(b)) for a, b in value["pairs"])
        sigmas = value.get("sigmas")
        if any(not 0 <= i < n for link in limbs + pairs for i in link):
            raise ValueError(f"skeleton {value['name']!r}: a limb or pair names a joint beyond {n}")
        if sigmas is not None and len(sigmas) != n:
            raise ValueError(f"skeleton {value['name']!r}: {len(sigmas)} sigmas for {n} joints")
        known = None if sigmas is None else tuple(float(s) for s in sigmas)
        return cls(str(value["name"]), joints, limbs, pairs, known)


_TABLES = json.loads(Path(__file__).with_name("skeletons.json").read_text("utf-8"))
_KNOWN = {table["name"]: Skeleton.from_dict(table) for table in _TABLES}
MPII16, LSP14, CPM14, FLIC9 = (_KNOWN[name] for name in ("mpii16", "lsp14", "cpm14", "flic9"))
COCO17, BODY19, HAND21 = (_KNOWN[name] for name in ("coco17", "body19", "hand21"))
BODY25 = _KNOWN.pop("body25")  # OpenPose's, only written
SKELETONS = _KNOWN


def joint_map(source: Skeleton, target: Skeleton) -> I64:
    """Return, per target joint (J_target,), its row in `source`; -1 where there is none."""
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
        (..., J_target, 2) float32; NaN where `source` lacks the joint.
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
    """Reorder scores (..., J_source) to (..., J_target); 0 where `source` lacks the joint."""
    index = joint_map(source, target)
    out = np.asarray(scores, np.float32)[..., index].copy()
    out[..., index < 0] = 0
    return out
