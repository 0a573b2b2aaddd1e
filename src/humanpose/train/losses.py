"""Losses of the tasks, and the label assignment (SimOTA) of the detector's.

Each loss takes raw network outputs and a batch of the data set.

A batch may be shared by several processes, whose gradients are averaged. So that the average is
the whole batch's, sums are divided by a `Share`: the whole batch's count over the processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from humanpose.data.targets import INSIDE, OUTSIDE, UNKNOWN
from humanpose.nets.detector import STRIDES, cells
from humanpose.train.config import Recipe

Batch = dict[str, Tensor]
Parts = dict[str, Tensor]
Share = Callable[[Tensor], Tensor]

# The score must follow the position, not pull it about.
_SCORE_WEIGHT = 0.1
_HIT_SIGMA_CELLS = 3.0
_BELIEVED = 0.1  # a teacher's peak below this is no answer
# Of SimOTA.
_NEAR = 1.5  # strides from the middle of a person
_VOTES = 10  # best overlaps whose sum says how many guesses a person gets
_OVERLAP_COST = 3.0
_FAR_COST = 1e5


def alone(count: Tensor) -> Tensor:
    """The `Share` of a single process: its count, at least 1."""
    return count.clamp_min(1)


def training_loss(
    out: Any, batch: Batch, recipe: Recipe, share: Share = alone
) -> tuple[Tensor, Parts]:
    """The recipe's loss.

    Args:
        out: what `train.loop.TrainModule` gave.
        batch: of the data set; "teacher" (N, S, K, h, w) is used where `distil` is above 0.
        recipe: its task, loss, `hardest` and `distil` are used.
        share: see above.

    Returns:
        The loss, and its parts for the log.
    """
    if recipe.task == "person":
        return person_loss(out, batch, share)
    if not recipe.distil:
        return _maps_loss(out, batch, recipe, share)
    taught, _ = _maps_loss(out, _of_teacher(batch, len(out), recipe), recipe, share)
    parts = {"teacher": taught.detach()}
    if recipe.distil == 1:
        return taught, parts
    true, more = _maps_loss(out, batch, recipe, share)
    return recipe.distil * taught + (1 - recipe.distil) * true, parts | more


def _of_teacher(batch: Batch, stages: int, recipe: Recipe) -> Batch:
    """`batch` with the teacher's maps as targets: "stages" (N, S, K, h, w), one for each stage.

    Of a teacher with more stages every second, third ... is taken, its last for the last
    (timctho's hand net: the student's stages 1, 2, 3 learn from 2, 4, 6).
    """
    maps = batch["teacher"].float()
    count = maps.shape[1]
    chosen = [max(0, round((i + 1) * count / stages) - 1) for i in range(stages)]
    last = maps[:, -1]
    known = torch.where(last.amax((2, 3)) > _BELIEVED, INSIDE, UNKNOWN)
    weight = torch.ones_like(known, dtype=torch.float32)
    if recipe.loss == "place":
        weight = (known == INSIDE).float()
    taught = {"stages": maps[:, chosen], "target": last, "known": known, "weight": weight}
    return batch | taught


def _maps_loss(
    maps: list[Tensor], batch: Batch, recipe: Recipe, share: Share
) -> tuple[Tensor, Parts]:
    """Sum over the stages of the recipe's loss."""
    stages = batch["stages"].unbind(1) if "stages" in batch else [batch["target"]] * len(maps)
    if "everyone" in batch and "stages" not in batch:
        stages = [batch["everyone"], *stages[1:]]
    each: list[Tensor] = []
    parts: Parts = {}
    for i, (found, target) in enumerate(zip(maps, stages, strict=True), 1):
        if recipe.loss == "place":
            loss, parts = pose_loss(found, batch | {"target": target}, share)
        else:
            loss = squared_loss(found, target, batch["weight"], hardest=recipe.hardest)
            if recipe.loss == "cpm":
                loss = loss * target[0].numel()
            if len(maps) > 1:
                parts[f"stage_{i}"] = loss.detach()
        each.append(loss)
    return torch.stack(each).sum(), parts


def squared_loss(maps: Tensor, target: Tensor, weight: Tensor, *, hardest: int = 0) -> Tensor:
    """Half the mean squared difference, as HRNet's `JointsMSELoss`.

    Times the number of values in a sample's maps it is Caffe's EuclideanLoss: the sum of squares
    over 2 N (CPM's loss of a stage).

    Args:
        maps: (N, K, h, w).
        target: the same.
        weight: (N, K); multiplies the difference, so it counts squared.
        hardest: mean over this many joints of each sample, the most wrong ones (HRNet's
            `JointsOHKMMSELoss`, online hard keypoint mining); 0 = over all.
    """
    apart = (maps - target) * weight[:, :, None, None]
    each = 0.5 * apart.square().mean((2, 3))
    if hardest:
        each = each.topk(min(hardest, each.shape[1]), dim=1).values
    return each.mean()


