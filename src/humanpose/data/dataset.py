"""Training data of a pose network: one crop a person, with heat-map targets.

A person's way: box -> crop (with random changes composed) -> one warp -> pixels changed ->
joints carried into the crop -> Gaussian targets and what is known of each joint.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose import heatmap
from humanpose.data.augment import Augmentation, generator, random_crop, random_pixels
from humanpose.geometry import box_of_joints, crop_of_box
from humanpose.images import load_image
from humanpose.skeleton import Skeleton, convert
from humanpose.spec import ModelSpec
from humanpose.types import F32, Crop, Sample

Batchable = dict[str, NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.int64]]

# What a joint's `known` value says.
UNKNOWN, INSIDE, OUTSIDE = 0, 1, 2
_HALF_BODY_LEAST = 4  # joints of a half that make a sensible crop


class PoseDataset:
    """Persons as crops; indexed by (epoch, sample), so that randomness can be keyed by both.

    Args:
        samples: annotated persons of any skeletons.
        spec: of the network: input, context, stride, grid, pad and the skeleton of the maps.
        rules: random changes.
        seed: of the run.
        sigma: of the targets, cells.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: ModelSpec,
        rules: Augmentation,
        *,
        seed: int = 0,
        sigma: float = 1.5,
    ) -> None:
        self.samples = tuple(samples)
        self.spec = spec
        self.rules = rules
        self.seed = seed
        self.sigma = sigma

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Batchable:
        """One crop: image (H, W, 3) uint8, target (J, h, w), known (J,): INSIDE, OUTSIDE ..."""
        epoch, index = key
        sample = self.samples[index]
        rng = generator(self.seed, epoch, index)
        picture = load_image(sample.picture)
        crop, flipped = random_crop(self._crop(sample, rng), self.rules, rng)
        image = random_pixels(crop.cut(picture, self.spec.pad), self.rules, rng)
        joints = crop.to_crop(convert(sample.joints, sample.skeleton, self.spec.skeleton))
        if flipped:
            joints = joints[self.spec.skeleton.flip_index]
        known = joint_state(joints, crop.size)
        inside = np.where((known == INSIDE)[:, None], joints, np.nan).astype(np.float32)
        cells = heatmap.to_cells(inside, self.spec.stride, self.spec.grid)
        width, height = (side // self.spec.stride for side in crop.size)
        target = heatmap.encode(cells, (height, width), sigma=self.sigma)
        return {"image": image, "target": target, "known": known}

    def _crop(self, sample: Sample, rng: np.random.Generator) -> Crop:
        box = sample.box
        if rng.random() < self.rules.half_body:
            box = half_body_box(sample.joints, sample.skeleton, rng, default=box)
        spec = self.spec
        return crop_of_box(box, spec.input, context=spec.context, centre=spec.crop_centre)


def joint_state(joints: F32, size: tuple[int, int]) -> NDArray[np.int64]:
    """(J,) INSIDE or OUTSIDE a crop of `size` (width, height), UNKNOWN where `joints` is NaN.

    A joint that is annotated but lies outside the crop is known to be absent from it; one that
    is not annotated may or may not be there.
    """
    missing = np.isnan(joints).any(-1)
    filled = np.nan_to_num(joints)
    inside = ((filled >= 0) & (filled <= np.array(size) - 1)).all(-1)
    return np.where(missing, UNKNOWN, np.where(inside, INSIDE, OUTSIDE)).astype(np.int64)


def half_body_box(
    joints: F32, skeleton: Skeleton, rng: np.random.Generator, *, default: F32
) -> F32:
    """Box around the upper or the lower body, or `default` where too few joints are known."""
    lower = np.array([name.split("_")[-1] in ("hip", "knee", "ankle") for name in skeleton.joints])
    chosen = lower if rng.random() < 0.3 else ~lower
    half = joints[chosen]
    if (~np.isnan(half).any(-1)).sum() < _HALF_BODY_LEAST:
        return default
    box = box_of_joints(half, margin=0.1)
    return box if box[2:].min() > 4 else default


def worker_init(_: int) -> None:
    """Workers share the cores with the training; OpenCV must not start threads of its own."""
    cv2.setNumThreads(0)
