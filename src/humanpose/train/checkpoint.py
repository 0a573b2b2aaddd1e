"""Checkpoints of a run: tensors and state in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from humanpose.checkpoints.store import load_tensors
from humanpose.errors import FormatError, InputError
from humanpose.files import atomic_write
from humanpose.nets.network import Net
from humanpose.train.config import MACHINE, Recipe

_LAST, _PREVIOUS = "last.safetensors", "previous.safetensors"
# Keys that a resumed run may change: places, length and speed of the run.
_FREE = (*MACHINE, "name", "start", "marks", "samples", "patience", "validate_every")


@dataclass
class Run:
    """The state of a training, which a checkpoint holds.

    Attributes:
        net: in training.
        ema: its averaged weights; `net` itself where the recipe wants no average.
        optimizer: of `net`.
        step: done so far.
        best: largest mean of the scores so far.
        scores: those of the best.
        stale: validations since then.
    """

    net: Net
    ema: Net
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = -math.inf
    scores: dict[str, float] = field(default_factory=dict)
    stale: int = 0


def save(folder: Path, run: Run, recipe: Recipe) -> None:
    """Write the state of `run` to `folder`; the one before it is kept too."""
    tensors = {f"net/{name}": value for name, value in run.net.state_dict().items()}
    if run.ema is not run.net:
        tensors |= {f"ema/{name}": value for name, value in run.ema.state_dict().items()}
    for index, slots in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in slots.items()}
    state = {
        "step": run.step,
        "best": run.best,
        "scores": run.scores,
        "stale": run.stale,
        "recipe": recipe.model_dump(mode="json"),
        # Another thread count sums in another order: the curve would differ in the last bits.
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = safetensors.torch.save(plain, metadata={"run": json.dumps(state)})
    last = folder / _LAST
    if last.exists():
        last.replace(folder / _PREVIOUS)
    with atomic_write(last) as file:
        file.write(data)


def remove(folder: Path) -> None:
    """Remove the checkpoints of `folder`: a run that begins anew must not resume from them."""
    for name in (_LAST, _PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def load(folder: Path, run: Run, recipe: Recipe, show: Callable[[str], None]) -> bool:
    """Put the newest readable checkpoint of `folder` into `run`; False if there is none.

    Raises:
        InputError: if a checkpoint is there but belongs to another network or recipe.
    """
    for part in folder.glob(f"{_LAST}.*.part"):  # of a kill while it was written
        part.unlink(missing_ok=True)
    for path in (folder / _LAST, folder / _PREVIOUS):
        if not path.exists():
            continue
        try:
            tensors, metadata = load_tensors(path)
            state = json.loads(metadata["run"])
        except (FormatError, KeyError, ValueError) as error:
            show(f"warning: {path}: skipped, not readable ({error})")
            with suppress(FileNotFoundError):  # another process of the run was first
                # Out of the way: the next save would put it in the place of the one before.
                path.replace(path.with_suffix(".unreadable"))
            continue
        _refuse_other(path, state["recipe"], recipe)
        try:
            _restore(run, tensors)
        except (RuntimeError, KeyError, ValueError) as error:
            raise InputError(
                f"{path}: belongs to another network; use another -o, or --restart"
            ) from error
        run.step, run.best, run.scores = state["step"], state["best"], state["scores"]
        run.stale = state.get("stale", 0)  # older checkpoints have none
        if state["threads"] != torch.get_num_threads():
            show(
                f"warning: {path} was written by {state['threads']} threads, this is another "
                "count: the last bits will differ"
            )
        return True
    return False


def _refuse_other(path: Path, saved: dict[str, Any], recipe: Recipe) -> None:
    """Raise an InputError if `recipe` would not have led to a checkpoint of the recipe `saved`."""
    try:  # what was saved before a key was added gets its default
        was, plain = map(_plain, (Recipe.model_validate(saved), recipe))
    except ValidationError as error:
        raise InputError(f"{path}: its recipe is not one of today; use another -o") from error
    changed = [
        f"{key} was {was[key]}, is {value}" for key, value in plain.items() if value != was[key]
    ]
    if changed:
        raise InputError(
            f"{path}: belongs to another recipe ({'; '.join(changed)}); "
            "use another -o, or --restart"
        )


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Return the keys of `recipe` that a resumed run must keep; of data sets only the names."""
    tree = recipe.model_dump(mode="json", exclude=set(_FREE))
    return tree | {"data": [entry.partition("=")[0] for entry in recipe.data]}


def _restore(run: Run, tensors: dict[str, Tensor]) -> None:
    parts: dict[str, dict[str, Tensor]] = {"net": {}, "ema": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    run.net.load_state_dict(parts["net"])
    if run.ema is not run.net:
        run.ema.load_state_dict(parts["ema"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, _, slot = name.partition("/")
        slots.setdefault(int(index), {})[slot] = value
    groups = run.optimizer.state_dict()["param_groups"]
    run.optimizer.load_state_dict({"state": slots, "param_groups": groups})
