"""The training loop, on Lightning Fabric: flat, and resumable at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from humanpose.checkpoints.store import save_weights
from humanpose.data.detection import PersonDataset
from humanpose.data.pose import PoseDataset
from humanpose.errors import DivergedError
from humanpose.nets.network import Net
from humanpose.nets.torch_runtime import PixelModule
from humanpose.spec import ModelSpec
from humanpose.train import checkpoint, logging
from humanpose.train.checkpoint import Run
from humanpose.train.config import Recipe
from humanpose.train.distributed import broadcast_buffers, launch, shared
from humanpose.train.logging import Meter, Show, told
from humanpose.train.losses import training_loss
from humanpose.train.optim import average, optimizer_of, set_rates
from humanpose.train.sampler import loader_of
from humanpose.types import U8

Validate = Callable[[Net], dict[str, float]]
Picture = Callable[[Net], U8]

_MOST_LOST = 10  # steps in a row without a finite gradient


class TrainModule(PixelModule):
    """The module that is trained: from RGB uint8 (N, H, W, 3) to `Net.trained_maps`."""

    def forward(self, image: Tensor) -> dict[str, Tensor] | list[Tensor]:
        x = self.normalised(image).to(next(self.net.parameters()).dtype)
        return self.net.trained_maps(x.contiguous(memory_format=torch.channels_last))


def fit(
    recipe: Recipe,
    net: Net,
    spec: ModelSpec,
    dataset: PoseDataset | PersonDataset,
    validate: Validate,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    picture: Picture | None = None,
    resume: bool = True,
    show: Show = print,
) -> Path:
    """Train `net` as `recipe` says.

    Args:
        recipe: the run.
        net: with its starting weights.
        spec: of the network; travels in every file that is written.
        dataset: indexed by (epoch, sample).
        validate: scores of a network, better = larger, the same in every process; their mean
            picks the best.
        folder: gets `last.safetensors` (to resume), `best.safetensors` (averaged weights with
            the best score), `curve.csv`, and what the other loggers write.
        fabric: of `distributed.launch`; None = this process alone.
        picture: of what a network does, drawn after each validation.
        resume: go on from `folder`'s last checkpoint if there is one; else those there are
            removed.
        show: takes a line of progress.

    Returns:
        Path of the best weights.

    Raises:
        DivergedError: the gradient is not finite, ten steps in a row.
    """
    recipe = recipe.sized(len(dataset))
    fabric = fabric or launch(recipe, folder)
    run = _start(recipe, net)
    trained: Any = TrainModule(run.net, spec)
    if recipe.compile:
        trained = torch.compile(trained)
    model, optimizer = fabric.setup(trained, run.optimizer)
    fabric.to_device(run.ema)
    if not resume and fabric.is_global_zero:
        checkpoint.remove(folder)
    if resume and checkpoint.load(folder, run, recipe, show):
        show(f"resumed at step {run.step} of {recipe.steps}")
    logging.begin(fabric, recipe, run.step)
    meter = Meter(fabric, recipe, show)
    loader = loader_of(dataset, recipe, run.step, fabric)
    saved, lost, done = time.monotonic(), 0, _ended(recipe, run)
    model.train()
    for batch in () if done else meter.timed(loader):
        rate = set_rates(optimizer, recipe, run.step)
        values = _step(model, optimizer, batch, recipe, fabric)
        lost = 0 if torch.isfinite(values["grad_norm"]) else lost + 1
        if lost == _MOST_LOST:
            logging.end(fabric, "failed")
            raise DivergedError(f"step {run.step}: no finite gradient {lost} times in a row")
        run.step += 1
        if run.ema is not run.net:
            average(run.ema, run.net, recipe.ema, run.step)
        meter.step(run.step, values, rate)
        if _due(recipe, run.step):
            _validate(run, spec, recipe, validate, folder, fabric, meter)
            if picture and fabric.is_global_zero:
                logging.log_picture(fabric, folder, picture(run.ema), run.step)
            model.train()
            meter.restart()
        done = _ended(recipe, run)
        if time.monotonic() - saved > recipe.checkpoint_every or done:
            if fabric.is_global_zero:
                for logger in fabric.loggers:  # first, or a kill would leave a gap in the curve
                    logger.save()
                checkpoint.save(folder, run, recipe)
            saved = time.monotonic()
        if done:
            break
    logging.end(fabric, "success")
    fabric.barrier()
    return folder / "best.safetensors"


def _step(
    model: Any, optimizer: Any, batch: dict[str, Tensor], recipe: Recipe, fabric: Fabric
) -> dict[str, Tensor]:
    """Do one step, unless the gradient is not finite; return its loss, parts and "grad_norm"."""
    out = model(batch["image"])
    loss, parts = training_loss(out, batch, recipe, lambda count: shared(count, fabric))
    fabric.backward(loss)
    norm = fabric.clip_gradients(
        model, optimizer, max_norm=recipe.clip or math.inf, error_if_nonfinite=False
    )
    assert isinstance(norm, Tensor)
    if torch.isfinite(norm):  # a batch that blew up must not end the run, a net that did must
        optimizer.step()
    optimizer.zero_grad()
    return {"loss": loss.detach(), **parts, "grad_norm": norm}


def _start(recipe: Recipe, net: Net) -> Run:
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    own = bool(recipe.ema) or recipe.precision == "64-true"  # what is validated is float32
    ema = deepcopy(net).eval().requires_grad_(False) if own else net
    return Run(net, ema, optimizer_of(recipe, net))


def _ended(recipe: Recipe, run: Run) -> bool:
    stale = bool(recipe.patience) and run.stale >= recipe.patience
    return stale or run.step >= recipe.steps


def _due(recipe: Recipe, step: int) -> bool:
    """Whether a validation follows `step`."""
    assert recipe.validate_every is not None
    seen, every = step * recipe.batch, recipe.validate_every
    return seen // every > (seen - recipe.batch) // every or step == recipe.steps


def _validate(
    run: Run,
    spec: ModelSpec,
    recipe: Recipe,
    validate: Validate,
    folder: Path,
    fabric: Fabric,
    meter: Meter,
) -> None:
    speed = meter.stretch.speed(recipe.batch)
    broadcast_buffers(run.ema, fabric)
    scores = validate(run.ema)
    fabric.log_dict({f"val/{name}": value for name, value in scores.items()}, run.step)
    finite = [value for value in scores.values() if math.isfinite(value)]
    mean = sum(finite) / max(1, len(finite))
    better = mean > run.best or not finite  # nothing to judge by: the latest is the best
    run.stale = 0 if better else run.stale + 1
    text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    seen = f"validation at {run.step * recipe.batch} samples"
    meter.show(f"{seen}: {text}{'  (best)' if better else ''}  {told(speed)}")
    if better:
        run.best, run.scores = mean, scores
        if fabric.is_global_zero:
            save_weights(folder / "best.safetensors", run.ema.state_dict(), spec)
