"""Boxes (x, y, width, height, picture pixels), and crops: affines that are applied once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from humanpose.skeleton import I64
from humanpose.types import F32, F64, U8, ShapeRepr

_LEAST_TORSO = 0.2  # mean score of shoulders or hips below which the tilt is undefined
_LEAST = 2.0**-6  # scale of a crop below which nothing more is averaged
_BLURRED_FROM = 1.5  # what is left to shrink; the detector sees people in texture else


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Crop(ShapeRepr):
    """The part of a picture that a network sees, and the affine map between the two.

    Attributes:
        matrix: (2, 3) float64, picture pixel -> crop pixel, pixel centres at whole numbers.
        size: (width, height) of the crop, pixels.
    """

    matrix: F64
    size: tuple[int, int]

    def cut(self, image: U8, pad: tuple[int, int, int] = (0, 0, 0)) -> U8:
        """Cut (height, width, 3) out of `image` (H, W, 3); outside of it lies `pad` (RGB).

        One bilinear warp. Against aliasing, the part of the picture under the crop is first halved
        until the warp shrinks less than twofold, and blurred a little where it still shrinks much.
        """
        matrix = self.matrix
        (a, b, _), (c, d, _) = matrix.tolist()
        shrink = 1 / max(math.sqrt(abs(a * d - b * c)), _LEAST) + 1e-6
        if shrink >= 2:
            times = int(math.log2(shrink))
            image, matrix = _halved(image, matrix, self.size, times)
            if shrink / 2**times >= _BLURRED_FROM:
                image = np.asarray(cv2.GaussianBlur(image, (3, 3), 0), np.uint8)
        out = cv2.warpAffine(image, matrix, self.size, flags=cv2.INTER_LINEAR, borderValue=pad)
        return np.asarray(out, np.uint8)

    def to_crop(self, points: F32) -> F32:
        """Turn picture pixels (..., 2) into crop pixels (..., 2)."""
        return _apply(self.matrix, points)

    def to_picture(self, points: F32) -> F32:
        """Turn crop pixels (..., 2) into picture pixels (..., 2)."""
        return _apply(np.asarray(cv2.invertAffineTransform(self.matrix), np.float64), points)


def _apply(matrix: F64, points: F32) -> F32:
    moved = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(moved, np.float32)


def _halved(image: U8, matrix: F64, size: tuple[int, int], times: int) -> tuple[U8, F64]:
    """Return the part of `image` under the crop, halved `times` times, and the matrix to it.

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
    """Return the first pixel and the number of blocks under a crop, on one axis of a picture.

    Args:
        row: of the affine crop pixel -> picture pixel, for this axis.
        size: of the crop.
        length: of the picture, pixels.
        factor: pixels of a block.
    """
    x, y, start = row[0] * size[0], row[1] * size[1], row[2]
    low = math.floor(start + min(x, 0.0) + min(y, 0.0)) - factor
    high = math.ceil(start + max(x, 0.0) + max(y, 0.0)) + factor
    low, high = min(max(low, 0), length), min(max(high, 0), length)
    return low, (high - low) // factor


def box_of_joints(joints: F32, *, margin: float = 0.0) -> F32:
    """Return the tight box (..., 4) of the joints (..., J, 2) that are not NaN, grown by a margin.

    Args:
        joints: picture pixels; NaN = missing.
        margin: growth on each side as a share of the longer side.

    Returns:
        x, y, width, height; all NaN if no joint is known.
    """
    known = ~np.isnan(joints).any(-1, keepdims=True)
    low = np.where(known, joints, np.inf).min(-2, initial=np.inf)
    extent = np.where(known, joints, -np.inf).max(-2, initial=-np.inf) - low
    found = np.isfinite(low)
    low, extent = np.where(found, low, np.nan), np.where(found, extent, np.nan)
    grow = margin * extent.max(-1, keepdims=True)
    return np.concatenate([low - grow, extent + 2 * grow], axis=-1).astype(np.float32)


