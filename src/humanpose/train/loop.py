"""The training loop, on Lightning Fabric: flat, and resumable at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.csv_logs import CSVLogger
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

from humanpose.checkpoints.store import save_weights
from humanpose.data.dataset import PoseDataset, worker_init
from humanpose.data.people import PersonDataset
from humanpose.nets.torch_runtime import Deployed
from humanpose.spec import ModelSpec
from humanpose.train import checkpoint
from humanpose.train.config import Recipe
from humanpose.train.losses import person_loss, pose_loss
from humanpose.train.meter import Meter, Show

Validate = Callable[[nn.Module], dict[str, float]]


@dataclass
class Run:
    """Everything that changes while training, and so everything a checkpoint holds."""

    net: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = -math.inf
    scores: dict[str, float] = field(default_factory=dict)


class Order:
    """Batches of (epoch, sample): a function of (seed, step) alone, so that resume is exact."""

    def __init__(self, size: int, recipe: Recipe, first_step: int) -> None:
        self.size = size
        self.recipe = recipe
        self.first_step = first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batch, per_epoch = self.recipe.batch, max(1, self.size // self.recipe.batch)
        for step in range(self.first_step, self.recipe.steps):
            epoch, place = divmod(step, per_epoch)
            order = np.random.default_rng((self.recipe.seed, epoch)).permutation(self.size)
            yield [(epoch, int(i)) for i in order[place * batch : (place + 1) * batch]]

    def __len__(self) -> int:
        return self.recipe.steps - self.first_step


def fit(
    recipe: Recipe,
    net: nn.Module,
    spec: ModelSpec,
    dataset: PoseDataset | PersonDataset,
    validate: Validate,
    folder: Path,
    *,
    resume: bool = True,
    show: Show = print,
) -> Path:
    """Train `net` as `recipe` says.

    Args:
        recipe: the run.
        net: with its starting weights.
        spec: of the network; travels in every file that is written.
        dataset: indexed by (epoch, sample).
        validate: scores of a network, better = larger; their mean picks the best.
        folder: gets `last.safetensors` (to resume), `best.safetensors` (averaged weights with
            the best score), and below csv/ and tensorboard/ the curves, a version a start.
        resume: go on from `folder`'s last checkpoint if there is one.
        show: takes a line of progress.

    Returns:
        Path of the best weights.
    """
    fabric = _fabric(recipe, folder)
    run = _start(recipe, net)
    if resume and checkpoint.load(folder, run, show):
        show(f"resumed at step {run.step} of {recipe.steps}")
    pixels = Deployed(run.net, spec)
    fabric.to_device(pixels)
    model, optimizer = fabric.setup(run.net, run.optimizer)
    run.ema = fabric.to_device(run.ema)
    loss_of: Callable[..., Any] = pose_loss if recipe.task == "pose" else person_loss
    every = max(1, recipe.validate_every // recipe.batch)
    meter = Meter(fabric, recipe, show)
    saved = time.monotonic()
    model.train()
    for batch in meter.timed(_loader(dataset, recipe, run.step, fabric)):
        rate = _set_rates(optimizer, recipe, run.step)
        image = pixels.normalised(batch["image"]).contiguous(memory_format=torch.channels_last)
        loss, parts = loss_of(model(image), batch)
        fabric.backward(loss)
        norm = fabric.clip_gradients(
            model, optimizer, max_norm=recipe.clip, error_if_nonfinite=False
        )
        assert isinstance(norm, torch.Tensor)
        if torch.isfinite(norm):  # a batch that blew up must not end the run
            optimizer.step()
        optimizer.zero_grad()
        run.step += 1
        _average(run, recipe.ema)
        meter.step(run.step, {"loss": loss.detach(), **parts, "grad_norm": norm}, rate)
        if run.step % every == 0 or run.step == recipe.steps:
            _validate(run, spec, recipe, validate, folder, fabric, show)
            meter.restart()
        if time.monotonic() - saved > recipe.checkpoint_every or run.step == recipe.steps:
            checkpoint.save(folder, run, recipe)
            saved = time.monotonic()
    for logger in fabric.loggers:
        logger.finalize("success")
    return folder / "best.safetensors"


def _fabric(recipe: Recipe, folder: Path) -> Fabric:
    fabric = Fabric(
        accelerator="auto",
        devices=1,
        precision=recipe.precision,
        # A new version folder at each start: resuming must not overwrite the curve so far.
        loggers=[CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")],
    )
    fabric.launch()
    fabric.seed_everything(recipe.seed, verbose=False)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    return fabric


def _start(recipe: Recipe, net: nn.Module) -> Run:
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    backbone = [p for name, p in net.named_parameters() if name.startswith("backbone.")]
    rest = [p for name, p in net.named_parameters() if not name.startswith("backbone.")]
    groups: list[dict[str, Any]] = [
        {"params": rest, "peak": recipe.lr},
        {"params": backbone, "peak": recipe.backbone_lr},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    ema = deepcopy(net).eval().requires_grad_(False)
    return Run(net, ema, optimizer)


def _loader(
    dataset: PoseDataset | PersonDataset, recipe: Recipe, first_step: int, fabric: Fabric
) -> Any:
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]  # indexed by (epoch, sample), not by a number
        batch_sampler=Order(len(dataset), recipe, first_step),
        num_workers=recipe.workers,
        worker_init_fn=worker_init,
        # Without its own generator the iterator would draw from the global one at every start.
        generator=torch.Generator().manual_seed(recipe.seed),
        prefetch_factor=4 if recipe.workers else None,
    )
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def _set_rates(optimizer: Any, recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to zero; returns the rate of the new layers."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    share = warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return float(optimizer.param_groups[0]["lr"])


@torch.no_grad()
def _average(run: Run, decay: float) -> None:
    # A young average follows quickly, or the random start would stay in it for long.
    decay = min(decay, (1 + run.step) / (10 + run.step))
    ours = [p for p in run.ema.state_dict().values() if p.is_floating_point()]
    new = [p for p in run.net.state_dict().values() if p.is_floating_point()]
    torch._foreach_lerp_(ours, new, 1 - decay)


def _validate(
    run: Run,
    spec: ModelSpec,
    recipe: Recipe,
    validate: Validate,
    folder: Path,
    fabric: Fabric,
    show: Show,
) -> None:
    scores = validate(run.ema)
    fabric.log_dict({f"val/{name}": value for name, value in scores.items()}, run.step)
    mean = sum(scores.values()) / max(1, len(scores))
    better = mean > run.best
    text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    show(f"validation at {run.step * recipe.batch} samples: {text}{'  (best)' if better else ''}")
    if better:
        run.best, run.scores = mean, scores
        save_weights(folder / "best.safetensors", run.ema.state_dict(), spec)
