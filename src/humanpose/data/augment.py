"""Augmentation: random changes of a training crop's place and of its pixels.

Randomness is a function of (seed, epoch, sample), never of worker state, so that worker
count, resume and ranks cannot change the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose.geometry import Crop, augmented_crop, mirrored
from humanpose.types import F32, U8

_FAR = -1e4  # pixels; no Gaussian reaches from there into a crop


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Strengths of random changes; zero, or one for scales, turns a part off.

    `rule` says how scale, rotation, flip and half-body are drawn and in which order they are made:
    "own"; "hrnet" (Sun et al. 2019, SimpleBaseline too); "cpm" (Wei et al. 2016).

    `scale` is the (least, largest) zoom. own: log-uniform; cpm: uniform; hrnet: growth of the
    *box*, normal about 1 with the deviation that the largest is above 1, clipped to both.
    `rotation` is in degrees. own: largest, drawn from a triangle, so that upright stays common;
    cpm: largest, uniform; hrnet: deviation of a normal, clipped at its double.
    """

    # Recipes are checked by pydantic: a misspelt strength must not be passed over.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    rule: Literal["own", "hrnet", "cpm"] = "own"
    scale: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    rotation_chance: float = 0.6  # share of samples that are turned at all (cpm turns all)
    shift: float = 0.0  # largest movement as a share of the crop
    flip: float = 0.0  # chance of a mirror image
    half_body: float = 0.0  # chance of a crop around the upper or the lower body alone
    colour: float = 0.0  # strength of brightness, contrast, saturation and hue changes, 0 to 1
    degrade: float = 0.0  # chance of low resolution, blur or noise
    occlude: float = 0.0  # chance of a flat patch over part of the crop
    dark: float = 0.0  # chance of a half to a tenth of the light, with a sensor's noise
    cut: float = 0.0  # chance that the picture ends inside the crop; joints beyond are absent

    def __post_init__(self) -> None:
        chances = "rotation_chance flip half_body colour degrade occlude dark cut"
        for name in chances.split():
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be above 0, the lesser first, not {self.scale}")


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """Return counter-based random numbers of one sample in one epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, (epoch << 32) | sample]))


def random_crop(crop: Crop, rules: Augmentation, rng: np.random.Generator) -> tuple[Crop, bool]:
    """Return `crop` zoomed, rotated, moved and mirrored at random, and whether it was mirrored."""
    return {"own": _own, "hrnet": _hrnet, "cpm": _cpm}[rules.rule](crop, rules, rng)


def _own(crop: Crop, rules: Augmentation, rng: np.random.Generator) -> tuple[Crop, bool]:
    low, high = np.log(rules.scale[0]), np.log(rules.scale[1])
    flip = bool(rng.random() < rules.flip)
    turn = 0.0
    if rng.random() < rules.rotation_chance:
        turn = float(rng.triangular(-1, 0, 1)) * rules.rotation
    shift = (rng.uniform(-rules.shift, rules.shift), rng.uniform(-rules.shift, rules.shift))
    zoom = float(np.exp(rng.uniform(low, high)))
    return augmented_crop(crop, scale=zoom, rotation=turn, shift=shift, flip=flip), flip


def _hrnet(crop: Crop, rules: Augmentation, rng: np.random.Generator) -> tuple[Crop, bool]:
    """`JointsDataset.__getitem__` of the official repository: mirrored first, about the box."""
    low, high = rules.scale
    growth = float(np.clip(1 + (high - 1) * rng.standard_normal(), low, high))
    most = 2 * rules.rotation
    turn = float(np.clip(rules.rotation * rng.standard_normal(), -most, most))
    if rng.random() > rules.rotation_chance:
        turn = 0.0
    flip = bool(rng.random() < rules.flip)
    if flip:
        crop = mirrored(crop, crop.size[0] / 2)
    return augmented_crop(crop, scale=1 / growth, rotation=turn, centre="w/2"), flip


def _cpm(crop: Crop, rules: Augmentation, rng: np.random.Generator) -> tuple[Crop, bool]:
    """`CPMDataTransformer` of the release: scale, rotate, crop about the person, mirror last."""
    zoom = float(rng.uniform(*rules.scale))
    turn = float(rng.uniform(-rules.rotation, rules.rotation))
    shift = (rng.uniform(-rules.shift, rules.shift), rng.uniform(-rules.shift, rules.shift))
    flip = bool(rng.random() < rules.flip)
    crop = augmented_crop(crop, scale=zoom, rotation=turn, shift=shift, centre="w/2")
    return (mirrored(crop, (crop.size[0] - 1) / 2) if flip else crop), flip


def random_pixels(image: U8, rules: Augmentation, rng: np.random.Generator) -> U8:
    """Return a copy of `image` (H, W, 3) with random colour, resolution and occlusion."""
    if rules.colour and rng.random() < 0.8:
        image = _colour(image, rules.colour, rng)
    # Nothing is drawn for what is off and younger than the others: old runs stay what they were.
    if rules.dark and rng.random() < rules.dark:
        light = 2 ** -rng.uniform(1, 3.3)
        image = _noisy(image * light, rng.uniform(1, 5), rng)
    if rng.random() < rules.degrade:
        image = _degrade(image, rng)
    if rng.random() < rules.occlude:
        image = _occlude(image, rng)
    return image


def _colour(image: U8, strength: float, rng: np.random.Generator) -> U8:
    # One 3x3 matrix and a shift: contrast and colour cast on the diagonal, saturation by mixing
    # in the grey value. A per-channel table could not mix, a float image costs five times more.
    gain = 1 + strength * rng.uniform(-0.4, 0.4)
    cast = 1 + strength * rng.uniform(-0.12, 0.12, 3)
    saturation = 1 + strength * rng.uniform(-0.6, 0.4)
    grey = np.tile(np.array([0.299, 0.587, 0.114]), (3, 1))
    mix = np.diag(gain * cast) @ (saturation * np.eye(3) + (1 - saturation) * grey)
    shift = strength * rng.uniform(-40, 40) + 128 * (1 - gain)
    matrix = np.concatenate([mix, np.full((3, 1), shift)], axis=1)
    return np.asarray(cv2.transform(image, matrix), np.uint8)


def _noisy(image: NDArray[Any], sigma: float, rng: np.random.Generator) -> U8:
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def cut_off(
    image: U8, joints: F32, pad: tuple[int, int, int], rng: np.random.Generator
) -> tuple[U8, F32]:
    """End the picture inside a crop (H, W, 3); return it and its joints (J, 2).

    A tenth to a half of it, on one side, is `pad` as beyond any picture's edge. Joints there are
    put far outside the crop.
    """
    axis, low = int(rng.integers(2)), bool(rng.integers(2))
    extent = image.shape[1 - axis]
    width = round(rng.uniform(0.1, 0.5) * extent)
    first, end = (0, width) if low else (extent - width, extent)
    image, joints = image.copy(), joints.copy()
    image.swapaxes(0, 1 - axis)[first:end] = pad
    # Pixel i spans i - 0.5 to i + 0.5.
    along = joints[:, axis]
    joints[(along < end - 0.5) if low else (along > first - 0.5)] = _FAR
    return image, joints


def _degrade(image: U8, rng: np.random.Generator) -> U8:
    kind = rng.integers(3)
    height, width = image.shape[:2]
    if kind == 0:
        factor = rng.uniform(0.25, 0.7)
        small = (max(8, int(width * factor)), max(8, int(height * factor)))
        low = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(low, (width, height)), np.uint8)
    if kind == 1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.0)), np.uint8)
    return _noisy(image, rng.uniform(3, 15), rng)


def _occlude(image: U8, rng: np.random.Generator) -> U8:
    image = image.copy()
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 3))):
        w, h = (int(rng.uniform(0.08, 0.3) * side) for side in (width, height))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return image
