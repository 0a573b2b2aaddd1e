"""Heat maps: Gaussian targets from joints, and joints from maps.

The only reader of a spec's `stride` and `grid`. Cell i of a map lies at crop pixel
`stride * i` (grid "corner": HRNet's targets) or `stride * (i + 0.5) - 0.5` (grid "centre":
CPM's, and this project's own nets).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from humanpose.geometry import Crop
from humanpose.skeleton import I64
from humanpose.types import F32, F64

# The cells of a 3x3 window, x and y from its middle, and the weight of each in the differences
# there: d/dx, d/dy, d2/dx2, d2/dy2, d2/dxdy.
_WINDOW = np.array([[x, y] for y in (-1, 0, 1) for x in (-1, 0, 1)])
_DIFFERENCES = np.array(
    [
        [0, 0, 0, 0, 0.25],
        [0, -0.5, 0, 1, 0],
        [0, 0, 0, 0, -0.25],
        [-0.5, 0, 1, 0, 0],
        [0, 0, -2, -2, 0],
        [0.5, 0, 1, 0, 0],
        [0, 0, 0, 0, -0.25],
        [0, 0.5, 0, 1, 0],
        [0, 0, 0, 0, 0.25],
    ]
)


def _grid_shift(stride: int, grid: str) -> float:
    return {"corner": 0.0, "centre": (stride - 1) / 2}[grid]


def to_cells(points: F32, stride: int, grid: str) -> F32:
    """Turn crop pixels (..., 2) into heat-map cells (..., 2), not rounded."""
    return np.asarray((points - _grid_shift(stride, grid)) / stride, np.float32)


def to_pixels(cells: F32, stride: int, grid: str) -> F32:
    """Turn heat-map cells (..., 2) into crop pixels (..., 2)."""
    return np.asarray(cells * stride + _grid_shift(stride, grid), np.float32)


def cells_of(crop: Crop, stride: int, grid: str) -> Crop:
    """Return the map picture pixel -> heat-map cell for a network's maps of `crop`."""
    width, height = crop.size
    matrix = crop.matrix - np.array([0, 0, _grid_shift(stride, grid)])
    return Crop(matrix / stride, (width // stride, height // stride))


def mirror_axis(cells: int, stride: int, grid: str) -> float:
    """Return the crop pixel column about which a mirror maps a row of `cells` onto itself.

    For "corner" it is not the crop's middle: HRNet's flip test mirrors there and shifts the maps by
    one cell.
    """
    return (cells - 1) / 2 * stride + _grid_shift(stride, grid)


def encode(cells: F32, shape: tuple[int, int], *, sigma: float) -> F32:
    """Make Gaussian target maps with peak 1 at the exact, not the rounded, position.

    Args:
        cells: (..., 2) x, y in heat-map cells; NaN makes an empty map.
        shape: (h, w) of the maps.
        sigma: standard deviation in cells.

    Returns:
        (..., h, w) float32. Separable: the outer product of two 1-D Gaussians.
    """
    h, w = shape
    known = np.asarray(~np.isnan(cells).any(-1))
    x, y = np.nan_to_num(cells[..., 0]), np.nan_to_num(cells[..., 1])
    across = np.exp(-((np.arange(w) - x[..., None]) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(h) - y[..., None]) ** 2) / (2 * sigma**2))
    # Rounded before the product, which is most of the work of a training sample's targets.
    across, down = across.astype(np.float32), (down * known[..., None]).astype(np.float32)
    return np.asarray(down[..., :, None] * across[..., None, :])


def decode(maps: F32, rule: str) -> tuple[F32, F32]:
    """Find joint positions and scores in heat maps.

    Args:
        maps: (..., h, w), h and w at least 3.
        rule: a key of DECODERS.

    Returns:
        cells: (..., 2) x, y in cells.
        scores: (...,) value at the peak, not clipped.

    Raises:
        ValueError: on an unknown rule.
    """
    if rule not in DECODERS:
        raise ValueError(f"decode rule {rule!r} is not one of {', '.join(DECODERS)}")
    *lead, h, w = maps.shape
    cells, scores = DECODERS[rule](maps.reshape(-1, h, w))
    return cells.reshape(*lead, 2).astype(np.float32), scores.reshape(lead).astype(np.float32)


def decode_crops(maps: F32, cells: Sequence[Crop], rule: str) -> tuple[F32, F32]:
    """Find joints (N, J, 2), picture pixels, and scores (N, J) in [0, 1] in maps (N, J, h, w).

    Args:
        maps: without background.
        cells: N, picture pixel -> cell.
        rule: a key of DECODERS.
    """
    found, scores = decode(maps, rule)
    joints = [where.to_picture(points) for where, points in zip(cells, found, strict=True)]
    return np.stack(joints), np.minimum(np.maximum(scores, 0), 1)


def _argmax(maps: F32) -> tuple[I64, F32]:
    n, h, w = maps.shape
    flat = maps.reshape(n, h * w)
    best = flat.argmax(-1)
    return np.stack([best % w, best // w], -1), flat[np.arange(n), best]


def _inner(cells: I64, w: int, h: int) -> I64:
    """Return the nearest cells (N, 2) whose 3x3 neighbourhoods are inside maps of (h, w)."""
    # Not np.clip, which is mostly Python and takes three times as long.
    return np.asarray(np.minimum(np.maximum(cells, 1), (w - 2, h - 2)))


def _quarter(maps: F32) -> tuple[F64, F32]:
    """Move peaks by 0 or a quarter cell; not on the rim, as in HRNet's `get_final_preds`."""
    n, h, w = maps.shape
    cells, scores = _argmax(maps)
    rows = np.arange(n)
    inner = _inner(cells, w, h)
    x, y = inner.T
    right = np.sign(maps[rows, y, x + 1] - maps[rows, y, x - 1])
    down = np.sign(maps[rows, y + 1, x] - maps[rows, y - 1, x])
    step = 0.25 * np.stack([right, down], -1) * (inner == cells).all(1)[:, None]
    return np.asarray(cells + step, np.float64), scores


def _dark(maps: F32) -> tuple[F64, F32]:
    """Move each peak to that of the parabola through the log map around it.

    On the rim the 3x3 window moves one cell inwards: the log of a Gaussian is a parabola
    everywhere, so the step from there is as exact, only longer.
    """
    n, h, w = maps.shape
    cells, scores = _argmax(maps)
    inner = _inner(cells, w, h)
    middle = inner @ (1, w) + h * w * np.arange(n)
    window = maps.reshape(-1)[middle[:, None] + _WINDOW @ (1, w)]
    log = np.log(np.maximum(window, 1e-10), dtype=np.float64)  # (N, 9)
    dx, dy, dxx, dyy, dxy = (log @ _DIFFERENCES).T
    det = dxx * dyy - dxy * dxy
    peaked = (dxx < 0) & (det > 1e-9)  # a saddle or a plateau says nothing: stay on the cell
    step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1)
    step /= np.where(peaked, det, np.inf)[:, None]
    found = inner + np.minimum(np.maximum(step, -1.5), 1.5)
    return np.asarray(np.where(peaked[:, None], found, cells), np.float64), scores


# Rule -> maps (N, h, w) to peaks (N, 2), x, y in cells, and their values (N,). "quarter": a quarter
# cell toward the higher neighbour (HRNet). "dark": one Newton step on the log map (Zhang et al.
# 2020, "Distribution-Aware Coordinate Representation", eq. 7, without smoothing).
DECODERS: dict[str, Callable[[F32], tuple[F64 | I64, F32]]] = {
    "argmax": _argmax,
    "quarter": _quarter,
    "dark": _dark,
}
