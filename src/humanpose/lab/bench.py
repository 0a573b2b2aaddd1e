"""Measure speed, memory, start-up and scores of networks: models x sizes x back-ends.

Each round runs every combination once, in a process of its own (`bench_child`), so that a slow
minute of the machine falls on all of them alike.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from humanpose import __version__
from humanpose.errors import HumanPoseError, InputError, require
from humanpose.infer.options import BACKENDS, PRECISIONS, InferenceOptions
from humanpose.infer.runtime import weights_path

_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_TRANSPOSED = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")
_BUSY = 0.3  # load per core at the start from which milliseconds are in doubt

Tell = Callable[[str], None]
Scores = dict[str, tuple[str, float]]  # data set -> (rule, value in [0, 1])


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one combination.

    Attributes:
        options: the combination.
        why: why it cannot run; "" if it ran.
        figures: values by their name in bench.csv: see `summary`.
        scores: by data set.
    """

    options: InferenceOptions
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        """Return a figure; NaN where it was not measured."""
        return float(self.figures.get(name, math.nan))


@dataclass(frozen=True, slots=True)
class Protocol:
    """Measure the first `frames` frames of `source` ("": a made-up picture) in each of `rounds`."""

    source: str
    frames: int = 300
    rounds: int = 5


def combinations(
    models: Sequence[str],
    *,
    detector: str = "person",
    sizes: Sequence[int] = (),
    runtimes: Sequence[str] = BACKENDS[1:],
    precisions: Sequence[str] = PRECISIONS[1:],
    threads: Sequence[int] = (),
    devices: Sequence[str] = (),
) -> list[InferenceOptions]:
    """Return the combinations to measure; an empty axis is what this machine offers.

    Args:
        models: MODEL or MODEL+DETECTOR each.
        detector: of the models that name none.
        sizes: heights of the input; the networks' own if empty.
        runtimes: back-ends; a .safetensors file runs on torch ("auto").
        precisions: of PRECISIONS without "auto".
        threads: of the CPU; one, all physical and all logical cores if empty.
        devices: the CPU, and the GPU where the runtime has one, if empty.

    Raises InputError: no such model, or a value that is not allowed.
    """
    if not models:
        raise InputError("--models: name at least one")
    if "auto" in (*runtimes, *precisions):
        raise InputError("bench measures each runtime and precision: name them in place of 'auto'")
    found = []
    all_threads: Sequence[int] = threads or sorted({1, cores(), os.cpu_count() or 1})
    for entry, size in product(models, sizes or (None,)):
        model, found_by = _pair(entry, detector)
        only_torch = ".safetensors" in (Path(model).suffix, Path(found_by).suffix)
        for runtime, precision in product(("auto",) if only_torch else runtimes, precisions):
            for device in devices or _devices(runtime):
                counts: Sequence[int | None] = all_threads if device == "cpu" else (None,)
                found += [
                    InferenceOptions(
                        model=model, detector=found_by, size=size, runtime=runtime,
                        precision=precision, device=device, threads=count,
                    )
                    for count in counts
                ]  # fmt: skip
    return list(dict.fromkeys(found))


def label(options: InferenceOptions, precision: str = "") -> str:
    """Return one line that names a combination; `precision`: what the networks computed in."""
    size = "" if options.size is None else f" at {options.size}"
    threads = f"{options.threads} thread{'s' * (options.threads != 1)}"
    where = options.device if options.threads is None else threads
    computed = f"{backend(options)} {precision or options.precision}"
    return f"{Path(options.model).stem}{size}, {computed}, {where}"


def backend(options: InferenceOptions) -> str:
    """Return the name of the back-end of a combination."""
    return "torch" if options.runtime == "auto" else options.runtime


def cores() -> int:
    """Return the default threads of a network call: one per physical core, by OpenVINO's count."""
    import openvino as ov
    import openvino.opset13 as ops

    value = ops.parameter([1], np.float32)
    model = ov.Model([ops.relu(value)], [value], "cores")
    compiled = ov.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return int(compiled.get_property("INFERENCE_NUM_THREADS"))


