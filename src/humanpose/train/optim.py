"""Optimisers, their parameter groups, schedules of the rate, and averaged weights."""

from __future__ import annotations

import math
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from humanpose.train.config import Recipe

_RMS_DECAY = 0.99  # torch's own; of the squared gradients
_LEAST_SIZE = 1e-3  # root mean square of a tensor that `relative` rates take for it, at least


def optimizer_of(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser, a group for each combination of rate and decay.

    A group's "peak" is its rate before the schedule.
    """
    groups = _groups(recipe, net)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=recipe.lr, alpha=_RMS_DECAY)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr)


def _groups(recipe: Recipe, net: nn.Module) -> list[dict[str, Any]]:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        factor = next((rate for glob, rate in recipe.rates.items() if fnmatch(name, glob)), 1.0)
        peak, decay = recipe.lr * factor, recipe.weight_decay
        if recipe.backbone_lr and name.startswith("backbone."):
            peak = recipe.backbone_lr
        if name.endswith(".bias"):
            peak *= recipe.bias_rate
            decay *= recipe.bias_decay
        if recipe.relative:
            size = float(parameter.detach().square().mean().sqrt())
            peak *= max(size, _LEAST_SIZE)
        groups.setdefault((peak, decay), []).append(parameter)
    usual = (recipe.lr, recipe.weight_decay)  # first: its rate is the one that is logged
    ordered = sorted(groups.items(), key=lambda item: item[0] != usual)
    return [{"params": p, "peak": peak, "weight_decay": decay} for (peak, decay), p in ordered]


def set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> float:
    """Set the rates of `step`; returns that of the first group."""
    share = rate_share(recipe, step)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return float(optimizer.param_groups[0]["lr"])


def rate_share(recipe: Recipe, step: int) -> float:
    """Share of the peak rates at `step`: linear warm-up, times the schedule."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    if recipe.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    passed = sum(step * recipe.batch >= drop for drop in recipe.drops)
    return float(warm * recipe.gamma**passed)


@torch.no_grad()
def average(ema: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights and statistics `ema` towards those of `net`, after `step` steps."""
    # A young average follows quickly, or the random start would stay in it for long.
    decay = min(decay, (1 + step) / (10 + step))
    ours = [p for p in ema.state_dict().values() if p.is_floating_point()]
    new = [p.to(torch.float32) for p in net.state_dict().values() if p.is_floating_point()]
    torch._foreach_lerp_(ours, new, 1 - decay)
