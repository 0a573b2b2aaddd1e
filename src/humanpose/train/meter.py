"""How fast a run goes, what it waits for, and the figures it logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.fabric import Fabric

from humanpose.train.config import Recipe

Show = Callable[[str], None]


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
        """Log the `values` of a step and show a line, every so many steps.

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
