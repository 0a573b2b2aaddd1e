"""Losses of the two tasks; each takes raw network outputs and a batch of the data set."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from humanpose.data.dataset import INSIDE, OUTSIDE
from humanpose.nets.person import box_size

# The score must follow the position, not pull it about.
_SCORE_WEIGHT = 0.1
_HIT_SIGMA_CELLS = 3.0


def pose_loss(logits: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Where a joint is, and whether the net should be believed.

    Place: cross-entropy between the soft-max over the map and the Gaussian target, for joints
    inside the crop. Score: binary cross-entropy of the peak logit against how near the peak is
    to the truth (1 on it, falling with 3 cells; 0 for a joint known to lie outside the crop), so
    that its sigmoid becomes the chance of being right.

    Args:
        logits: (N, J, h, w).
        batch: "target" (N, J, h, w), "known" (N, J).

    Returns:
        The loss, and its parts "place" and "score" for the log.
    """
    flat = logits.float().flatten(2)
    target = batch["target"].flatten(2)
    known = batch["known"]
    inside = (known == INSIDE).float()
    mass = target.sum(-1, keepdim=True).clamp_min(1e-6)
    cross = -(target / mass * F.log_softmax(flat, -1)).sum(-1)
    place = (cross * inside).sum() / inside.sum().clamp_min(1)

    peak, found = flat.max(-1)
    width = logits.shape[-1]
    true = target.argmax(-1)
    across, down = found % width - true % width, found // width - true // width
    near = torch.exp(-(across**2 + down**2) / (2 * _HIT_SIGMA_CELLS**2)) * inside
    judged = inside + (known == OUTSIDE).float()
    each = F.binary_cross_entropy_with_logits(peak, near, reduction="none")
    score = (each * judged).sum() / judged.sum().clamp_min(1)
    return place + _SCORE_WEIGHT * score, {"place": place.detach(), "score": score.detach()}


def person_loss(
    raw: dict[str, Tensor], batch: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Focal loss of the centre map, and GIoU plus L1 of the box at cells near a centre.

    Args:
        raw: "centre" (N, 1, h, w), "size" (N, 2, h, w), "offset" (N, 2, h, w).
        batch: "centre", "box" (N, 4, h, w), "weight", "valid" of `data.people`.

    Source: focal loss as in Zhou et al. 2019, "Objects as Points", eq. 1; GIoU, Rezatofighi
    et al. 2019.
    """
    logits, target = raw["centre"].float(), batch["centre"]
    chance = torch.sigmoid(logits)
    positive = (target > 0.999).float()
    hit = F.logsigmoid(logits) * (1 - chance) ** 2 * positive
    empty = F.logsigmoid(-logits) * chance**2 * (1 - target) ** 4 * batch["valid"] * (1 - positive)
    people = positive.sum().clamp_min(1)
    centre = -(hit + empty).sum() / people

    weight = batch["weight"]
    true_size = batch["box"][:, 2:].clamp_min(1)
    size, offset = box_size(raw["size"].float()), raw["offset"].float() * _stride(batch)
    overlap = _giou(offset, size, batch["box"][:, :2], true_size)
    apart = torch.log(size / true_size).abs().sum(1) + (
        (offset - batch["box"][:, :2]) / true_size
    ).abs().sum(1)
    share = weight[:, 0] / weight.sum().clamp_min(1)
    box = ((1 - overlap + 0.5 * apart) * share).sum()
    return centre + 2 * box, {"centre": centre.detach(), "box": box.detach()}


def _stride(batch: dict[str, Tensor]) -> int:
    return int(batch["image"].shape[1] // batch["centre"].shape[2])


def _giou(offset: Tensor, size: Tensor, true_offset: Tensor, true_size: Tensor) -> Tensor:
    """(N, h, w) generalised IoU of boxes given by centre and size, (N, 2, h, w) each."""
    low, high = offset - size / 2, offset + size / 2
    true_low, true_high = true_offset - true_size / 2, true_offset + true_size / 2
    inside = (torch.minimum(high, true_high) - torch.maximum(low, true_low)).clamp_min(0).prod(1)
    around = (torch.maximum(high, true_high) - torch.minimum(low, true_low)).prod(1)
    union = size.prod(1) + true_size.prod(1) - inside
    return inside / union - (around - union) / around
