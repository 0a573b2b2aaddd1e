"""How fast a run goes, what it waits for, and where its values are logged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.fabric import Fabric

from humanpose.train.config import Recipe

Show = Callable[[str], None]
_SHOW_EVERY = 25  # steps


class Meter:
    """Rate, share of time spent waiting for data, and the log of values."""

    def __init__(self, fabric: Fabric, recipe: Recipe, show: Show) -> None:
        self.fabric, self.recipe, self.show = fabric, recipe, show
        self.restart()

    def restart(self) -> None:
        """Forget the time so far: it went into something else than training."""
        self.waited, self.steps, self.since = 0.0, 0, time.monotonic()

    def timed(self, loader: Any) -> Iterator[dict[str, torch.Tensor]]:
        """The loader's batches; the time that each was waited for is added up."""
        batches = iter(loader)
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            self.waited += time.monotonic() - asked
            yield batch

    def step(self, step: int, values: dict[str, torch.Tensor], rate: float) -> None:
        """Log `values` and show a line, every so many steps."""
        self.steps += 1
        if step % _SHOW_EVERY:
            return
        took = max(time.monotonic() - self.since, 1e-9)
        plain = {name: float(value) for name, value in values.items()} | {"lr": rate}
        plain["samples_per_s"] = self.steps * self.recipe.batch / took
        plain["data_wait"] = self.waited / took
        self.fabric.log_dict(plain, step)
        text = "  ".join(f"{name} {float(value):.3f}" for name, value in values.items())
        self.show(
            f"step {step}/{self.recipe.steps}  {text}  {plain['samples_per_s']:.1f} samples/s  "
            f"waiting for data {plain['data_wait']:.0%}"
        )
        self.restart()
