"""Speed of the reference networks: eager torch against OpenVINO in float32, bf16 and INT8.

    python benchmarks/reference_speed.py FOLDER [--rounds 7]

Makes the networks with random weights and their ONNX files in FOLDER (minutes; what is there is
used again), then times one crop at a time, round by round: every contender once a round, and the
median of the rounds. "times" is how often faster OpenVINO is in float32, bf16 and INT8 than torch
in either layout. Prints a Markdown table. Needs the extras train and int8.

The CPM pair is what the original runs for one person in a 16:9 picture at box size 192: the
person net on the picture scaled to 192 rows and filled up to a multiple of 8, then the pose net
on one crop of 192x192.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from torch import nn

from humanpose import nets
from humanpose.checkpoints.store import load_net, save_weights
from humanpose.export.accuracy_check import Examples
from humanpose.export.onnx import Lower, export
from humanpose.infer import runtime
from humanpose.infer.options import InferenceOptions
from humanpose.lab.training import network_scores
from humanpose.skeleton import COCO17, CPM14
from humanpose.spec import ModelSpec

BOX = 192
PERSON_WIDTH = -(-round(BOX * 16 / 9) // 8) * 8  # 341 columns, filled up to 344
_HRNET = {"multiple_of": 32, "grid": "corner", "decode": "quarter"}
_CPM = {
    "multiple_of": 8,
    "channels": "bgr",
    "mean": (128.0,) * 3,
    "std": (256.0,) * 3,
    "stride": 8,
}
SPECS = {
    spec.name: spec
    for spec in (
        ModelSpec("w32-256x256", "pose", "hrnet-w32", {}, COCO17, (256, 256), **_HRNET),
        ModelSpec("w32-256x192", "pose", "hrnet-w32", {}, COCO17, (192, 256), **_HRNET),
        ModelSpec(
            "cpm-person", "person", "cpm-person", {}, CPM14, (PERSON_WIDTH, BOX),
            crop="picture-height", decode="peaks", **_CPM,
        ),
        ModelSpec(
            "cpm-pose", "pose", "cpm-vgg", {}, CPM14, (BOX, BOX),
            background=True, decode="argmax", **_CPM,
        ),
    )
}  # fmt: skip
# Row of the table -> networks run one after the other, and the bars: bf16, INT8.
ROWS = {
    "HRNet-W32, 256x256": (("w32-256x256",), (4.0, 6.0)),
    "HRNet-W32, 256x192": (("w32-256x192",), None),
    f"CPM person + pose, box {BOX}": (("cpm-person", "cpm-pose"), (2.5, 4.8)),
}
WAYS = ("torch NCHW", "torch channels-last", "float32", "bf16", "int8")


def make(folder: Path) -> None:
    """Weights, float32 and INT8 files of every network that FOLDER does not have yet."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (9, 16, 3), np.uint8)
        pictures.append(folder / f"noise{i}.png")
        cv2.imwrite(str(pictures[-1]), cv2.resize(noise, (PERSON_WIDTH, BOX)))
    for name, spec in SPECS.items():
        weights = folder / f"{name}.safetensors"
        if not weights.exists():
            torch.manual_seed(0)
            net = nets.create(spec.net, **spec.options)
            for part in net.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.kaiming_normal_(part.weight)
            save_weights(weights, net.state_dict(), spec)
        lower = Lower("int8", Examples({}, tuple(pictures), network_scores), math.inf)
        for precision, asked in (("float32", None), ("int8", lower)):
            if not (folder / f"{name}.{precision}.onnx").exists():
                export(weights, folder / f"{name}.{precision}.onnx", lower=asked)


def contender(folder: Path, name: str, way: str) -> Callable[[], object]:
    """One call of network `name`: a crop in, maps out."""
    spec = SPECS[name]
    width, height = spec.input
    crop = np.random.default_rng(1).integers(0, 256, (1, height, width, 3), np.uint8)
    if not way.startswith("torch"):
        file = folder / f"{name}.{'int8' if way == 'int8' else 'float32'}.onnx"
        precision = "auto" if way == "int8" else way  # of the layers that are not INT8
        loaded, _ = runtime.load(
            file, InferenceOptions(runtime="openvino", precision=precision, cache="")
        )
        return lambda: loaded.run(crop)
    net, _ = load_net(folder / f"{name}.safetensors")
    image = torch.from_numpy(crop).permute(0, 3, 1, 2).float().contiguous() / 256 - 0.5
    if way == "torch channels-last":
        net = net.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return net.outputs(image)

    return run


def milliseconds(run: Callable[[], object]) -> float:
    """Of one call; long enough that both cores take part, after the last one's threads rest."""
    time.sleep(0.1)
    run()
    calls, start = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - start < 0.3:
        run()
        calls += 1
    return (time.perf_counter() - start) / calls * 1e3


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")),
                platform.processor())  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    cores = psutil.cpu_count(logical=False) or 1
    torch.set_num_threads(cores)
    make(args.folder)
    runs = {
        (row, way): [contender(args.folder, name, way) for name in names]
        for row, (names, _) in ROWS.items()
        for way in WAYS
    }
    print(f"{processor()}, {cores} cores, {platform.system()}; ", end="")
    print(", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "openvino", "nncf")))
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for i in range(args.rounds):
        print(f"round {i + 1}: load {psutil.getloadavg()[0]:.1f}", flush=True)
        for key, calls in runs.items():
            times[key].append(milliseconds(lambda calls=calls: [call() for call in calls]))
    print(f"\nmedians of {args.rounds} interleaved rounds, ms\n")
    head = ("network", "GMAC", *WAYS, *(f"times {way}" for way in WAYS[:2]), "bars")
    print(f"| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    for row, (names, bars) in ROWS.items():
        work = sum(nets.macs(SPECS[n].net, SPECS[n].input) for n in names) / 1e9
        cells = [row, f"{work:.1f}"]
        cells += [f"{statistics.median(times[row, way]):.1f}" for way in WAYS]
        for eager in WAYS[:2]:
            # Of each round, so that what slows the machine for a while slows both sides.
            ratios = [
                statistics.median(
                    slow / fast
                    for slow, fast in zip(times[row, eager], times[row, way], strict=True)
                )
                for way in WAYS[2:]
            ]
            cells.append(", ".join(f"{ratio:.2f}" for ratio in ratios))
        cells.append(f"bf16 {bars[0]:g}, int8 {bars[1]:g}" if bars else "")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