def box_of_picture(image: U8) -> F32:
    """Return the box (1, 4) of a whole picture (H, W, 3)."""
    height, width = image.shape[:2]
    return np.array([[0, 0, width, height]], np.float32)


def crop_of_box(
    box: F32,
    size: tuple[int, int],
    *,
    context: float = 1.25,
    centre: str = "w/2",
    zoom: tuple[float, float] = (0.0, math.inf),
) -> Crop:
    """Return the crop that shows `box` in a network input of `size` (width, height).

    The box grows around its centre to the input's aspect ratio, then by `context`.

    Args:
        box: x, y, width, height, picture pixels; a side below one pixel counts as one.
        size: of the network input, pixels.
        context: growth of the box that the network was trained with.
        centre: crop pixel that the box centre falls on: "w/2" (HRNet's rule) or "(w-1)/2".
        zoom: least and most crop pixels for a picture pixel.

    Source: HRNet's `_xywh2cs` and `get_affine_transform` (box / 200 and back cancel out).
    """
    x, y, width, height = np.asarray(box, np.float64).tolist()
    scale = min(size[0] / max(width, 1.0), size[1] / max(height, 1.0)) / context
    scale = min(max(scale, zoom[0]), zoom[1])
    return crop_around((x + width / 2, y + height / 2), scale, size, centre=centre)


def crop_of_picture(
    picture: tuple[int, int], size: tuple[int, int], *, centre: str = "w/2"
) -> Crop:
    """Scale the whole `picture` (width, height) into `size`, its middle on the crop's middle."""
    scale = min(size[0] / picture[0], size[1] / picture[1])
    # The picture spans -0.5 ... w - 0.5, so its middle is (w - 1) / 2 under either rule for crops.
    middle = ((picture[0] - 1) / 2, (picture[1] - 1) / 2)
    return crop_around(middle, scale, size, centre=centre)


def crop_around(
    middle: tuple[float, float], scale: float, size: tuple[int, int], *, centre: str = "w/2"
) -> Crop:
    """Return the crop of `size` that shows picture pixel `middle` in its middle, scaled."""
    x, y = _centre(size, centre)
    matrix = [[scale, 0, x - scale * middle[0]], [0, scale, y - scale * middle[1]]]
    return Crop(np.array(matrix, np.float64), size)


def _centre(size: tuple[int, int], rule: str) -> tuple[float, float]:
    """Return the middle of a crop of `size` by a spec's rule, crop pixels."""
    less = {"w/2": 0.0, "(w-1)/2": 0.5}[rule]
    return size[0] / 2 - less, size[1] / 2 - less


def crop_of_height(picture: tuple[int, int], height: int, multiple: int) -> Crop:
    """Scale the whole `picture` (width, height) to `height`; pad right and below to a `multiple`.

    Source: the CPM release's Python demo, which brings every picture to the box size.
    """
    scale = height / picture[1]
    size = (-(-round(picture[0] * scale) // multiple) * multiple, -(-height // multiple) * multiple)
    # The pictures' corners, half a pixel outside their first pixels' centres, coincide.
    return Crop(np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]]), size)


def compose(outer: F64, inner: F64) -> F64:
    """Return the (2, 3) affine that applies `inner` first, then `outer`."""
    linear = outer[:, :2] @ inner[:, :2]
    shift = outer[:, :2] @ inner[:, 2] + outer[:, 2]
    return np.concatenate([linear, shift[:, None]], axis=1)