def _devices(runtime: str) -> tuple[str, ...]:
    """Return the CPU, and the GPU where the runtime has one."""
    if runtime == "openvino":
        import openvino as ov

        if any(name.startswith("GPU") for name in ov.Core().available_devices):
            return "cpu", "gpu"
    elif runtime == "onnxruntime" and importlib.util.find_spec("onnxruntime"):
        import onnxruntime as ort

        if "CUDAExecutionProvider" in ort.get_available_providers():
            return "cpu", "cuda"
    return ("cpu",)


def _pair(entry: str, detector: str) -> tuple[str, str]:
    """Return (model, detector) of "MODEL" or "MODEL+DETECTOR"; a file's name may hold a +."""
    if "+" in entry and not Path(entry).is_file():
        entry, _, detector = entry.rpartition("+")
    for name in (entry, detector):
        if name != "none":
            weights_path(name)
    return entry, detector


def measure(
    wanted: Sequence[InferenceOptions], protocol: Protocol, tell: Tell = lambda line: None
) -> list[Row]:
    """Return one row per combination, in their order; `tell` takes a line before every turn."""
    results: list[list[dict[str, Any]]] = [[] for _ in wanted]
    with tempfile.TemporaryDirectory(prefix="humanpose-bench-") as folder:
        for turn in range(protocol.rounds):
            for place, options in enumerate(wanted):
                if results[place] and "why" in results[place][-1]:
                    continue
                where = f"round {turn + 1}/{protocol.rounds}, {place + 1}/{len(wanted)}"
                tell(f"{where}: {label(options)}")
                own = Path(folder) / str(place)  # its cache is empty in the first round
                own.mkdir(exist_ok=True)
                results[place].append(_in_child(options, protocol, own))
    return [
        Row(options, had[-1]["why"]) if "why" in had[-1] else Row(options, figures=summary(had))
        for options, had in zip(wanted, results, strict=True)
    ]


