"""Start the processes of a run, and exchange figures between them."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
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

T = TypeVar("T")

# mallopt(3): what is larger than the first comes fresh from the kernel and goes back to it at once;
# what is free at the top of the heap beyond the second goes back.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_NEVER = 2**31 - 1  # bytes; the parameter is an int


@dataclass(frozen=True, slots=True)
class Place:
    """Devices and processes of a training.

    Attributes:
        devices: processes on each machine.
        accelerator: "auto", "cpu", "cuda" ...
        nodes: machines; under torchrun or SLURM each starts its own processes.
    """

    devices: int = 1
    accelerator: str = "auto"
    nodes: int = 1


def launch(recipe: Recipe, folder: Path, place: Place = Place()) -> Fabric:
    """Start the processes of `place`, this one among them; each continues from here.

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
    """Return the divisor of a process's sum: then the mean over processes is the batch's mean.

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


def rank_slice(fabric: Fabric) -> slice:
    """Return which items of a list this rank takes; `all_gather` restores their order."""
    return slice(fabric.global_rank, None, fabric.world_size)


def all_gather(rows: list[T], fabric: Fabric) -> list[T]:
    """Return the rows of all ranks, made of the items of `rank_slice`, in the list's order."""
    if fabric.world_size == 1:
        return rows
    parts: list[list[T]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(parts, rows)
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def broadcast_buffers(net: torch.nn.Module, fabric: Fabric) -> None:
    """Give every rank the running statistics of rank 0; they differ by what each has seen."""
    if fabric.world_size > 1:
        for buffer in net.buffers():
            torch.distributed.broadcast(buffer, 0)


def keep_memory() -> bool:
    """Let the C library keep the memory that a step frees for the next one.

    A step on the CPU allocates the same gigabytes again and again, and the kernel clears each page
    that it hands out: on a virtual machine of two cores that took more than half of the time. glibc
    itself learns to keep blocks of up to 32 MB, no larger ones.

    Returns:
        Whether this C library was set; only glibc is.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
