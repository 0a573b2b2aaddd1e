"""A training recipe: one flat YAML file, checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from humanpose.data.augment import Augmentation
from humanpose.errors import InputError


class Recipe(BaseModel):
    """What to train, on what, and how; `recipes/*.yaml` are examples.

    `start` and `marks` may name environment variables ($HUMANPOSE_DATA/...).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str
    task: Literal["pose", "person"]
    net: str
    options: dict[str, Any] = {}
    input: tuple[int, int] = Field(description="width, height of the crop, pixels")
    start: str | None = Field(None, description=".safetensors, or MoveNet's .tflite")
    data: list[str] = Field(description="NAME (below $HUMANPOSE_DATA) or NAME=PATH")
    repeat: dict[str, int] = Field({}, description="data set -> times it appears in an epoch")
    marks: str | None = Field(None, description="JSON of people nobody annotated (person task)")
    augment: Augmentation = Augmentation()
    mosaic: float = Field(0.0, ge=0, le=1, description="chance of four pictures in one input")
    sigma: float = Field(1.5, gt=0, description="of the Gaussian targets, cells")

    samples: int = Field(gt=0, description="crops or pictures seen in the whole run")
    batch: int = Field(32, gt=0)
    lr: float = Field(gt=0, description="peak rate of new layers")
    backbone_lr: float = Field(gt=0, description="peak rate of the backbone")
    warmup: int = Field(200, ge=0, description="steps of linear increase")
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(5.0, gt=0, description="largest norm of a gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, per step")
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    workers: int = Field(2, ge=0)
    threads: int = Field(0, ge=0, description="of torch; 0 = all cores")
    seed: int = 0
    validate_every: int = Field(16000, gt=0, description="samples")
    checkpoint_every: float = Field(180.0, gt=0, description="seconds")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return max(1, self.samples // self.batch)


def load_recipe(path: Path, changes: tuple[str, ...] = ()) -> Recipe:
    """The recipe at `path` with `changes` such as "augment.flip=0" applied.

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
        _apply_change(tree, change)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise InputError(f"{path}: {problems}") from error


def _apply_change(tree: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise InputError(f"--set {change}: write it as key=value, e.g. augment.flip=0.5")
    *parents, last = key.split(".")
    branch = tree
    for parent in parents:
        branch = branch.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise InputError(f"--set {change}: {parent} has no parts")
    branch[last] = yaml.safe_load(value)
