"""A training recipe: one flat YAML file, checked before anything runs."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from humanpose.data.augment import Augmentation
from humanpose.errors import InputError

if TYPE_CHECKING:
    from humanpose.nets.network import Net
    from humanpose.spec import ModelSpec

Model = TypeVar("Model", bound=BaseModel)


# What only decides how fast a run goes, and what it says on the way.
MACHINE = ("threads", "workers", "compile", "checkpoint_every", "log_every", "loggers")


class Recipe(BaseModel):
    """Recipe of a training; `recipes/*.yaml` are examples.

    `start`, `data` and `marks` may name environment variables ($HUMANPOSE_DATA/...).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str
    task: Literal["pose", "person", "hand"]
    net: str
    options: dict[str, Any] = Field({}, description="of the net; `joints` follows the skeleton")
    skeleton: str | None = Field(None, description="by name; None = the one of the data")
    input: tuple[int, int] = Field(description="width, height of the crop, pixels")
    sizes: list[tuple[int, int]] = Field(
        [], description="each batch's crops have one of these, by lot; `input` if none is given"
    )
    spec: dict[str, Any] = Field({}, description="of ModelSpec, in place of the net's usual")
    start: str | None = Field(
        None,
        description="a built-in network, our .safetensors or .onnx, or a file of MoveNet, TinyPose "
        "or YOLOX",
    )

    data: list[str] = Field(description="NAME (below $HUMANPOSE_DATA) or NAME=PATH")
    persons: int | None = Field(None, gt=0, description="most of a set's training part, evenly")
    repeat: dict[str, int] = Field({}, description="data set -> times it appears in an epoch")
    boxes: Literal["own", "hrnet", "cpm"] = Field(
        "own", description="the sets' boxes, or squares by centre and scale: data.dataset"
    )
    marks: str | None = Field(None, description="JSON of people without annotation (person task)")
    augment: Augmentation = Augmentation()
    mosaic: float = Field(0.0, ge=0, le=1, description="chance of four pictures in one input")

    empty: float = Field(
        0.0, ge=0, le=1, description="chance of noise without people (person task)"
    )

    targets: Literal["exact", "hrnet", "cpm"] = Field("exact", description="see data.targets")
    sigma: float = Field(1.5, gt=0, description="of the Gaussian targets, cells")
    joint_weights: dict[str, float] = Field({}, description='"wrist" -> weight in the loss')
    compat: bool = Field(False, description="the quirks of the targets' authors too")
    loss: Literal["place", "mse", "cpm"] = Field("place", description="see train.losses")
    hardest: int = Field(0, ge=0, description="joints of a person that count (OHKM); 0 = all")
    distil: float = Field(0.0, ge=0, le=1, description="the teacher's share of the loss")

    samples: int | None = Field(None, gt=0, description="seen in the whole run; or give epochs")
    epochs: float | None = Field(None, gt=0)
    batch: int = Field(32, gt=0, description="of all processes together")
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    lr: float = Field(gt=0, description="peak rate of what `rates` does not name")
    backbone_lr: float | None = Field(None, gt=0, description="peak rate of `backbone.*`")
    rates: dict[str, float] = Field({}, description="pattern of parameter names -> factor of lr")
    relative: bool = Field(
        False, description="rates are shares of the root mean square of each tensor at the start"
    )
    bias_rate: float = Field(1.0, gt=0, description="factor on the rate of biases")
    weight_decay: float = Field(0.01, ge=0)
    bias_decay: bool = Field(True, description="whether biases decay as weights do")
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    drops: list[float] = Field(
        [],
        description="where `step` lowers the rate: epochs if the recipe counts them, else samples",
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of a drop")
    warmup: int = Field(200, ge=0, description="steps of linear increase")
    clip: float = Field(5.0, ge=0, description="largest norm of a gradient; 0 = any")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights; 0 = none")
    patience: int = Field(0, ge=0, description="validations without a best that end it; 0 = any")

    precision: Literal["bf16-mixed", "32-true", "64-true"] = "bf16-mixed"
    compile: bool = Field(False, description="torch.compile, a minute once")
    workers: int = Field(2, ge=0)
    threads: int = Field(0, ge=0, description="of torch; 0 = all cores")
    seed: int = Field(0, ge=0)
    validate_every: int | None = Field(None, gt=0, description="samples; None: an epoch or 16,000")
    checkpoint_every: float = Field(180.0, gt=0, description="seconds")
    log_every: int = Field(25, gt=0, description="steps")
    loggers: list[Literal["csv", "tensorboard", "wandb", "mlflow"]] = ["csv", "tensorboard"]

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if (self.samples is None) == (self.epochs is None):
            raise ValueError("give either samples or epochs")
        if (self.schedule == "step") != bool(self.drops):
            raise ValueError("schedule step needs drops, the others have none")
        if self.loss == "cpm" and self.targets != "cpm":
            raise ValueError("loss cpm needs targets cpm")
        if self.loss == "place" and self.targets == "cpm":
            raise ValueError("targets cpm have a background, which loss place does not know")
        if self.sizes and self.task == "person":
            raise ValueError("sizes are of crops; a detector sees the whole picture")
        if self.hardest and self.loss == "place":
            raise ValueError("hardest counts with loss mse or cpm, not with place")
        return self

    def sized(self, items: int) -> Recipe:
        """The recipe with everything counted in samples, for a data set of `items`."""
        if self.epochs is None:
            return self.model_copy(update={"validate_every": self.validate_every or 16_000})
        return self.model_copy(
            update={
                "samples": max(1, round(self.epochs * items)),
                "epochs": None,
                "drops": [drop * items for drop in self.drops],
                "validate_every": self.validate_every or items,
            }
        )

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run; the recipe must be `sized`."""
        assert self.samples is not None
        return max(1, self.samples // self.batch)


def validate(recipe: Recipe, net: Net, spec: ModelSpec) -> None:
    """Reject recipe keys that do not apply to the network.

    A key without effect would make two variants of a study the same run under two names.

    Args:
        recipe: the run.
        net: to be trained.
        spec: of `net`.

    Raises:
        InputError: naming the key.
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
    if recipe.loss not in net.losses:
        raise InputError(
            f"loss {recipe.loss}: {recipe.net} does not learn by it; use "
            f"{' or '.join(net.losses) or 'task person'}"
        )


def load_yaml(path: Path, changes: tuple[str, ...], kind: type[Model]) -> Model:
    """The recipe of a `kind` at `path` with `changes` such as "augment.flip=0" applied.

    Raises:
        InputError: on a missing file, bad YAML, an unknown key or a wrong value; it names them.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a recipe is a list of 'key: value' lines")
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise InputError(f"--set {change}: write it as key=value, e.g. augment.flip=0.5")
        put(tree, key, yaml.safe_load(value), f"--set {change}")
    return checked(tree, kind, str(path))


def checked(tree: dict[str, Any], kind: type[Model], where: str) -> Model:
    """`tree` as a recipe of a `kind`. Raises InputError naming `where` and each wrong key."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise InputError(f"{where}: {problems}") from error


def put(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set `key`, such as "augment.flip", in nested tables; an InputError names `where`."""
    *parents, last = key.split(".")
    branch = tree
    for parent in parents:
        branch = branch.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise InputError(f"{where}: {key}: {parent} has no parts")
    branch[last] = value
