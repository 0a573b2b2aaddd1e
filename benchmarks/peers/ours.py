"""The weights inside the package, as `humanpose models` lists them."""

from __future__ import annotations

from collections.abc import Iterator

from humanpose.api import load_detector, load_model
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import Runtime, installed, read_spec
from humanpose.spec import ModelSpec


def named(task: str) -> list[str]:
    """Names of the weights for `task`, "pose" or "person"."""
    return [name for name, path in installed().items() if read_spec(path).task == task]


def loaded(task: str) -> Iterator[tuple[str, Runtime, ModelSpec]]:
    """(label, network, its description) in float32, and in what `auto` takes if that differs."""
    for name in named(task):
        seen = set()
        for wanted in ("float32", "auto"):
            runtime, spec, _ = load_model(name, InferenceOptions(precision=wanted))
            if runtime.precision not in seen:
                seen.add(runtime.precision)
                yield f"**{name}**, {runtime.precision}", runtime, spec


def beside() -> Iterator[tuple[str, Runtime, ModelSpec]]:
    """The person network at the sides that it has beside some of the pose networks, likewise."""
    for name, path in installed().items():
        own = read_spec(path)
        if own.detector_size:
            runtime, spec, _ = load_detector(InferenceOptions(model=name, precision="float32"), own)
            label = f"**person** at {own.detector_size} (beside `{name}`), {runtime.precision}"
            yield label, runtime, spec
