"""Heat maps: Gaussian targets from joints, and joints from maps.

The only reader of a spec's `stride` and `grid`. Cell i of a map lies at crop pixel
`stride * i` (grid "corner": HRNet's targets) or `stride * (i + 0.5) - 0.5` (grid "centre":
CPM's, and this project's own nets).
"""

from __future__ import annotations

import numpy as np

from humanpose.geometry import compose
from humanpose.types import F32, Crop

DECODE_RULES = ("argmax", "quarter", "dark")


def _grid_shift(stride: int, grid: str) -> float:
    return {"corner": 0.0, "centre": (stride - 1) / 2}[grid]


def to_cells(points: F32, stride: int, grid: str) -> F32:
    """Crop pixels (..., 2) -> heat-map cells (..., 2), not rounded."""
    return np.asarray((points - _grid_shift(stride, grid)) / stride, np.float32)


def to_pixels(cells: F32, stride: int, grid: str) -> F32:
    """Heat-map cells (..., 2) -> crop pixels (..., 2)."""
    return np.asarray(cells * stride + _grid_shift(stride, grid), np.float32)


def cells_of(crop: Crop, stride: int, grid: str) -> Crop:
    """Picture pixel -> heat-map cell, for the maps that a network makes of `crop`."""
    shift = _grid_shift(stride, grid)
    to_cell = np.array([[1 / stride, 0, -shift / stride], [0, 1 / stride, -shift / stride]])
    width, height = crop.size
    return Crop(compose(to_cell, crop.matrix), (width // stride, height // stride))


def mirror_axis(cells: int, stride: int, grid: str) -> float:
    """Crop pixel column about which a mirror maps a grid of so many cells onto itself.

    For "corner" it is not the crop's middle: mirroring there would need a shift by one cell of
    the maps, which HRNet's flip test makes.
    """
    return (cells - 1) / 2 * stride + _grid_shift(stride, grid)


def encode(cells: F32, shape: tuple[int, int], *, sigma: float) -> F32:
    """Gaussian target maps with peak 1 at the exact, not the rounded, position.

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
    """Joint positions and scores from heat maps.

    Args:
        maps: (..., h, w), h and w at least 3.
        rule: "argmax"; "quarter", a quarter cell toward the higher neighbour (HRNet); or
            "dark", one Newton step on the log map (Zhang et al. 2020, "Distribution-Aware
            Coordinate Representation", eq. 7; without its smoothing, our maps being smooth).

    Returns:
        cells: (..., 2) x, y in cells.
        scores: (...,) value at the peak, not clipped.

    Raises:
        ValueError: on an unknown rule.
    """
    if rule not in DECODE_RULES:
        raise ValueError(f"decode rule {rule!r} is not one of {', '.join(DECODE_RULES)}")
    *lead, h, w = maps.shape
    flat = maps.reshape(-1, h * w)
    best = flat.argmax(-1)
    scores = flat[np.arange(len(flat)), best]
    x, y = best % w, best // w
    cells = np.stack([x, y], -1).astype(np.float32)
    if rule == "quarter":
        cells += _quarter_step(maps.reshape(-1, h, w), x, y)
    elif rule == "dark":
        cells = _dark_position(maps.reshape(-1, h, w), x, y)
    return cells.reshape(*lead, 2), scores.reshape(lead).astype(np.float32)


def _quarter_step(maps: F32, x: np.ndarray, y: np.ndarray) -> F32:
    """(N, 2) steps of 0 or a quarter cell; none on the rim, as in HRNet's `get_final_preds`."""
    n, h, w = maps.shape
    rows = np.arange(n)
    inner = (x > 0) & (x < w - 1) & (y > 0) & (y < h - 1)
    xi, yi = np.clip(x, 1, w - 2), np.clip(y, 1, h - 2)
    step = np.stack(
        [
            np.sign(maps[rows, yi, xi + 1] - maps[rows, yi, xi - 1]),
            np.sign(maps[rows, yi + 1, xi] - maps[rows, yi - 1, xi]),
        ],
        -1,
    )
    return np.asarray(0.25 * step * inner[:, None], np.float32)


def _dark_position(maps: F32, x: np.ndarray, y: np.ndarray) -> F32:
    """(N, 2) peak of the parabola through the log map around (x, y).

    On the rim the 3x3 window moves one cell inwards: the log of a Gaussian is a parabola
    everywhere, so the step from there is as exact, only longer.
    """
    n, h, w = maps.shape
    xi, yi = np.clip(x, 1, w - 2), np.clip(y, 1, h - 2)
    rows = np.arange(n)[:, None, None]
    reach = np.arange(-1, 2)
    window = maps[rows, (yi[:, None] + reach)[:, :, None], (xi[:, None] + reach)[:, None, :]]
    log = np.log(np.maximum(window, 1e-10)).astype(np.float64)  # (N, 3, 3), y then x
    dx = (log[:, 1, 2] - log[:, 1, 0]) / 2
    dy = (log[:, 2, 1] - log[:, 0, 1]) / 2
    dxx = log[:, 1, 2] - 2 * log[:, 1, 1] + log[:, 1, 0]
    dyy = log[:, 2, 1] - 2 * log[:, 1, 1] + log[:, 0, 1]
    dxy = (log[:, 2, 2] - log[:, 2, 0] - log[:, 0, 2] + log[:, 0, 0]) / 4
    det = dxx * dyy - dxy * dxy
    peaked = (dxx < 0) & (det > 1e-9)  # a saddle or a plateau says nothing: stay on the cell
    safe = np.where(peaked, det, 1.0)
    step = np.stack([(dxy * dy - dyy * dx) / safe, (dxy * dx - dxx * dy) / safe], -1)
    base = np.stack([xi, yi], -1)
    found = base + np.clip(step, -1.5, 1.5)
    cell = np.stack([x, y], -1)
    return np.where(peaked[:, None], found, cell).astype(np.float32)
