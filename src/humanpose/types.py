"""The values that travel: Frame, Person, Sample, Crop, Score.

Pixels: x then y, 0-based, pixel centres at whole numbers. Boxes: x, y, width, height.
A missing joint is NaN with score 0. Pictures are RGB uint8 (H, W, 3). Times are seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose.errors import InputError
from humanpose.skeleton import COCO17, Skeleton

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

_LEAST = 2.0**-6  # scale of a crop below which nothing more is averaged
_BLURRED_FROM = 1.5  # what is left to shrink; the person network sees people in texture else


def option(default: Any, text: str, **limits: Any) -> Any:
    """A field of an options class.

    Args:
        default: its value where none is given.
        text: help.
        limits: "min", "max" or "choices", which `check_options` holds; "metavar" for the help.
    """
    return field(default=default, metadata={"help": text, **limits})


def check_options(options: Any) -> None:
    """Raise an InputError if a field of `options`, a dataclass, is outside its limits."""
    for each in fields(options):
        value, limits = getattr(options, each.name), each.metadata
        choices = limits.get("choices", (value,))
        if value not in choices:
            known = ", ".join(choice for choice in choices if choice)
            raise InputError(f"{each.name} {value!r} is not one of {known}")
        for word, sign in (("least", 1), ("most", -1)):
            limit = limits.get("min" if sign > 0 else "max")
            if value is not None and limit is not None and not sign * value >= sign * limit:
                raise InputError(f"{each.name} must be at {word} {limit}, not {value}")


def _brief(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return repr(value)


class _Shapes:
    """`repr` with array shapes in place of array contents."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = self.__dataclass_fields__  # type: ignore[attr-defined]
        inside = ", ".join(f"{name}={_brief(getattr(self, name))}" for name in names)
        return f"{type(self).__name__}({inside})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Crop(_Shapes):
    """Where a network's input lies in its picture; the only carrier of that knowledge.

    Attributes:
        matrix: (2, 3) float64, picture pixel -> crop pixel, pixel centres at whole numbers.
        size: (width, height) of the crop, pixels.
    """

    matrix: F64
    size: tuple[int, int]

    def cut(self, image: U8, pad: tuple[int, int, int] = (0, 0, 0)) -> U8:
        """The crop of `image` (H, W, 3): (height, width, 3), outside the picture `pad` (RGB).

        One bilinear warp. Before one that would shrink twofold or more, the part of the picture
        under the crop is halved until it does not, and blurred a little where it still shrinks by
        half, or fine texture would alias.
        """
        matrix = self.matrix
        (a, b, _), (c, d, _) = matrix.tolist()
        shrink = 1 / max(math.sqrt(abs(a * d - b * c)), _LEAST) + 1e-6
        if shrink >= 2:
            times = int(math.log2(shrink))
            image, matrix = _halved(image, matrix, self.size, times)
            if shrink / 2**times >= _BLURRED_FROM:
                image = np.asarray(cv2.GaussianBlur(image, (3, 3), 0), np.uint8)
        out = cv2.warpAffine(
            image,
            matrix,
            self.size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=pad,
        )
        return np.asarray(out, np.uint8)

    def to_crop(self, points: F32) -> F32:
        """Picture pixels (..., 2) -> crop pixels (..., 2)."""
        return _apply(self.matrix, points)

    def to_picture(self, points: F32) -> F32:
        """Crop pixels (..., 2) -> picture pixels (..., 2)."""
        return _apply(np.asarray(cv2.invertAffineTransform(self.matrix), np.float64), points)


def _apply(matrix: F64, points: F32) -> F32:
    moved = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(moved, np.float32)