def augmented_crop(
    crop: Crop,
    *,
    scale: float = 1.0,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
    centre: str = "(w-1)/2",
) -> Crop:
    """Zoom, turn, move and mirror the content of `crop` about the crop's middle.

    Args:
        crop: the crop to alter.
        scale: above 1 the person appears larger.
        rotation: degrees, counter-clockwise in picture view.
        shift: x, y movement of the content as a share of the crop's width and height.
        flip: mirror left and right; the caller swaps the skeleton's pairs.
        centre: where the crop's middle is, "(w-1)/2" or "w/2".
    """
    width, height = crop.size
    middle = np.array(_centre(crop.size, centre))
    angle = np.deg2rad(rotation)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]])  # y points down: this turns counter-clockwise
    if flip:
        linear = np.diag([-1.0, 1.0]) @ linear
    move = np.array([shift[0] * width, shift[1] * height])
    alter = np.concatenate([linear, (middle + move - linear @ middle)[:, None]], axis=1)
    return Crop(compose(alter, crop.matrix), crop.size)


def mirrored(crop: Crop, axis: float) -> Crop:
    """Exchange left and right of `crop` about the crop pixel column `axis`."""
    mirror = np.array([[-1.0, 0.0, 2 * axis], [0.0, 1.0, 0.0]])
    return Crop(compose(mirror, crop.matrix), crop.size)


def iou(a: F32, b: F32) -> F32:
    """Return the IoU (N, M) of boxes a (N, 4) and b (M, 4); 0 where both are empty."""
    inside = overlap(a, b)
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    union = area_a[:, None] + area_b[None] - inside
    return np.asarray(inside / np.maximum(union, 1e-9), np.float32)


def overlap(a: F32, b: F32) -> F32:
    """Return the area (N, M) that boxes a (N, 4) and b (M, 4) share, square pixels."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    sides = np.maximum(high - low, 0)
    return np.asarray(sides[..., 0] * sides[..., 1], np.float32)


def similarity(joints: F32, truth: F32, area: F32 | F64, sigmas: F64) -> F64:
    """Return the object keypoint similarity (..., J), in [0, 1]; NaN where `truth` is.

    Args:
        joints: (..., J, 2) picture pixels; NaN counts as infinitely far.
        truth: (..., J, 2) what they are compared with.
        area: (...) of the person, square pixels.
        sigmas: (J,) constants of the skeleton.

    Source: cocodataset.org, "Keypoint evaluation": exp(-d^2 / (2 area (2 sigma)^2)).
    """
    squared = ((np.asarray(joints, np.float64) - truth) ** 2).sum(-1)
    away = squared / (2 * (2 * sigmas) ** 2 * (np.asarray(area)[..., None] + np.spacing(1)))
    near = np.exp(-np.nan_to_num(away, nan=np.inf, posinf=np.inf))
    return np.asarray(np.where(np.isnan(truth).any(-1), np.nan, near), np.float64)


def nms(boxes: F32, scores: F32, *, threshold: float) -> I64:
    """Return the indices kept by greedy non-maximum suppression, best score first.

    Args:
        boxes: (N, 4) x, y, width, height.
        scores: (N,).
        threshold: a box whose IoU with a better kept one is above this is dropped.
    """
    order = np.argsort(-scores, kind="stable")
    apart = iou(boxes, boxes) <= threshold
    kept: list[int] = []
    while len(order):
        kept.append(int(order[0]))
        order = order[1:][apart[order[0], order[1:]]]
    return np.array(kept, np.int64)


def tilts(joints: F32, scores: F32, torso: I64) -> F32:
    """Return (N,) degrees by which torsos are turned clockwise, in picture view, from upright.

    Args:
        joints: (N, J, 2) picture pixels.
        scores: (N, J).
        torso: (2, 2) rows of both shoulders and both hips.

    Returns:
        -180 ... 180; 0 where the mean score of shoulders or hips is below 0.2.
    """
    ends = joints[:, torso].sum(2)  # twice the middles of shoulders and hips
    up = ends[:, 0] - ends[:, 1]
    sure = (scores[:, torso].sum(2) >= 2 * _LEAST_TORSO).all(1)
    tilt = np.degrees(np.arctan2(up[:, 0], -up[:, 1]))  # y points down
    return np.where(sure, tilt, 0).astype(np.float32)
