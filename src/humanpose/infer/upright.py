"""A second look at people who lie, lean or stand on their heads: a crop in which they are upright.

Pose networks see few such people in training and know them less well, however they are turned in
augmentation: docs/training-log.md has what this gains.
"""

from __future__ import annotations

import numpy as np

from humanpose.geometry import Crop, augmented_crop, box_of_joints, compose, crop_of_box
from humanpose.skeleton import I64, Skeleton
from humanpose.types import F32

_TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
_BELIEVED = 0.2  # mean score of shoulders or hips below which they do not say how somebody lies
_ZOOM = (0.7, 1.6)  # joints that are wrong shall not make the second crop useless


def torso_of(skeleton: Skeleton) -> I64:
    """(2, 2) rows of shoulders and hips, which say how somebody lies; (0, 2) without them."""
    there = set(_TORSO) <= set(skeleton.joints)
    rows = [skeleton.index(name) for name in _TORSO] if there else []
    return np.array(rows, np.int64).reshape(-1, 2)


def tilts(joints: F32, scores: F32, torso: I64) -> F32:
    """(N,) degrees by which torsos are turned clockwise, in picture view, from upright.

    Args:
        joints: (N, J, 2) picture pixels.
        scores: (N, J).
        torso: of `torso_of`.

    Returns:
        -180 ... 180; 0 where shoulders or hips are not believed: nobody knows.
    """
    ends = joints[:, torso].sum(2)  # twice the middles of shoulders and hips
    up = ends[:, 0] - ends[:, 1]
    believed = (scores[:, torso].sum(2) >= 2 * _BELIEVED).all(1)
    tilt = np.degrees(np.arctan2(up[:, 0], -up[:, 1]))  # y points down
    return np.where(believed, tilt, 0).astype(np.float32)


def upright_crop(crop: Crop, joints: F32, tilt: float, *, context: float, centre: str) -> Crop:
    """A crop that shows the person of `crop` upright, of the same size.

    Args:
        crop: of the first look.
        joints: (J, 2) what the first look found, picture pixels.
        tilt: of `tilts`.
        context: growth of the box around these joints.
        centre: crop pixel that its middle falls on, as of `geometry.crop_of_box`.
    """
    turned = augmented_crop(crop, rotation=tilt, centre=centre)
    # Fitted anew: a body that lies had to fit into the width, and now has the height.
    box = box_of_joints(turned.to_crop(joints))
    fitted = crop_of_box(box, crop.size, context=context, centre=centre, zoom=_ZOOM)
    return Crop(compose(fitted.matrix, turned.matrix), crop.size)
