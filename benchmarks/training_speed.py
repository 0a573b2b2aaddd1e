"""Training samples per second of HRNet-W32 256x256: this project's loop beside the published one.

    git clone https://github.com/leoxiaobin/deep-high-resolution-net.pytorch hrnet
    python benchmarks/training_speed.py --hrnet hrnet --people DATA/mpii_small

Both train the published net (theirs from `lib/models`, ours of the same weights' shapes) with Adam
on the same people: theirs by `lib/core/function.py train` with its own loss, data set class and
photographs, ours by `humanpose train`'s loop from a pack. Each runs in a process of its own: ours
tells the C library to keep freed memory, which would help theirs too. Rounds take turns; a round's
figure is the median over its steps, the table's the median over rounds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from data_loading import official, ours, photographs
from torch import nn
from torch.utils.data import DataLoader

from humanpose import nets
from humanpose.data.pose import worker_init
from humanpose.lab.packing import PackRecipe, build
from humanpose.train.config import Recipe, load_yaml
from humanpose.train.logging import CURVE, curve
from humanpose.train.loop import fit

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "hrnet_w32_mpii.yaml"
WARM = 2  # steps that do not count


def attributes(value: Any) -> Any:
    """Nested tables with their values as attributes and as items, as the published code has it."""
    if not isinstance(value, dict):
        return value
    return _Table({key: attributes(part) for key, part in value.items()})


class _Table(dict):  # type: ignore[type-arg]
    __getattr__ = dict.__getitem__


class Timed:
    """A loader that notes when each batch was asked for."""

    def __init__(self, loader: Any, batch: int) -> None:
        self.loader, self.batch = loader, batch
        self.asked: list[float] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            self.asked.append(time.monotonic())
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def rate(self) -> float:
        """Median samples/s of a step."""
        took = [b - a for a, b in zip(self.asked, self.asked[1:], strict=False)]
        return self.batch / statistics.median(took[WARM:])


def published_round(hrnet: Path, folder: Path, batch: int, steps: int) -> float:
    """One round of the published loop."""
    return published(hrnet, folder, batch, steps)()


@cache
def published(hrnet: Path, folder: Path, batch: int, steps: int) -> Callable[[], float]:
    """The published loop, as its `tools/train.py` sets it up, without a GPU; gives samples/s."""
    dataset = official(hrnet, folder)
    for name in ("torchvision", "torchvision.utils"):  # only draws debug pictures, which are off
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision"].utils = sys.modules["torchvision.utils"]  # type: ignore[attr-defined]
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,assignment]
    from core.function import train  # type: ignore[import-not-found]
    from core.loss import JointsMSELoss  # type: ignore[import-not-found]
    from models.pose_hrnet import get_pose_net  # type: ignore[import-not-found]

    path = hrnet / "experiments/mpii/hrnet/w32_256x256_adam_lr1e-3.yaml"
    config = attributes(yaml.safe_load(path.read_text()))
    config.DEBUG.update(dict.fromkeys(config.DEBUG, False))
    net = get_pose_net(config, is_train=False)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.TRAIN.LR)
    nothing = types.SimpleNamespace(add_scalar=lambda *_: None)
    writer = {"writer": nothing, "train_global_steps": 0}

    def one_round() -> float:
        some = torch.utils.data.Subset(dataset, range(batch * steps))
        loader = DataLoader(
            some, batch, shuffle=True, num_workers=2, worker_init_fn=worker_init,
            multiprocessing_context="fork",  # this process was spawned; their data set cannot be
        )  # fmt: skip
        timed = Timed(loader, batch)
        train(config, timed, net, JointsMSELoss(True), optimizer, 0, "", "", writer)
        return timed.rate()

    return one_round


def our_round(pack: Path, batch: int, steps: int, precision: str, compiled: bool) -> float:
    """One round of our loop."""
    dataset = ours(pack)
    torch.manual_seed(0)
    net: nn.Module = nets.create("hrnet-w32", joints=16)
    recipe = load_yaml(RECIPE, (), Recipe).model_copy(
        update={
            "epochs": None, "samples": batch * steps, "schedule": "constant", "drops": [],
            "batch": batch, "workers": 2, "log_every": 1, "loggers": ["csv"],
            "precision": precision, "compile": compiled,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fit(recipe, net, dataset.spec, dataset, lambda _: {}, folder, show=lambda _: None)
        figures = curve(folder / CURVE)
    speeds = list(figures["samples_per_s"].values())
    waited = statistics.median(figures["data_wait"].values())
    print(f"  {precision}: waited for data {waited:.0%} of a step", file=sys.stderr)
    return statistics.median(speeds[WARM:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hrnet", type=Path, required=True, help="checkout of the published code")
    parser.add_argument("--people", type=Path, required=True, help="MPII data with pictures")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile too; slow to begin")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs(options.people, folder, options.batch * options.steps)
        pack = folder / "people.json"
        build(PackRecipe(data=[f"mpii={folder}"]), pack)
        shape = (options.batch, options.steps)
        runs: dict[str, tuple[Any, ...]] = {
            "published loop, float32": (published_round, options.hrnet, folder, *shape),
            "ours, float32": (our_round, pack, *shape, "32-true", False),
            "ours, bf16": (our_round, pack, *shape, "bf16-mixed", False),
        }
        if options.compile:
            runs["ours, bf16, compiled"] = (our_round, pack, *shape, "bf16-mixed", True)
        rates: dict[str, list[float]] = {label: [] for label in runs}
        with ExitStack() as stack:
            context = multiprocessing.get_context("spawn")
            own = {
                label: stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
                for label in runs
            }
            for _ in range(options.rounds):
                for label, what in runs.items():
                    rates[label].append(own[label].submit(*what).result())
                    print(f"  {label}: {rates[label][-1]:.2f} samples/s", file=sys.stderr)
    base = statistics.median(next(iter(rates.values())))
    for label, found in rates.items():
        rate = statistics.median(found)
        print(f"{label:<28}{rate:8.2f} samples/s  {rate / base:6.2f} x")


if __name__ == "__main__":
    main()
