"""One process or many: starting them, and figures that all of them share."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from humanpose.errors import DeviceError
from humanpose.train.config import Recipe
from humanpose.train.logging import loggers_of
from humanpose.train.memory import keep_memory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training runs.

    Attributes:
        devices: processes on each machine.
        accelerator: "auto", "cpu", "cuda" ...
        nodes: machines; under torchrun or SLURM each starts its own processes.
    """

    devices: int = 1
    accelerator: str = "auto"
    nodes: int = 1


def launch(recipe: Recipe, folder: Path, place: Place = Place()) -> Fabric:
    """Start the processes of `place`, this one among them; each goes on from here.

    Without torchrun or SLURM the first process starts the others by its own command line.

    Raises:
        DeviceError: if the accelerator is not there.
        InputError: a logger's package is not installed.
    """
    loggers = loggers_of(recipe, folder)
    for name in ("lightning.fabric", "lightning.pytorch"):  # chats about what the recipe says
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=place.accelerator,
            devices=place.devices,
            num_nodes=place.nodes,
            strategy="ddp" if place.devices * place.nodes > 1 else "auto",
            precision=recipe.precision,
            loggers=loggers,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        asked = f"--accelerator {place.accelerator} --devices {place.devices}"
        raise DeviceError(f"{asked}: {' '.join(str(error).split())}") from error
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_memory()
    # Every process starts from the same weights; what is drawn later is a function of the sample.
    fabric.seed_everything(recipe.seed, verbose=False)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    elif fabric.world_size > 1 and fabric.device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.devices))
    return fabric


def shared(count: Tensor, fabric: Fabric) -> Tensor:
    """What a process divides its sum by so that the mean over processes is the batch's mean.

    Args:
        count: of this process's part of the batch, a scalar without gradient.
        fabric: of the run.

    Returns:
        The whole batch's count, at least 1, over the number of processes.
    """
    if fabric.world_size == 1:
        return count.clamp_min(1)
    total = count.clone()
    torch.distributed.all_reduce(total)
    return total.clamp_min(1) / fabric.world_size


def together(rows: list[T], fabric: Fabric) -> list[T]:
    """The rows of all processes, each of which did every so-manieth, in the order of the whole."""
    if fabric.world_size == 1:
        return rows
    parts: list[list[T]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(parts, rows)
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def same_everywhere(net: torch.nn.Module, fabric: Fabric) -> None:
    """Give every process the first one's running statistics, which differ by what each has seen."""
    if fabric.world_size > 1:
        for buffer in net.buffers():
            torch.distributed.broadcast(buffer, 0)