def _in_child(options: InferenceOptions, protocol: Protocol, folder: Path) -> dict[str, Any]:
    own = asdict(replace(options, cache=str(folder / "cache")))
    job = {"options": own, "source": protocol.source, "frames": protocol.frames}
    path = folder / "job.json"
    path.write_text(json.dumps(job, default=str), encoding="utf-8")
    command = [sys.executable, "-m", "humanpose.lab.bench_child", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode:
        last = (ended.stderr.strip() or "it said nothing").splitlines()[-1]
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"code {ended.returncode}"
        return {"why": f"the process ended with {how}: {last[:200]}"}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a combination from the results of its rounds (`bench_child.measure`).

    Times are ms a frame: the median over rounds of each round's median (`_p95`: 95th percentile)
    over all frames. full_ms is reading, detector, pose and drawing. The pose of a frame without
    people takes 0 ms, so that every column is of the same frames; pose_1_ms and pose_more_ms are
    of frames with one person and with more. start_cold_s is from the first import to the first
    result with an empty cache of compiled models, start_warm_s with a filled one. gmac: 1e9
    multiply-accumulates of one input.
    """
    people = np.array([frame[0] for frame in rounds[0]["frames"]])
    times = np.array([[frame[1:] for frame in result["frames"]] for result in rounds])
    full, detector, pose = np.moveaxis(times, -1, 0)  # each (rounds, frames)
    medians = np.median(full, axis=1)
    parts = {"pose": pose, "full": full}
    if "detector" in rounds[0]["networks"]:
        parts = {"detector": detector} | parts
    groups = {"0": people == 0, "1": people == 1, "more": people > 1}
    figures: dict[str, Any] = {f"frames_{name}": int(own.sum()) for name, own in groups.items()}
    for name, part in parts.items():
        figures[f"{name}_ms"] = float(np.median(np.median(part, axis=1)))
        figures[f"{name}_p95_ms"] = float(np.median(np.percentile(part, 95, axis=1)))
    for name in ("1", "more"):
        if figures[f"frames_{name}"]:
            own = np.median(pose[:, groups[name]], axis=1)
            figures[f"pose_{name}_ms"] = float(np.median(own))
    figures |= {
        "full_low_ms": float(medians.min()),
        "full_high_ms": float(medians.max()),
        "frames_per_s": float(np.median(1e3 / full.mean(axis=1))),
        "start_cold_s": rounds[0]["start"],
    }
    if len(rounds) > 1:
        figures["start_warm_s"] = float(np.median([result["start"] for result in rounds[1:]]))
    if rounds[0]["memory"] is not None:
        figures["memory_mib"] = float(np.median([r["memory"] for r in rounds])) / 2**20
    for task, net in rounds[0]["networks"].items():
        figures |= {f"{task}_{name}": value for name, value in net.items()}
    return figures


def score(
    wanted: Sequence[InferenceOptions],
    data: Sequence[str],
    split: str,
    tell: Tell = lambda line: None,
) -> dict[InferenceOptions, Scores]:
    """Return each data set's own score, boxes given; {} for a network that cannot be loaded.

    Combinations that differ only in threads and detector share their score.

    Raises InputError: a data set cannot be read.
    """
    from humanpose.evaluate.run import load_network, matched_on, read_all
    from humanpose.evaluate.scores import Comparison, Rules

    sets, _ = read_all(data, (), split, Rules())
    known: dict[InferenceOptions, Scores] = {}
    keys = [replace(options, threads=None, detector=None, cache="") for options in wanted]
    for key, options in zip(keys, wanted, strict=True):
        if key in known:
            continue
        tell(f"scores: {label(options)}")
        known[key] = {}
        try:
            network = load_network(str(key.model), key)
        except HumanPoseError:  # measuring it will say why
            continue
        for truth in sets:
            first = Comparison(matched_on(truth, network), truth).scores[0]
            known[key][truth.name] = (first.rule, first.value)
    return {options: known[key] for key, options in zip(keys, wanted, strict=True)}


def macs(path: Path, size: tuple[int, int]) -> int:
    """Return the multiply-accumulates of the .onnx or .safetensors file at `size` (w, h) pixels.

    Convolutions and matrix products count.

    Raises MissingExtraError: torch, which a .safetensors file needs, is not installed.
    """
    if path.suffix == ".safetensors":
        require("torch", "train")
        from humanpose import nets
        from humanpose.checkpoints.store import load_net

        _, spec = load_net(path)
        return nets.macs(spec.net, size, **spec.options)
    import openvino as ov

    model = ov.Core().read_model(path)
    model.reshape([1, size[1], size[0], 3])
    return sum(macs_of_node(node) for node in model.get_ordered_ops())


def macs_of_node(node: Any) -> int:
    """Return the multiply-accumulates of one operation of an OpenVINO graph."""
    kind = node.get_type_name()
    if kind in _CONVOLUTIONS:  # once for every weight and cell of the output
        images, _, *cells = node.output(0).get_shape()
    elif kind in _TRANSPOSED:  # of the input
        images, _, *cells = node.input(0).get_shape()
    elif kind == "MatMul":
        shape = list(node.input(0).get_shape())
        inner = shape[-2 if node.get_attributes()["transpose_a"] else -1]
        return int(math.prod(node.output(0).get_shape()) * inner)
    else:
        return 0
    return int(images * math.prod(node.input(1).get_shape()) * math.prod(cells))


def describe(protocol: Protocol) -> list[str]:
    """Return lines about the machine, versions, source and protocol; a warning if it is busy."""
    import openvino as ov

    versions = {each.name: each.version for each in importlib.metadata.distributions()}
    used = [f"{n} {versions[n]}" for n in ("openvino", "onnxruntime", "torch") if n in versions]
    cpu, own = str(ov.Core().get_property("CPU", "FULL_DEVICE_NAME")).strip(), cores()
    what = Path(protocol.source).name if protocol.source else "a made-up picture, 640x480"
    lines = [
        f"humanpose {__version__} on {cpu}, {own} physical cores, {platform.system()}; "
        f"{', '.join(used)}",
        f"At most the first {protocol.frames} frames of {what}, one after another; "
        f"{protocol.rounds} round{'s' if protocol.rounds > 1 else ''}, each combination in a "
        "process of its own. Times: median / 95th percentile. Full: reading, detector, pose, "
        "drawing. GMAC: detector, pose. Start: first import to first result, empty / filled cache.",
    ]
    if not protocol.source:
        lines.append(
            "The made-up picture shows no people: the pose network gets the whole picture. Give "
            "a --video to measure with people."
        )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > _BUSY * own:
        lines.append(
            f"Other work ran on the machine at the start (load {load:.1f}): trust ratios, not "
            "milliseconds."
        )
    return lines
