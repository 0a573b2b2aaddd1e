"""What of a recipe does not fit its network, or would change nothing, is refused at once.

A key that reaches nothing would make two variants of a study the same run under two names.
"""

from __future__ import annotations

from fnmatch import fnmatch

from torch import nn

from humanpose.errors import InputError
from humanpose.spec import ModelSpec
from humanpose.train.config import Recipe


def refuse_misfits(recipe: Recipe, net: nn.Module, spec: ModelSpec) -> None:
    """Raise an InputError if `recipe` asks for what `net` cannot learn, or names what it has not.

    Args:
        recipe: the run.
        net: to be trained.
        spec: of `net`.
    """
    names = [name for name, _ in net.named_parameters()]
    for pattern in recipe.rates:
        if not any(fnmatch(name, pattern) for name in names):
            raise InputError(f"rates: no parameter of {recipe.net} is called {pattern!r}")
    if recipe.backbone_lr and not any(name.startswith("backbone.") for name in names):
        raise InputError(f"backbone_lr: {recipe.net} has no part called backbone; use rates")
    if recipe.task == "person":
        return
    for size in recipe.sizes:
        if min(size) < 1 or any(side % spec.multiple_of for side in size):
            raise InputError(
                f"sizes: {size[0]}x{size[1]}: {recipe.net} takes multiples of {spec.multiple_of}"
            )
    points = set(spec.skeleton.points)
    unknown = sorted(set(recipe.joint_weights) - points)
    if unknown:
        there = ", ".join(sorted(points))
        raise InputError(
            f"joint_weights: {spec.skeleton.name} has no {unknown[0]!r}; it has {there}"
        )
    if spec.background != (recipe.targets == "cpm"):
        has, need = ("a", "cpm") if spec.background else ("no", "exact or hrnet")
        raise InputError(
            f"targets {recipe.targets}: {recipe.net} has {has} map of the background; use {need}"
        )
    if recipe.loss == "place" and recipe.net != "lite":
        raise InputError(
            f"loss place: only lite turns what it learns so into chances; use mse with {recipe.net}"
        )
