"""What `humanpose bench` compares: models x sizes x back-ends x precisions x threads x devices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from humanpose.errors import InputError
from humanpose.infer import catalog
from humanpose.infer.options import BACKENDS, PRECISIONS

_GPUS = {"openvino": "gpu", "onnxruntime": "cuda"}


@dataclass(frozen=True, slots=True)
class Combination:
    """One thing to measure.

    Attributes:
        model: pose weights, a built-in name or a file.
        person: person weights likewise; "none" = one person who fills the picture.
        size: height of the networks' input as `predict --size` has it; None = their own.
        runtime: "openvino", "onnxruntime", or "torch" for a file that only torch reads.
        precision: "float32", "bf16" or "int8".
        threads: of a network call; None on a GPU.
        device: "cpu", or what the runtime offers.
    """

    model: str
    person: str
    size: int | None
    runtime: str
    precision: str
    threads: int | None
    device: str = "cpu"

    def __str__(self) -> str:
        size = "" if self.size is None else f" at {self.size}"
        where = self.device if self.threads is None else f"{self.threads} threads"
        return f"{Path(self.model).stem}{size}, {self.runtime} {self.precision}, {where}"


@dataclass(frozen=True, slots=True)
class Axes:
    """What is asked for; an empty axis stands for what this machine offers.

    Attributes:
        models: MODEL or MODEL+PERSON each.
        person: of the models that name none.
        sizes: see Combination, as the others.
        runtimes: of BACKENDS without "auto".
        precisions: of PRECISIONS without "auto".
        threads: counts.
        devices: names.
    """

    models: tuple[str, ...]
    person: str = "person"
    sizes: tuple[int, ...] = ()
    runtimes: tuple[str, ...] = BACKENDS[1:]
    precisions: tuple[str, ...] = PRECISIONS[1:]
    threads: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, given, allowed in (
            ("runtime", self.runtimes, BACKENDS[1:]),
            ("precision", self.precisions, PRECISIONS[1:]),
        ):
            for value in given:
                if value not in allowed:
                    raise InputError(f"{name} {value!r} is not one of {', '.join(allowed)}")
        if not self.models:
            raise InputError("--models: name at least one")
        if any(value < 1 for value in (*self.sizes, *self.threads)):
            raise InputError("sizes and threads must be at least 1")


def combinations(axes: Axes) -> list[Combination]:
    """Everything to measure, each thing once, in an order that is easy to read.

    Raises:
        InputError: if there is no such model.
    """
    threads = axes.threads or default_threads()
    found = []
    for entry, size in product(axes.models, axes.sizes or (None,)):
        model, person = _pair(entry, axes.person)
        only_torch = ".safetensors" in (Path(model).suffix, Path(person).suffix)
        runtimes = ("torch",) if only_torch else axes.runtimes
        for runtime, precision in product(runtimes, axes.precisions):
            for device in axes.devices or _devices(runtime):
                counts: Sequence[int | None] = threads if device == "cpu" else (None,)
                found += [
                    Combination(model, person, size, runtime, precision, count, device)
                    for count in counts
                ]
    return list(dict.fromkeys(found))


def cores() -> int:
    """The threads that a network call takes by itself: one per physical core, OpenVINO's count."""
    import numpy as np
    import openvino as ov
    import openvino.opset13 as ops

    value = ops.parameter([1], np.float32)
    model = ov.Model([ops.relu(value)], [value], "cores")
    compiled = ov.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return int(compiled.get_property("INFERENCE_NUM_THREADS"))


def default_threads() -> tuple[int, ...]:
    """One, as many as there are physical cores, as many as there are logical ones."""
    return tuple(sorted({1, cores(), os.cpu_count() or 1}))


def _devices(runtime: str) -> tuple[str, ...]:
    """The CPU, and the GPU where the runtime has one."""
    return ("cpu", _GPUS[runtime]) if runtime in _GPUS and _has_gpu(runtime) else ("cpu",)


def _has_gpu(runtime: str) -> bool:
    if runtime == "openvino":
        import openvino as ov

        return any(name.startswith("GPU") for name in ov.Core().available_devices)
    try:
        import onnxruntime as ort
    except ImportError:
        return False
    return "CUDAExecutionProvider" in ort.get_available_providers()


def _pair(entry: str, person: str) -> tuple[str, str]:
    """(model, person) of "MODEL" or "MODEL+PERSON"; a file's own name may hold a +."""
    if "+" in entry and not Path(entry).is_file():
        entry, _, person = entry.rpartition("+")
    for name in (entry, person):
        if name != "none":
            catalog.weights_path(name)
    return entry, person