def pose_loss(logits: Tensor, batch: Batch, share: Share = alone) -> tuple[Tensor, Parts]:
    """Loss of a joint's place and of its score.

    Place: cross-entropy between the soft-max over the map and the Gaussian target, for joints
    inside the crop. Score: binary cross-entropy of the peak logit against how near the peak is
    to the truth (1 on it, falling with 3 cells; 0 for a joint known to lie outside the crop), so
    that its sigmoid becomes the chance of being right.

    Args:
        logits: (N, J, h, w).
        batch: "target" (N, J, h, w), "known" (N, J), "weight" (N, J).
        share: see above.

    Returns:
        The loss, and its parts "place" and "score" for the log.
    """
    flat = logits.float().flatten(2)
    target = batch["target"].flatten(2)
    known = batch["known"]
    inside = (known == INSIDE).float()
    mass = target.sum(-1, keepdim=True).clamp_min(1e-6)
    cross = -(target / mass * F.log_softmax(flat, -1)).sum(-1)
    place = (cross * batch["weight"]).sum() / share(inside.sum())

    peak, found = flat.max(-1)
    width = logits.shape[-1]
    true = target.argmax(-1)
    across, down = found % width - true % width, found // width - true // width
    near = torch.exp(-(across**2 + down**2) / (2 * _HIT_SIGMA_CELLS**2)) * inside
    judged = inside + (known == OUTSIDE).float()
    each = F.binary_cross_entropy_with_logits(peak, near, reduction="none")
    score = (each * judged).sum() / share(judged.sum())
    return place + _SCORE_WEIGHT * score, {"place": place.detach(), "score": score.detach()}


def person_loss(raw: Batch, batch: Batch, share: Share = alone) -> tuple[Tensor, Parts]:
    """Loss of the detector: overlap of the matched boxes, objectness of all, class of the matched.

    Args:
        raw: "box" (N, A, 4), "object" and "kind" (N, A) of `nets.detector`.
        batch: "image" (N, H, W, 3), "people" and "ignore" (N, G, 4) of `data.detection`.
        share: see above.

    Source: Ge et al. 2021, "YOLOX"; weights of the parts as in its official code.
    """
    size = (batch["image"].shape[2], batch["image"].shape[1])
    middles, strides = places(size, raw["box"].device)
    chance = torch.sigmoid(raw["object"].detach()) * torch.sigmoid(raw["kind"].detach())
    presence = torch.zeros_like(raw["object"])
    counts = torch.ones_like(raw["object"])
    apart, kind, found = [], [], 0
    for i, (people, ignore) in enumerate(zip(batch["people"], batch["ignore"], strict=True)):
        people, ignore = people[people[:, 2] > 0], ignore[ignore[:, 2] > 0]
        away = (middles[:, None] - ignore[None, :, :2]).abs()
        counts[i, (away < ignore[None, :, 2:] / 2).all(2).any(1)] = 0
        if not len(people):
            continue
        rows, whose = assign(raw["box"][i].detach(), chance[i], people, middles, strides)
        overlap = overlap_of(raw["box"][i, rows], people[whose])
        apart.append(1 - overlap**2)
        sure = overlap.detach()
        kind.append(
            F.binary_cross_entropy_with_logits(raw["kind"][i, rows], sure, reduction="none")
        )
        presence[i, rows], counts[i, rows] = 1, 1
        found += len(rows)
    total = share(torch.tensor(float(found), device=presence.device))
    empty = raw["box"].sum() * 0  # a batch without people still has a gradient
    box = (torch.cat(apart).sum() if apart else empty) / total
    person = (torch.cat(kind).sum() if kind else empty) / total
    there = F.binary_cross_entropy_with_logits(raw["object"], presence, counts, reduction="sum")
    there = there / total
    parts = {"box": box.detach(), "object": there.detach(), "kind": person.detach()}
    return 5 * box + there + person, parts


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
    """SimOTA label assignment: return the guesses matched to a person, (K,), and the person, (K,).

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
    # A guess that two people want goes to the cheaper one.
    best = cost.masked_fill(~taken, torch.inf).min(0)
    wanted = taken.any(0)
    return rows[wanted], best.indices[wanted]
