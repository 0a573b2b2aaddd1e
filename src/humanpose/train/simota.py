"""Which guesses of a detector answer for which person (SimOTA)."""

from __future__ import annotations

import torch
from torch import Tensor

from humanpose.nets.detector import STRIDES, cells

_NEAR = 1.5  # strides from the middle of a person
_VOTES = 10  # best overlaps whose sum says how many guesses a person gets
_OVERLAP_COST = 3.0
_FAR_COST = 1e5


def places(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """(A, 2) middles of all cells, pixels, and (A,) their strides, of an input (width, height)."""
    width, height = size
    middles, strides = [], []
    for stride in STRIDES:
        grid = cells(height // stride, width // stride, device)
        middles.append((grid + 0.5) * stride - 0.5)
        strides.append(torch.full((len(grid),), float(stride), device=device))
    return torch.cat(middles), torch.cat(strides)


def overlap_of(a: Tensor, b: Tensor) -> Tensor:
    """(...) IoU of boxes (..., 4), middle x, y, width, height, one by one."""
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    shared = (high - low).clamp_min(0).prod(-1)
    return shared / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared).clamp_min(1e-6)


@torch.no_grad()
def assign(
    boxes: Tensor, chance: Tensor, people: Tensor, middles: Tensor, strides: Tensor
) -> tuple[Tensor, Tensor]:
    """Guesses that answer for somebody, (K,), and for whom, (K,).

    Args:
        boxes: (A, 4) guesses: middle x, y, width, height.
        chance: (A,) that each holds a person.
        people: (G, 4) as `boxes`.
        middles: (A, 2) of the cells.
        strides: (A,) of the cells.

    Source: Ge et al. 2021, "YOLOX", section 2.1; the official `get_assignments`.
    """
    away = (middles[None] - people[:, None, :2]).abs()  # (G, A, 2)
    inside = (away < people[:, None, 2:] / 2).all(2)
    near = (away < _NEAR * strides[None, :, None]).all(2)
    rows = torch.nonzero((inside | near).any(0))[:, 0]
    if not len(rows):
        return rows, rows
    pairs = people[:, None].expand(-1, len(rows), -1), boxes[rows].expand(len(people), -1, -1)
    overlap = overlap_of(*pairs)
    far = ~(inside & near)[:, rows]
    cost = -0.5 * torch.log(chance[rows].clamp_min(1e-8))[None]
    cost = cost - _OVERLAP_COST * torch.log(overlap + 1e-8) + _FAR_COST * far
    votes = overlap.topk(min(_VOTES, len(rows)), 1).values.sum(1).int().clamp_min(1)
    rank = cost.argsort(1).argsort(1)
    taken = rank < votes[:, None]
    # Whom two people want goes to the cheaper one.
    best = cost.masked_fill(~taken, torch.inf).min(0)
    wanted = taken.any(0)
    return rows[wanted], best.indices[wanted]
