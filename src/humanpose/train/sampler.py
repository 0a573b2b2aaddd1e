"""Order of samples: a function of (seed, epoch, step, rank) alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from humanpose.data.detection import PersonDataset
from humanpose.data.pose import PoseDataset, worker_init
from humanpose.errors import InputError
from humanpose.train.config import Recipe

_LOT = 2  # beside (seed, epoch), which shuffles: another stream of random numbers


class Order:
    """Batches of (epoch, sample), so that resume is exact and ranks share a batch.

    Each epoch visits the set in another order; what does not fill a whole batch at its end is
    left out of that epoch. Where the recipe has `sizes`, a third number is one of them, the same
    for the whole batch.

    Args:
        size: of the data set.
        recipe: batch, steps and seed.
        first_step: to begin with.
        rank, ranks: this process takes one of `ranks` equal parts of every batch.

    Raises:
        InputError: a batch cannot be shared evenly.
    """

    def __init__(
        self, size: int, recipe: Recipe, first_step: int, *, rank: int = 0, ranks: int = 1
    ) -> None:
        if ranks > 1 and (recipe.batch % ranks or size < recipe.batch):
            raise InputError(
                f"a batch of {recipe.batch} out of {size} samples cannot be shared by {ranks} "
                "processes; change --set batch"
            )
        self.size = size
        self.recipe = recipe
        self.first_step = first_step
        share = recipe.batch // ranks
        self.part = slice(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        batch, per_epoch = self.recipe.batch, max(1, self.size // self.recipe.batch)
        shuffled, order = -1, np.zeros(0, np.int64)
        for step in range(self.first_step, self.recipe.steps):
            epoch, place = divmod(step, per_epoch)
            if epoch != shuffled:
                order = np.random.default_rng((self.recipe.seed, epoch)).permutation(self.size)
                shuffled = epoch
            whole = order[place * batch : (place + 1) * batch]
            size: tuple[int, ...] = ()
            if self.recipe.sizes:
                lot = np.random.default_rng((self.recipe.seed, _LOT, step))
                size = (int(lot.integers(len(self.recipe.sizes))),)
            yield [(epoch, int(i), *size) for i in whole[self.part]]

    def __len__(self) -> int:
        return self.recipe.steps - self.first_step


def loader_of(
    dataset: PoseDataset | PersonDataset, recipe: Recipe, first_step: int, fabric: Fabric
) -> Any:
    """The batches of this process, read ahead by workers and moved to its device."""
    order = Order(
        len(dataset), recipe, first_step, rank=fabric.global_rank, ranks=fabric.world_size
    )
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]  # indexed by (epoch, sample ...), not by a number
        batch_sampler=order,
        num_workers=recipe.workers,
        worker_init_fn=worker_init,
        # Without its own generator the iterator would draw from the global one at every start.
        generator=torch.Generator().manual_seed(recipe.seed),
        prefetch_factor=4 if recipe.workers else None,
        pin_memory=fabric.device.type == "cuda",
    )
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)
