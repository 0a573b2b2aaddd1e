"""Training data of a pose network: one crop a person, with heat-map targets.

Box -> crop, composed with random changes -> one warp -> random changes of pixels -> joints in
pixels of the crop -> target maps (targets.py) and the state of each joint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose.data.augment import Augmentation, cut_off, generator, random_crop, random_pixels
from humanpose.data.pack import PackedSample, image_of
from humanpose.data.targets import (
    INSIDE,
    OUTSIDE,
    UNKNOWN,
    Targets,
    carried,
    in_pixels_of,
    neighbours,
)
from humanpose.geometry import Crop, box_of_joints, crop_of_box
from humanpose.skeleton import Skeleton, convert, joint_map
from humanpose.spec import ModelSpec
from humanpose.types import F32, Sample

Batchable = dict[str, NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.int64]]

_HALF_BODY_LEAST = 4  # joints of a half that make a sensible crop
_HRNET_HALF_BODY_LEAST = 8


@dataclass(frozen=True, eq=False)
class PoseDataset:
    """Persons as crops; indexed by (epoch, sample), or with `sizes` by (epoch, sample, size)."""

    samples: Sequence[Sample]  # of any skeletons, in pictures of their own or in packs
    spec: ModelSpec  # input, context, stride, grid, pad and skeleton of the maps are used
    rules: Augmentation
    _: KW_ONLY
    seed: int = 0  # of the run
    targets: Targets = Targets()
    taught: bool = False  # give the maps of the packs' teacher; samples must pass `has_teacher`
    all_people: Sequence[Sample] | None = None  # for targets that show them all; None = `samples`
    sizes: Sequence[tuple[int, int]] = ()  # (width, height) of crops in place of `spec.input`

    @cached_property
    def _others(self) -> list[tuple[Sample, ...]]:
        """Other people in the picture of each sample, where the targets show them."""
        return neighbours(self.samples, self.all_people) if self.targets.rule == "cpm" else []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, ...]) -> Batchable:
        """Return image (H, W, 3) uint8, known (J,): INSIDE, OUTSIDE ..., and maps of `targets`."""
        epoch, index, *size = key
        spec = self.spec
        if self.sizes:
            spec = replace(spec, input=self.sizes[size[0] if size else 0])
        sample = self.samples[index]
        rng = generator(self.seed, epoch, index)
        crop, flipped = random_crop(self._crop(sample, spec, rng), self.rules, rng)
        image = random_pixels(crop.cut(image_of(sample), spec.pad), self.rules, rng)
        skeleton = spec.skeleton
        joints = joints_in(crop, sample, skeleton, flipped)
        if self.rules.cut and rng.random() < self.rules.cut:
            image, joints = cut_off(image, joints, spec.pad, rng)
        known = joint_state(joints, crop.size)
        others = np.empty((0, *joints.shape), np.float32)
        if self._others and self._others[index]:
            moved = [replace(o, joints=in_pixels_of(sample, o)) for o in self._others[index]]
            others = np.stack([joints_in(crop, o, skeleton, flipped) for o in moved])
        maps = self.targets.maps(joints, known, others, spec)
        if self.taught and isinstance(sample, PackedSample) and sample.cells and sample.teacher:
            given = sample.teacher_maps()
            maps["teacher"] = carried(
                given, sample.cells, sample.teacher, crop, spec, flipped=flipped
            )
        return {"image": image, "known": known, **maps}

    def _crop(self, sample: Sample, spec: ModelSpec, rng: np.random.Generator) -> Crop:
        box = sample.box
        if rng.random() < self.rules.half_body:
            half = hrnet_half_body_box if self.rules.rule == "hrnet" else half_body_box
            box = half(sample.joints, sample.skeleton, rng, default=box)
        return crop_of_box(box, spec.input, context=spec.context, centre=spec.crop_centre)


def has_teacher(sample: Sample, skeleton: Skeleton) -> bool:
    """Return whether `sample` has a teacher's maps of all joints of `skeleton`."""
    teacher = sample.teacher if isinstance(sample, PackedSample) else None
    return teacher is not None and bool((joint_map(teacher, skeleton) >= 0).all())


def joints_in(crop: Crop, sample: Sample, skeleton: Skeleton, flipped: bool) -> F32:
    """Return joints (J, 2) of `sample` as `skeleton`'s, in pixels of a crop, maybe mirrored."""
    joints = crop.to_crop(convert(sample.joints, sample.skeleton, skeleton))
    return joints[skeleton.flip_index] if flipped else joints


def joint_state(joints: F32, size: tuple[int, int]) -> NDArray[np.int64]:
    """Return (J,): INSIDE or OUTSIDE a crop of `size` (width, height), UNKNOWN for NaN.

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
    """Return the box of the upper or lower body, or `default` where too few joints are known."""
    lower = _is_lower(skeleton)
    half = joints[lower if rng.random() < 0.3 else ~lower]
    if (~np.isnan(half).any(-1)).sum() < _HALF_BODY_LEAST:
        return default
    box = box_of_joints(half, margin=0.1)
    return box if box[2:].min() > 4 else default


def hrnet_half_body_box(
    joints: F32, skeleton: Skeleton, rng: np.random.Generator, *, default: F32
) -> F32:
    """Return a half-body box by HRNet's rule: with more than eight known joints, about their mean.

    Source: `JointsDataset.half_body_transform` of the official repository. Its coin (a normal
    number below 0.5) chooses the upper body in 69 % of the cases.
    """
    known, lower = ~np.isnan(joints).any(-1), _is_lower(skeleton)
    upper_joints, lower_joints = joints[known & ~lower], joints[known & lower]
    half = lower_joints if len(lower_joints) > 2 else upper_joints
    if rng.standard_normal() < 0.5 and len(upper_joints) > 2:
        half = upper_joints
    if known.sum() <= _HRNET_HALF_BODY_LEAST or len(half) < 2:
        return default
    # The original's crop is 1.5 times the joints' extent, ours `context` = 1.25 times the box.
    extent = 1.2 * np.ptp(half, axis=0)
    return np.concatenate([half.mean(0) - extent / 2, extent]).astype(np.float32)


def _is_lower(skeleton: Skeleton) -> NDArray[np.bool_]:
    return np.array([name.split("_")[-1] in ("hip", "knee", "ankle") for name in skeleton.joints])


def with_square_box(sample: Sample, rule: str) -> Sample:
    """Return `sample` with the box that HRNet ("hrnet") or CPM ("cpm") cut, by centre and scale.

    A square of 200 px x scale about the centre, HRNet's 15 px x scale lower. A sample without
    centre or scale keeps its own box.
    """
    if sample.centre is None or not np.isfinite(sample.scale):
        return sample
    side = 200 * sample.scale
    lower = {"hrnet": 15.0, "cpm": 0.0}[rule] * sample.scale
    corner = sample.centre + np.array([0, lower]) - side / 2
    return replace(sample, box=np.array([*corner, side, side], np.float32))


def worker_init(_: int) -> None:
    """Set up a loader's process: it shares the cores, so OpenCV starts no threads of its own."""
    cv2.setNumThreads(0)