def _halved(image: U8, matrix: F64, size: tuple[int, int], times: int) -> tuple[U8, F64]:
    """Part of `image` under the crop, halved so many `times`, and the matrix that fits it.

    Only halved: OpenCV takes a factor of 3 or 5 in six times as long.
    """
    factor = 2**times
    across, down = cv2.invertAffineTransform(matrix).tolist()
    left, columns = _under(across, size, image.shape[1], factor)
    top, rows = _under(down, size, image.shape[0], factor)
    if columns < 1 or rows < 1:
        return image, matrix
    small = image[top : top + rows * factor, left : left + columns * factor]
    for _ in range(times):
        half = (small.shape[1] // 2, small.shape[0] // 2)
        small = np.asarray(cv2.resize(small, half, interpolation=cv2.INTER_AREA), np.uint8)
    # Centre of small pixel i lies at left (top) + factor * i + (factor - 1) / 2.
    x, y = left + (factor - 1) / 2, top + (factor - 1) / 2
    (a, b, move_x), (c, d, move_y) = matrix.tolist()
    fitted = [
        [a * factor, b * factor, a * x + b * y + move_x],
        [c * factor, d * factor, c * x + d * y + move_y],
    ]
    return small, np.array(fitted)


def _under(row: list[float], size: tuple[int, int], length: int, factor: int) -> tuple[int, int]:
    """First pixel and number of blocks of `factor`, on one axis of a picture, under a crop.

    Args:
        row: of the affine crop pixel -> picture pixel, this axis'.
        size: of the crop.
        length: of the picture, pixels.
        factor: pixels of a block.
    """
    x, y, start = row[0] * size[0], row[1] * size[1], row[2]
    low = math.floor(start + min(x, 0.0) + min(y, 0.0)) - factor
    high = math.ceil(start + max(x, 0.0) + max(y, 0.0)) + factor
    low, high = min(max(low, 0), length), min(max(high, 0), length)
    return low, (high - low) // factor


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Person(_Shapes):
    """One person in one picture.

    Attributes:
        joints: (J, 2) float32 picture pixels, x then y; NaN = missing.
        scores: (J,) float32 in [0, 1]; 0 = missing.
        box: (4,) float32 x, y, width, height, picture pixels, tight around the person.
        score: of the person as a whole, in [0, 1].
        track: identity over time, None in single pictures.
        skeleton: meaning of the J rows.
        raw: (J, 2) joints before smoothing, None if nothing was smoothed.
        maps: (S, J, h, w) float16 heat maps of every stage, last stage last, without background;
            None unless they were asked for.
        cells: where `maps` lie: picture pixel -> heat-map cell, size (w, h).
    """

    joints: F32
    scores: F32
    box: F32
    score: float
    track: int | None = None
    skeleton: Skeleton = COCO17
    raw: F32 | None = None
    maps: NDArray[np.float16] | None = None
    cells: Crop | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Hand(_Shapes):
    """One hand of a person.

    Attributes:
        person: the hand itself: 21 joints, its box and scores.
        owner: row of whose hand it is in the frame's people.
        side: "left" or "right", the owner's own.
    """

    person: Person
    owner: int
    side: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Frame(_Shapes):
    """One picture of a source and the people found in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        index: 0-based number within its source.
        time: seconds since the start of the source, from the container; 0 for a picture.
        name: file name, or the source's name and frame number.
        people: found people, most certain first.
        hands: of these people, if a hand network was given.
        captured: `time.monotonic()` when a live source took it, None of what lies in a file.
    """

    image: U8
    index: int = 0
    time: float = 0.0
    name: str = ""
    people: tuple[Person, ...] = ()
    hands: tuple[Hand, ...] = ()
    captured: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """This frame's line of the result record (docs/formats.md)."""
        from humanpose.results import frame_record

        return frame_record(self)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sample(_Shapes):
    """One annotated person of a data set.

    Attributes:
        picture: path of the picture.
        joints: (J, 2) float32 picture pixels; NaN = not annotated.
        visible: (J,) uint8: 0 not annotated, 1 annotated but hidden, 2 visible.
        box: (4,) float32 x, y, width, height, tight, picture pixels.
        area: square pixels that OKS divides by.
        split: "train", "validation" or "test".
        origin: (data set, identifier of the person in it).
        skeleton: meaning of the J rows.
        head_size: pixels, by the set's own rule (MPII: 0.6 of the head box's diagonal), else from
            neck and head top (docs/data.md); NaN where it has neither.
        centre: (2,) float32 where the set says the person's middle is, picture pixels.
        scale: height of the person / 200 px, as MPII gives it; NaN where the set does not.
    """

    picture: Path
    joints: F32
    visible: U8
    box: F32
    area: float
    split: str
    origin: tuple[str, str]
    skeleton: Skeleton
    head_size: float = float("nan")
    centre: F32 | None = None
    scale: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Score(_Shapes):
    """A figure with the rule that made it.

    Attributes:
        rule: full name with threshold and normaliser, e.g. "PCK@0.2 torso".
        value: the pooled figure; NaN if nothing was counted.
        per_joint: (J,) the same per joint, NaN where a joint was never annotated.
        count: (J,) annotated joints that were scored.
        joints: J names.
    """

    rule: str
    value: float
    per_joint: F64 = field(default_factory=lambda: np.zeros(0))
    count: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    joints: tuple[str, ...] = ()
