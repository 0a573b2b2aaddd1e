"""Test-time augmentation: average heat maps over flips, scales and rotations.

Pose networks see few people in training who lie, lean or stand on their heads, and know them less
well, however they are turned in augmentation; a crop in which they are upright helps:
docs/training-log.md has what this gains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np

from humanpose.errors import InputError
from humanpose.geometry import Crop, augmented_crop, box_of_joints, compose, crop_of_box
from humanpose.skeleton import I64, Skeleton
from humanpose.spec import ModelSpec
from humanpose.types import F32

# Of the CPM release: its benchmark script's scales, and its demo's, which span 0.8 to 1.2 times a
# body of 1.2 times the given rectangle in steps of a sixth of an octave.
_BENCHMARK = tuple(round(0.7 + 0.1 * i, 1) for i in range(7))
_DEMO = tuple(2 ** (i / 6) / (1.2 * 1.2) for i in range(4))
_TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
_ZOOM = (0.7, 1.6)  # wrong joints must not make the upright crop useless


@dataclass(frozen=True, slots=True)
class TestTimeAugmentation:
    """Further crops of a person whose heat maps are averaged with those of the usual crop.

    As text: comma-separated "flip", "scales=LIST" and "upright=DEGREES"; "none" without any.

    Attributes:
        flip: also the mirrored crop (twice the time).
        scales: "" = the usual scale. Else multiples of it, "0.8:1:1.25"; or "benchmark" (0.7 to
            1.3) or "demo", those of the CPM release.
        upright: degrees of tilt from which a person is also seen in a crop turned upright; 0 = no
            such crop.

    Raises:
        InputError: if a value is not allowed.
    """

    __test__ = False  # not for pytest

    flip: bool = False
    scales: str = ""
    upright: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.upright <= 180:
            raise InputError(f"tta upright={self.upright:g}: write 0 to 180 degrees")
        self.zooms(1.0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the augmentation that `text` describes; "" and "none" are no augmentation.

        Raises:
            InputError: on an unknown item or a value that is not allowed.
        """
        values: dict[str, Any] = {}
        for item in text.split(",") if text not in ("", "none") else ():
            name, equals, value = item.strip().partition("=")
            if name in values or (name, bool(equals)) not in _ITEMS:
                raise InputError(
                    f"tta {text!r}: write flip, scales=0.8:1:1.25 and upright=60, with commas "
                    "between, or none"
                )
            try:
                values[name] = _ITEMS[name, bool(equals)](value)
            except ValueError as error:
                raise InputError(f"tta {item.strip()}: not a number") from error
        return cls(**values)

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        items = ["flip"] if self.flip else []
        items += [f"scales={self.scales}"] if self.scales else []
        items += [f"upright={self.upright:g}"] if self.upright else []
        return ",".join(items) or "none"

    def zooms(self, context: float) -> tuple[float, ...]:
        """Return multiples of the scale of a crop that shows `context` times the box.

        Raises:
            InputError: if `scales` is no list of positive numbers.
        """
        if self.scales == "benchmark":
            return _BENCHMARK
        if self.scales == "demo":
            return tuple(zoom * context for zoom in _DEMO)
        if not self.scales:
            return (1.0,)
        try:
            zooms = tuple(float(part) for part in self.scales.split(":"))
        except ValueError:
            zooms = (0.0,)
        if not all(0.1 <= zoom <= 10 for zoom in zooms):
            raise InputError(
                f"tta scales={self.scales}: write benchmark, demo, or numbers from 0.1 to 10 with "
                "colons between"
            )
        return zooms


# Item and whether a value follows it -> how that is read.
_ITEMS: dict[tuple[str, bool], Callable[[str], Any]] = {
    ("flip", False): lambda _: True,
    ("scales", True): str,
    ("upright", True): float,
}


def unflipped(maps: F32, flip_index: Sequence[int], *, shifted: bool) -> F32:
    """Turn back the maps (..., K, h, w) of mirrored crops.

    Args:
        maps: of the mirrored crops.
        flip_index: (K,) map that holds each joint's mirror image.
        shifted: move them right by one cell, the first column kept (HRNet's SHIFT_HEATMAP).
    """
    back = maps[..., list(flip_index), :, ::-1]
    if shifted:
        back = np.concatenate([back[..., :1], back[..., :-1]], axis=-1)
    return back


def merge_maps(maps: F32, cells: Sequence[Crop], target: Crop) -> F32:
    """Average the maps (Z, ..., h, w) of Z crops: the mean of what they say of `target`'s cells.

    A crop says nothing (0) of what lies outside it, as CPM's benchmark script has it.

    Args:
        maps: of one person.
        cells: Z, picture pixel -> cell of the crop's maps.
        target: the same for the result, of any resolution; its size is the result's (w, h).

    Returns:
        (..., h, w) float32.
    """
    width, height = target.size
    total = np.zeros((*maps.shape[1:-2], height, width), np.float32)
    flat = total.reshape(-1, height, width)
    for look, crop in zip(maps, cells, strict=True):
        matrix = compose(target.matrix, np.asarray(cv2.invertAffineTransform(crop.matrix)))
        for into, one in zip(flat, look.reshape(-1, *look.shape[-2:]), strict=True):
            into += cv2.warpAffine(one, matrix, target.size, flags=cv2.INTER_CUBIC)
    total /= len(maps)
    return total


def torso_of(skeleton: Skeleton) -> I64:
    """Return the rows (2, 2) of shoulders and hips, which give the tilt; (0, 2) without them."""
    there = set(_TORSO) <= set(skeleton.joints)
    rows = [skeleton.index(name) for name in _TORSO] if there else []
    return np.array(rows, np.int64).reshape(-1, 2)


def upright_crop(crop: Crop, joints: F32, tilt: float, spec: ModelSpec) -> Crop:
    """Return a crop that shows the person of `crop` upright, of the same size.

    Args:
        crop: the usual one.
        joints: (J, 2) found there, picture pixels.
        tilt: of `tilts`.
        spec: of the network: context of the box around these joints, centre of crops.
    """
    turned = augmented_crop(crop, rotation=tilt, centre=spec.crop_centre)
    # Fitted anew: a body that lies had to fit into the width, and now has the height.
    box = box_of_joints(turned.to_crop(joints))
    fitted = crop_of_box(box, crop.size, context=spec.context, centre=spec.crop_centre, zoom=_ZOOM)
    return Crop(compose(fitted.matrix, turned.matrix), crop.size)
