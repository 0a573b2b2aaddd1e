"""Figures and pictures of a run: its speed, and loggers (CSV, TensorBoard, W&B, MLflow)."""

from __future__ import annotations

import csv
import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.fabric import Fabric
from lightning.fabric.loggers.logger import Logger
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from lightning.fabric.utilities.rank_zero import rank_zero_only

from humanpose.errors import InputError
from humanpose.files import atomic_write
from humanpose.images import save_image
from humanpose.train.config import Recipe
from humanpose.types import U8

CURVE = "curve.csv"
Curve = dict[str, dict[int, float]]
Show = Callable[[str], None]


class CurveFile(Logger):
    """One line "step,name,value" a figure, in one file for the whole run, however often resumed.

    Lines are written with each checkpoint: a resumed run logs lost steps again.
    """

    name, version, root_dir = "csv", 0, None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note the figures of a step; `save` writes them."""
        self._waiting += [f"{step},{name},{float(value)!r}\n" for name, value in metrics.items()]

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The checkpoint holds the recipe."""

    @rank_zero_only
    def save(self) -> None:
        """Append what was noted."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write("".join(self._waiting))
        self._waiting = []

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Keep lines up to `step`, where the run resumes; later ones are logged again."""
        kept = curve(self.path) if self.path.exists() and step else {}
        lines = [
            (at, name, v) for name, each in kept.items() for at, v in each.items() if at <= step
        ]
        with atomic_write(self.path, "w") as file:
            file.write("step,name,value\n")
            file.writelines(f"{at},{name},{v!r}\n" for at, name, v in sorted(lines))

    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()


def curve(path: Path) -> Curve:
    """The figures of a run by name and step, out of its curve.csv.

    Raises:
        InputError: the file is not there.
    """
    found: Curve = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                with suppress(ValueError):  # the heading, and what a kill left of the last line
                    step, name, value = row
                    found.setdefault(name, {})[int(step)] = float(value)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return found


def loggers_of(recipe: Recipe, folder: Path) -> list[Logger]:
    """The recipe's loggers, writing below `folder`.

    Raises:
        InputError: one of them is not installed.
    """
    made: list[Logger] = []
    for kind in recipe.loggers:
        if kind == "csv":
            made.append(CurveFile(folder / CURVE))
            continue
        if importlib.util.find_spec(kind) is None:
            raise InputError(f"loggers: {kind} is not installed; run: pip install {kind}")
        if kind == "tensorboard":
            # One curve for all resumptions of a run: no folder for each version.
            made.append(TensorBoardLogger(folder, name="tensorboard", version=""))
        elif kind == "wandb":
            from lightning.pytorch.loggers import WandbLogger

            made.append(WandbLogger(name=recipe.name, save_dir=folder))
        else:
            from lightning.pytorch.loggers import MLFlowLogger

            here = f"sqlite:///{folder.absolute() / 'mlflow.db'}"
            address = os.environ.get("MLFLOW_TRACKING_URI", here)
            made.append(MLFlowLogger(recipe.name, tracking_uri=address))
    return made


def begin(fabric: Fabric, recipe: Recipe, step: int) -> None:
    """Give the loggers the recipe and the step at which the run begins or resumes."""
    plain = recipe.model_dump(mode="json")
    for logger in fabric.loggers:
        if isinstance(logger, CurveFile):
            logger.begin(step)
        elif step:
            continue
        elif isinstance(logger, TensorBoardLogger):  # its own parameters need a final metric
            logger.experiment.add_text("recipe", f"```\n{yaml.safe_dump(plain)}```")
        else:
            logger.log_hyperparams(plain)


def end(fabric: Fabric, status: str) -> None:
    """Write what is left of a run that ended, by "success" or "failed"."""
    for logger in fabric.loggers:
        logger.finalize(status)


def log_picture(fabric: Fabric, folder: Path, image: U8, step: int) -> None:
    """Save `image` (H, W, 3) RGB in the run's folder and give it to the loggers that show some."""
    save_image(folder / "pictures" / f"{step:07d}.jpg", image)
    for logger in fabric.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image("validation", image, step, dataformats="HWC")
        elif log_image := getattr(logger, "log_image", None):  # W&B
            log_image("validation", [np.asarray(image)], step=step)


class Meter:
    """Rate, share of time spent waiting for data, and the log of values.

    Counts twice: since the last line that was shown, and since the last validation.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, show: Show) -> None:
        self.fabric, self.recipe, self.show = fabric, recipe, show
        self.line, self.stretch = _Watch(), _Watch()

    def restart(self) -> None:
        """Forget the time so far: it went into something else than training."""
        self.line, self.stretch = _Watch(), _Watch()

    def timed(self, loader: Any) -> Iterator[dict[str, torch.Tensor]]:
        """The loader's batches; the time that each was waited for is added up."""
        batches = iter(loader)
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            for watch in (self.line, self.stretch):
                watch.waited += time.monotonic() - asked
                watch.steps += 1
            yield batch

    def step(self, step: int, values: dict[str, torch.Tensor], rate: float) -> None:
        """Log the `values` of a step and show a line, every N steps.

        A value is a process's share of the whole batch's: their mean is logged.
        """
        if step % self.recipe.log_every:
            return
        if self.fabric.world_size > 1:
            means = torch.stack([value.float() for value in values.values()])
            torch.distributed.all_reduce(means)
            values = dict(zip(values, means / self.fabric.world_size, strict=True))
        plain = {name: float(value) for name, value in values.items()}
        speed = self.line.speed(self.recipe.batch)
        self.fabric.log_dict(plain | {"lr": rate} | speed, step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in plain.items())
        self.show(f"step {step}/{self.recipe.steps}  {text}  {told(speed)}")
        self.line = _Watch()


class _Watch:
    def __init__(self) -> None:
        self.waited, self.steps, self.since = 0.0, 0, time.monotonic()

    def speed(self, batch: int) -> dict[str, float]:
        took = max(time.monotonic() - self.since, 1e-9)
        return {"samples_per_s": self.steps * batch / took, "data_wait": self.waited / took}


def told(speed: dict[str, float]) -> str:
    """A speed in words."""
    rate, wait = speed["samples_per_s"], speed["data_wait"]
    return f"{rate:.1f} samples/s  waiting for data {wait:.0%}"
