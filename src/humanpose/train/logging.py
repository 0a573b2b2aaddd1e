"""Where a run's figures and pictures go: a CSV file, TensorBoard, W&B, MLflow."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
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


class CurveFile(Logger):
    """One line "step,name,value" a figure, in one file for the whole run, however often resumed.

    Lines are written with each checkpoint: what a kill costs comes again when the run goes on.
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
        """The recipe stands in the checkpoint."""

    @rank_zero_only
    def save(self) -> None:
        """Append what was noted."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write("".join(self._waiting))
        self._waiting = []

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Keep what was logged up to `step`, where the run goes on: what came later comes again."""
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
            # One curve however often the run goes on: no folder for each version.
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
    """Tell the loggers of what recipe the run is, and at which step it begins or goes on."""
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


def flush(fabric: Fabric) -> None:
    """Write what was noted: before a checkpoint, or a kill between them would leave a gap."""
    for logger in fabric.loggers:
        logger.save()


def log_picture(fabric: Fabric, folder: Path, image: U8, step: int) -> None:
    """Save `image` (H, W, 3) RGB in the run's folder and give it to the loggers that show some."""
    save_image(folder / "pictures" / f"{step:07d}.jpg", image)
    for logger in fabric.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image("validation", image, step, dataformats="HWC")
        elif log_image := getattr(logger, "log_image", None):  # W&B
            log_image("validation", [np.asarray(image)], step=step)
