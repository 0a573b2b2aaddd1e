"""Plan of an ablation study: variants of one training, seeds, and claims about the networks."""

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

from humanpose.errors import InputError
from humanpose.nets.network import Net
from humanpose.train.config import MACHINE, Recipe, checked, put

Key = tuple[str, str, int]  # of a run: recipe's fingerprint, variant, seed

_LINEAR = 1e-6  # greatest `nonlinearity` of a linear network
_ACTIVATIONS = {
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish",
    "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "logsigmoid", "tanh", "softplus", "softsign",
    "softmax", "log_softmax", "threshold", "clamp", "clamp_min",
}  # fmt: skip
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


class Variant(BaseModel):
    """One way to train: the study's recipe with a few values changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(description="one line for the table and the legend")
    set: dict[str, Any] = Field({}, description='"options.norm": none')
    holds: list[str] = Field([], description="claims about its network: a property, or not")


class Study(BaseModel):
    """The YAML file of `humanpose study`, such as `recipes/ablation_hrnet.yaml`."""

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
            unknown = [c for c in variant.holds if c.removeprefix("not ") not in PROPERTIES]
            if unknown:
                there = ", ".join(f"{name}, not {name}" for name in PROPERTIES)
                raise ValueError(f"{name} holds {unknown[0]!r}; what can be claimed: {there}")
        return self

    def only(self, names: Sequence[str]) -> Study:
        """Return the study of these variants, in this order; the first is the baseline.

        Raises InputError: there is no variant of such a name.
        """
        unknown = [name for name in names if name not in self.variants]
        if unknown:
            there = ", ".join(self.variants)
            raise InputError(f"study {self.name} has no variant {unknown[0]!r}; there are: {there}")
        return self.model_copy(update={"variants": {name: self.variants[name] for name in names}})

    def training(self, variant: str, seed: int) -> Recipe:
        """Return the recipe of a variant's run.

        Raises InputError: a key of the recipe or of the variant is wrong.
        """
        tree = deepcopy(self.recipe) | {"name": f"{self.name}-{variant}", "seed": seed}
        where = f"study {self.name}, variant {variant}"
        for key, value in self.variants[variant].set.items():
            put(tree, key, value, where)
        recipe = checked(tree, Recipe, where)
        if self.score not in [entry.partition("=")[0] for entry in recipe.data]:
            raise InputError(f"{where}: the score's data set {self.score!r} is not in data")
        return recipe

    def runs(self) -> dict[Key, Recipe]:
        """Return the recipes of all runs, seed by seed."""
        plans = [(name, self.training(name, seed)) for seed in self.seeds for name in self.variants]
        return {(fingerprint(recipe), name, recipe.seed): recipe for name, recipe in plans}

    def check_claims(
        self, variant: str, net: Net, size: tuple[int, int], *, trained: bool = False
    ) -> None:
        """Raise an InputError if a claim of `variant` does not hold of `net`: `broken_claims`."""
        broken = broken_claims(net, self.variants[variant].holds, size, trained=trained)
        if broken:
            claims = ", ".join(f"'{claim}'" for claim in broken)
            raise InputError(
                f"study {self.name}, variant {variant}: {claims} does not hold of its network; "
                "what the variant sets does not reach it"
            )


def fingerprint(recipe: Recipe, keys: tuple[str, ...] = ()) -> str:
    """Return eight characters that differ between recipes that differ in `keys`; () = all keys.

    The seed and keys of speed and logging do not count, nor do keys at their defaults: a key
    that is added to recipes later does not change old fingerprints.
    """
    include, exclude = set(keys) or None, {"seed", *MACHINE}
    tree = recipe.model_dump(mode="json", include=include, exclude=exclude, exclude_defaults=True)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def broken_claims(
    net: Net, claims: list[str], size: tuple[int, int], *, trained: bool = False
) -> list[str]:
    """Return the `claims` that do not hold of `net` for images of `size` (w, h).

    "not linear" is not checked of a `trained` network: one whose maps are dead is a constant.
    """
    return [
        claim
        for claim in claims
        if not (trained and claim == "not linear")
        and PROPERTIES[claim.removeprefix("not ")](net, size) == claim.startswith("not ")
    ]


@torch.no_grad()
def _activated(net: Net, size: tuple[int, int]) -> bool:
    """Return whether the forward pass calls an activation, by a module or a function."""
    with _Calls() as calls:
        deepcopy(net).eval().outputs(torch.zeros(1, 3, size[1], size[0]))
    return not calls.names.isdisjoint(_ACTIVATIONS)


class _Calls(TorchFunctionMode):
    """Record the names of the torch functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(getattr(func, "__name__", "").removesuffix("_"))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def nonlinearity(net: Net, size: tuple[int, int]) -> float:
    """Return how far the network in evaluation mode is from an affine map of its image.

    max |f(x) + f(y) - f(x + y) - f(0)| over max |f(x) - f(0)| for noise x and y, in double
    precision: rounding alone gives 1e-12, one ReLU on the way 0.01 and more. A constant is affine.
    """
    net = deepcopy(net).double().eval()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn((2, 1, 3, size[1], size[0]), generator=generator, dtype=torch.float64)
    images = (x, y, x + y, torch.zeros_like(x))
    at = [net.outputs(image)["maps"] for image in images]
    change = float((at[0] - at[3]).abs().max())
    return float((at[0] + at[1] - at[2] - at[3]).abs().max()) / change if change else 0.0


# Properties that a study can claim of a variant's network, or deny by "not ".
PROPERTIES: dict[str, Callable[[Net, tuple[int, int]], bool]] = {
    "normalised": lambda net, size: any(isinstance(part, _NORMS) for part in net.modules()),
    "activated": _activated,
    "linear": lambda net, size: nonlinearity(net, size) < _LINEAR,
}
