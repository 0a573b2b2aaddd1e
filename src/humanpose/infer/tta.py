"""Several looks at one person made one: mirrored, turned, at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from humanpose.errors import InputError
from humanpose.geometry import compose
from humanpose.heatmap import DECODE_RULES
from humanpose.types import F32, Crop

COMPAT = ("matlab", "hrnet")
_CROPS = ("box", "picture-height")
# Of the CPM release: its benchmark script's scales, and its demo's, which span 0.8 to 1.2 times a
# body of 1.2 times the given rectangle in steps of a sixth of an octave.
_BENCHMARK = tuple(round(0.7 + 0.1 * i, 1) for i in range(7))
_DEMO = tuple(2 ** (i / 6) / (1.2 * 1.2) for i in range(4))


@dataclass(frozen=True, slots=True)
class Procedure:
    """How a pose network is applied to a box; every field has the network's own way as default.

    Attributes:
        flip: average with the mirrored crop (twice the time).
        scales: "" = one look. Else multiples of the usual scale, "0.8,1,1.25"; or "benchmark"
            (0.7 to 1.3) or "demo", those of the CPM release. The maps are averaged.
        crop: "box" (the crop spans the box and its context) or "picture-height" (it spans the
            picture's height around the box's middle, as the CPM release has it); "" = the spec's.
        decode: rule of heatmap.decode; "" = the spec's.
        keep_maps: give every person its heat maps.
        compat: "" = this project's own way; "matlab": maps enlarged to the picture, summed there,
            whole pixels (CPM's benchmark); "hrnet": the flip test mirrors the crop itself and
            moves the maps by one cell.
        second_look: degrees from upright from which a person is looked at a second time, in a crop
            turned upright, and the maps are averaged; 0 = nobody is, None = the network's own.
    """

    flip: bool = False
    scales: str = ""
    crop: str = ""
    decode: str = ""
    keep_maps: bool = False
    compat: str = ""
    second_look: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("crop", _CROPS), ("decode", DECODE_RULES), ("compat", COMPAT)):
            value = getattr(self, name)
            if value and value not in allowed:
                raise InputError(f"{name} {value!r} is not one of {', '.join(allowed)}")
        if self.second_look is not None and not 0 <= self.second_look <= 180:
            raise InputError(f"second look from {self.second_look:g} degrees: write 0 to 180")
        self.zooms(1.0)

    def __str__(self) -> str:
        """What differs from the network's own way, for a table; empty if nothing does."""
        parts = ["flip test"] if self.flip else []
        for name in ("scales", "crop", "decode", "compat"):
            if value := getattr(self, name):
                parts.append(f"{name} {value}")
        if self.second_look is not None:
            from_where = f"from {self.second_look:g} degrees" if self.second_look else "never"
            parts.append(f"second look {from_where}")
        return ", ".join(parts)

    def zooms(self, context: float) -> tuple[float, ...]:
        """Multiples of the crop's scale, for a crop that shows `context` times the box.

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
            zooms = tuple(float(part) for part in self.scales.split(","))
        except ValueError:
            zooms = (0.0,)
        if not all(0.1 <= zoom <= 10 for zoom in zooms):
            raise InputError(
                f"scales {self.scales!r}: write benchmark, demo, or numbers from 0.1 to 10 with "
                "commas between"
            )
        return zooms


def unflipped(maps: F32, flip_index: Sequence[int], *, shifted: bool) -> F32:
    """Maps (..., K, h, w) of mirrored crops, turned back.

    Args:
        maps: of the mirrored crops.
        flip_index: (K,) map that holds each joint's mirror image.
        shifted: move them right by one cell, the first column kept (HRNet's SHIFT_HEATMAP).
    """
    back = maps[..., list(flip_index), :, ::-1]
    if shifted:
        back = np.concatenate([back[..., :1], back[..., :-1]], axis=-1)
    return back


def averaged(maps: F32, cells: Sequence[Crop], target: Crop) -> F32:
    """Maps (Z, ..., h, w) of Z crops as the mean of what they say of `target`'s cells.

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
