"""A study: variants of one training, each with several seeds, and what must hold of their nets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.overrides import TorchFunctionMode

from humanpose import nets
from humanpose.errors import InputError
from humanpose.train.config import MACHINE, Recipe, checked, put

_LINEAR, _CURVED = 1e-6, 1e-3
_ACTIVATIONS = {
    name + end
    for end in ("", "_")
    for name in (
        "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu",
        "mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "logsigmoid", "tanh", "softplus",
        "softsign", "softmax", "log_softmax", "threshold", "clamp", "clamp_min",
    )
}  # fmt: skip
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


class Variant(BaseModel):
    """One way to train: the study's recipe with a few values changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(description="one line for the table and the legend")
    set: dict[str, Any] = Field({}, description='"options.norm": none')
    holds: list[str] = Field([], description="claims about its network, see CLAIMS")


class Study(BaseModel):
    """What `humanpose study` runs; `recipes/ablation_hrnet.yaml` is one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str = ""
    score: str = Field(description="the data set whose validation score is compared")
    seeds: list[int] = Field(min_length=1)
    recipe: dict[str, Any] = Field(description="keys of a training recipe, but for name and seed")
    variants: dict[str, Variant] = Field(min_length=1, description="the first is the baseline")

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is named twice")
        for name, variant in self.variants.items():
            unknown = sorted(set(variant.holds) - set(CLAIMS))
            if unknown:
                there = ", ".join(CLAIMS)
                raise ValueError(f"{name} holds {unknown[0]!r}; what can be claimed: {there}")
        return self

    def only(self, names: Sequence[str]) -> Study:
        """The study of some of its variants, in that order; the first is their baseline.

        Raises:
            InputError: there is no variant of such a name.
        """
        unknown = [name for name in names if name not in self.variants]
        if unknown:
            there = ", ".join(self.variants)
            raise InputError(f"study {self.name} has no variant {unknown[0]!r}; there are: {there}")
        return self.model_copy(update={"variants": {name: self.variants[name] for name in names}})

    def training(self, variant: str, seed: int) -> Recipe:
        """The recipe of a variant's run.

        Raises:
            InputError: a key of the recipe or of the variant is wrong.
        """
        tree = deepcopy(self.recipe) | {"name": f"{self.name}-{variant}", "seed": seed}
        where = f"study {self.name}, variant {variant}"
        for key, value in self.variants[variant].set.items():
            put(tree, key, value, where)
        recipe = checked(tree, Recipe, where)
        if self.score not in [entry.partition("=")[0] for entry in recipe.data]:
            raise InputError(f"{where}: the score's data set {self.score!r} is not in data")
        return recipe


def fingerprint(recipe: Recipe, keys: tuple[str, ...] = ()) -> str:
    """Eight characters that tell apart recipes that differ in `keys`; () = whatever counts.

    The seed, and what only decides how fast a run goes, do not count; nor do keys at their
    defaults, so that one which is added to recipes later leaves old rows theirs.
    """
    tree = recipe.model_dump(
        mode="json",
        include=set(keys) or None,
        exclude={"seed", *MACHINE},
        exclude_defaults=True,
    )
    text = json.dumps(tree, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def broken_claims(
    net: nn.Module, claims: list[str], size: tuple[int, int], *, trained: bool = False
) -> list[str]:
    """Those of `claims` that do not hold of `net`, which takes images of `size` (w, h).

    That a net is not linear is not asked of a `trained` one: it may have died.
    """
    asked = [claim for claim in claims if not (trained and claim == "not linear")]
    return [claim for claim in asked if not CLAIMS[claim](net, size)]


def _normalised(net: nn.Module, _: tuple[int, int]) -> bool:
    return any(isinstance(part, _NORMS) for part in net.modules())


@torch.no_grad()
def _activated(net: nn.Module, size: tuple[int, int]) -> bool:
    """Whether an activation is computed on the way, by a module or by a plain function."""
    with _Called() as called:
        nets.outputs(deepcopy(net).eval(), torch.zeros(1, 3, size[1], size[0]))
    return not called.names.isdisjoint(_ACTIVATIONS)


class _Called(TorchFunctionMode):
    """Notes the names of torch's functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def departure(net: nn.Module, size: tuple[int, int]) -> float:
    """How far the network in evaluation is from an affine map of its image, in double precision.

    max |f(x) + f(y) - f(x + y) - f(0)| over max |f(x) - f(0)| for noise x and y: rounding alone
    gives 1e-12, one ReLU on the way 0.01 and more.
    """
    net = deepcopy(net).double().eval()
    numbers = torch.Generator().manual_seed(0)
    x, y = torch.randn((2, 1, 3, size[1], size[0]), generator=numbers, dtype=torch.float64)
    images = (x, y, x + y, torch.zeros_like(x))
    at = [nets.outputs(net, image)["maps"] for image in images]
    change = float((at[0] - at[3]).abs().max())
    # A net that died gives a constant, which is affine.
    return float((at[0] + at[1] - at[2] - at[3]).abs().max()) / change if change else 0.0


def _linear(net: nn.Module, size: tuple[int, int]) -> bool:
    return departure(net, size) < _LINEAR


def _curved(net: nn.Module, size: tuple[int, int]) -> bool:
    return departure(net, size) > _CURVED


CLAIMS: dict[str, Callable[[nn.Module, tuple[int, int]], bool]] = {
    "normalised": _normalised,
    "not normalised": lambda net, size: not _normalised(net, size),
    "activated": _activated,
    "not activated": lambda net, size: not _activated(net, size),
    "linear": _linear,
    "not linear": _curved,
}
