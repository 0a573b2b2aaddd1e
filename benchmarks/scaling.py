"""What a step of two processes should cost, and what it does: the model of docs/scaling.md.

    python benchmarks/scaling.py --people DATA/mpii_small

Measures one process on half a batch (compute and data) and an all-reduce of the gradients, adds
them up, then runs `humanpose train --devices 2` with the whole batch and compares. One thread a
process throughout; medians over the steps after the first ones. Rounds take turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml

from humanpose import nets
from humanpose.train.logging import curve

WARM = 3  # steps that do not count
OPTIONS = {"width": 16}


def step_seconds(folder: Path, data: str, batch: int, steps: int, devices: int) -> float:
    """Median seconds of a step of `humanpose train`."""
    recipe = {
        "name": "scaling", "task": "pose", "net": "hrnet-w32", "options": OPTIONS,
        "input": [128, 128], "data": [data], "targets": "hrnet", "sigma": 2, "loss": "mse",
        "samples": batch * steps, "batch": batch, "lr": 1e-3, "precision": "32-true",
        "workers": 0, "threads": 1, "log_every": 1, "loggers": ["csv"],
        "validate_every": 10**9, "checkpoint_every": 1e9,
    }  # fmt: skip
    folder.mkdir()
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = [Path(sys.executable).with_name("humanpose"), "train", path, "-o", folder]
    subprocess.run(
        [*command, "--devices", str(devices), "--accelerator", "cpu"],
        check=True, capture_output=True,
    )  # fmt: skip
    rates = list(curve(folder / "curve.csv")["samples_per_s"].values())
    return batch / statistics.median(rates[WARM:])


def _reduce(rank: int, count: int, file: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    gradients, took = torch.ones(count), []
    for _ in range(12):
        dist.barrier()
        start = time.monotonic()
        dist.all_reduce(gradients)
        took.append(time.monotonic() - start)
    if rank == 0:
        Path(out).write_text(str(statistics.median(took[WARM:])))
    dist.barrier()
    dist.destroy_process_group()  # else its threads may abort the process as it ends


def reduce_seconds(folder: Path, count: int) -> float:
    """Median seconds in which two processes add up `count` float32 numbers."""
    folder.mkdir()
    arguments = (count, str(folder / "meet"), str(folder / "took"))
    mp.spawn(_reduce, arguments, nprocs=2)  # type: ignore[no-untyped-call]
    return float((folder / "took").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=Path, required=True, help="MPII data with pictures")
    parser.add_argument("--batch", type=int, default=16, help="of both processes together")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    net = nets.create("hrnet-w32", joints=16, **OPTIONS)
    count = sum(p.numel() for p in net.parameters())
    data, batch = f"mpii={options.people.absolute()}", options.batch
    figures: dict[str, list[float]] = {"half": [], "whole": [], "reduce": [], "two": []}
    with tempfile.TemporaryDirectory() as name:
        for i in range(options.rounds):
            base = Path(name) / str(i)
            base.mkdir()
            measured = {
                "half": step_seconds(base / "half", data, batch // 2, options.steps, 1),
                "whole": step_seconds(base / "whole", data, batch, options.steps, 1),
                "reduce": reduce_seconds(base / "reduce", count),
                "two": step_seconds(base / "two", data, batch, options.steps, 2),
            }
            print({key: round(value, 4) for key, value in measured.items()}, file=sys.stderr)
            for key, value in measured.items():
                figures[key].append(value)
    half, whole, reduce, two = (statistics.median(each) for each in figures.values())
    predicted = half + reduce
    print(f"gradients                     {4 * count / 1e6:8.1f} MB")
    print(f"step, 1 process, batch {batch:<4}   {whole:8.3f} s  {batch / whole:7.1f} samples/s")
    print(f"step, 1 process, batch {batch // 2:<4}   {half:8.3f} s")
    print(f"all-reduce, 2 processes       {reduce:8.3f} s")
    print(f"step, 2 processes, predicted  {predicted:8.3f} s  {batch / predicted:7.1f} samples/s")
    print(f"step, 2 processes, measured   {two:8.3f} s  {batch / two:7.1f} samples/s")
    print(f"measured / predicted          {two / predicted:8.2f}")


if __name__ == "__main__":
    main()
