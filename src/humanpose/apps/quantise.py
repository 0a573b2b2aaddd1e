"""INT8: a float32 graph quantised on real crops, and a gate on what a lower precision costs."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from humanpose import heatmap
from humanpose.apps.data_sets import data_path, part_of
from humanpose.apps.scoring import person_scores, pose_scores
from humanpose.data.people import pictures_of
from humanpose.data.readers import READERS, read
from humanpose.errors import InputError, MissingExtraError
from humanpose.images import load_image
from humanpose.infer.detector import Detector
from humanpose.infer.estimator import Estimator
from humanpose.infer.runtime import Runtime
from humanpose.media.sources import expand
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Sample

T = TypeVar("T")

# Crops to calibrate on; more change the ranges of activations by less than the noise of a score.
_CALIBRATION = 300
# Two joints agree within this share of the crop's longer side.
_NEAR = 0.02
_CONVOLUTIONS = ("Conv", "ConvTranspose")
# A crop, the places of its J peaks and whether they count: see Gate._places.
_View = tuple[U8, F32, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Examples:
    """What a network is calibrated and judged on.

    Attributes:
        sets: data set -> persons; the training part calibrates, the validation part judges.
        pictures: without annotation; they do both.
    """

    sets: dict[str, list[Sample]]
    pictures: tuple[Path, ...]

    @classmethod
    def read(cls, entries: Sequence[str]) -> Examples:
        """Of data sets ("NAME", "NAME=PATH") and pictures, folders or patterns.

        Raises:
            InputError: if one is not there, or a set has no training or no validation part, or
                what is no set holds no pictures.
        """
        named = [entry for entry in entries if entry.partition("=")[0] in READERS]
        sets = {name: read(name, path) for name, path in map(data_path, named)}
        for name, samples in sets.items():
            for split in ("train", "validation"):
                part_of(samples, split, name)
        rest = [entry for entry in entries if entry not in named]
        items = expand(rest) if rest else []
        pictures = tuple(item.path for item in items if item.kind == "picture")
        if rest and not pictures:
            raise InputError(f"no pictures to calibrate on in {', '.join(rest)}")
        return cls(sets, pictures)


class Gate:
    """Scores of a network in float32, and the judge of the same network in less.

    Args:
        reference: the network in float32.
        spec: its description.
        examples: to judge on; without annotation it is the agreement with `reference`.

    Attributes:
        crops: (1, H, W, 3) each, cut as `predict` cuts them: what the network is calibrated on.
        before: rule -> score of `reference`, in [0, 1].
    """

    def __init__(self, reference: Runtime, spec: ModelSpec, examples: Examples) -> None:
        self._spec = spec
        self._examples = examples
        recorder = _Recorder(reference)
        share = -(-_CALIBRATION // (len(examples.sets) + bool(examples.pictures)))
        for name, samples in examples.sets.items():
            part = part_of(samples, "train", name)
            if spec.task == "person":
                self._look(recorder, evenly(_paths(part), share))
            else:
                pose_scores(Estimator(recorder, spec), evenly(part, share))
        views = self._views(reference, evenly(examples.pictures, share))
        self.crops = [*recorder.crops, *(view[0] for view in views)]
        self._views_of = {"": views} if views else {}
        if spec.decode == "peaks":  # places without boxes: there is no score of them
            for name, samples in examples.sets.items():
                paths = evenly(_paths(part_of(samples, "validation", name)), _CALIBRATION)
                self._views_of[f"{name} validation, "] = self._views(reference, paths)
        self.before = self.scores(reference)

    def loss(
        self, after: dict[str, float], label: str, show: Callable[[str], None]
    ) -> tuple[float, str]:
        """Show each score before and after; gives the largest loss in points, and its line."""
        losses = []
        for rule, was in self.before.items():
            line = f"{rule}: float32 {100 * was:.2f}, {label} {100 * after[rule]:.2f}"
            show(line)
            losses.append((100 * (was - after[rule]), line))
        return max(losses)

    def scores(self, other: Runtime) -> dict[str, float]:
        """Rule -> score in [0, 1] of `other`."""
        found: dict[str, float] = {}
        for name, samples in self._examples.sets.items():
            part = part_of(samples, "validation", name)
            if self._spec.decode == "peaks":
                continue
            if self._spec.task == "person":
                scores = person_scores(Detector(other, self._spec), pictures_of(part))
            else:
                scores = pose_scores(Estimator(other, self._spec), part)
            found |= {f"{name} {score.rule}": score.value for score in scores}
        for where, views in self._views_of.items():
            rule = f"{where}agreement with float32: joints within {_NEAR:.0%} of the longer side"
            found[rule] = self._agreement(other, views)
        return found

    def _look(self, runtime: Runtime, paths: Sequence[Path]) -> None:
        """Run `runtime` on whole pictures, as `predict` does."""
        for image in map(load_image, paths):
            if self._spec.task == "person":
                Detector(runtime, self._spec).detect(image)
            else:
                box = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
                Estimator(runtime, self._spec).estimate(image, box)

    def _views(self, reference: Runtime, paths: Sequence[Path]) -> list[_View]:
        """Whole pictures as crops, and where the reference sees something in them."""
        recorder = _Recorder(reference)
        self._look(recorder, paths)
        return [(crop, *self._places(reference.run(crop))) for crop in recorder.crops]

    def _agreement(self, other: Runtime, views: Sequence[_View]) -> float:
        """Share of the places found by the reference that `other` finds too."""
        near = []
        for crop, places, counted in views:
            apart = np.linalg.norm(places - self._places(other.run(crop))[0], axis=-1)
            near.append((apart * self._spec.stride <= _NEAR * max(crop.shape[1:3]))[counted])
        return float(np.concatenate(near).mean())

    def _places(self, found: dict[str, F32]) -> tuple[F32, NDArray[np.bool_]]:
        """Where the maps of one crop peak (J, 2), cells, and which of the peaks count (J,).

        Those count that reach half the best one's height: others say that a joint is absent. Of a
        network that gives boxes it is the middle of each, and its score.
        """
        if self._spec.decode == "boxes":
            boxes = found["boxes"][0]
            middles = (boxes[:, :2] + boxes[:, 2:4] / 2) / np.float32(self._spec.stride)
            return middles, np.asarray(boxes[:, 4] >= boxes[:, 4].max() / 2)
        maps = found["maps"][0]
        maps = maps[:-1] if self._spec.background else maps
        rule = self._spec.decode if self._spec.decode in heatmap.DECODE_RULES else "argmax"
        cells, scores = heatmap.decode(maps, rule)
        return cells, scores >= min(scores.max() / 2, scores.max())


class _Recorder:
    """A runtime that keeps the crops it is given."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.name, self.precision = inner.name, inner.precision
        self.crops: list[U8] = []

    def run(self, crops: U8) -> dict[str, F32]:
        self.crops += [crop[None] for crop in crops]
        return self._inner.run(crops)


def _paths(samples: Sequence[Sample]) -> list[Path]:
    return sorted({sample.picture for sample in samples})


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many of `items`, evenly spread, in their order."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def quantised(
    model: onnx.ModelProto, crops: Sequence[U8], *, in_float: float = 0.0
) -> onnx.ModelProto:
    """`model` with int8 weights (one scale a channel) and activations (one a tensor).

    By NNCF's post-training quantisation with its correction of biases. Weights are symmetric;
    activations have a zero of their own: half of a symmetric range would be lost on a SiLU, whose
    results begin at -0.28. The last convolution of each output and what follows it stay in
    float32.

    Args:
        model: float32, without an INT8 layer.
        crops: what `model` is fed to find the ranges of its activations.
        in_float: share of all convolutions, from the outputs backwards, that stay in float32.

    Raises:
        MissingExtraError: if NNCF or ONNX Runtime is not installed.
    """
    nncf = nncf_module()
    model, sums = _in_parts(model)
    fed = model.graph.input[0].name
    # Its accumulators are float32 anyway: rounding what is added there would only lose.
    kept = sorted(sums | _tail(model, in_float))
    # NNCF logs and draws progress to the standard output.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        small: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset([{fed: crop} for crop in crops]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(crops),
            ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        )
    return small


def nncf_module() -> Any:
    """NNCF, which runs the graph on ONNX Runtime.

    Raises:
        MissingExtraError: if either is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else it sends usage data to its makers
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            import nncf
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(error.name or "nncf", "int8") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _in_parts(model: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
    """A copy in which a convolution of a concatenation is the sum of its parts' convolutions.

    So each part has a scale of its own: CPM's belief maps have another range than its features.
    And OpenVINO 2026.4 computes INT8 convolutions of such concatenations wrongly.

    Returns:
        The copy, and the names of the additions.
    """
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    channels = defaultdict(int)
    for value in (*graph.value_info, *graph.output):
        if len(value.type.tensor_type.shape.dim) == 4:  # 0 where it is not known: one part at most
            channels[value.name] = value.type.tensor_type.shape.dim[1].dim_value
    constants = {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    sums = set()
    for node in graph.node:
        joined = maker.get(node.input[0]) if node.op_type == "Conv" else None
        if joined is None or joined.op_type != "Concat":
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        others = weight.shape[1] - sum(channels[part] for part in joined.input)
        start, total = 0, ""
        for i, part in enumerate(joined.input):
            stop, name = start + (channels[part] or others), f"{node.name}/{i}"
            own = np.ascontiguousarray(weight[:, start:stop])
            graph.initializer.append(numpy_helper.from_array(own, f"{name}/weight"))
            bias = list(node.input[2:]) if i == 0 else []
            convolution = helper.make_node("Conv", [part, f"{name}/weight", *bias], [name], name)
            convolution.attribute.extend(node.attribute)
            nodes.append(convolution)
            if total:
                last = i == len(joined.input) - 1
                result = node.output[0] if last else f"{name}/sum"
                nodes.append(helper.make_node("Add", [total, name], [result], f"{name}/sum"))
                sums.add(f"{name}/sum")
                name = result
            start, total = stop, name
    del graph.value_info[:]  # shapes that no longer hold
    _keep(graph, nodes)
    return model, sums


def _keep(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Put `nodes` into `graph`, without those whose results nobody uses, nor their constants."""
    used = {output.name for output in graph.output}
    kept = []
    for node in reversed(nodes):
        if used.intersection(node.output):
            kept.append(deepcopy(node))
            used.update(node.input)
    constants = [deepcopy(tensor) for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def _tail(model: onnx.ModelProto, in_float: float) -> set[str]:
    """Names of the nodes that stay in float32, see `quantised`."""
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    convolutions = [i for i, node in enumerate(nodes) if node.op_type in _CONVOLUTIONS]
    kept = round(in_float * len(convolutions))
    tail = {node.name for node in nodes[convolutions[-kept] :]} if kept else set()
    maker = {name: node for node in nodes for name in node.output}
    waiting = [output.name for output in model.graph.output]
    while waiting:
        node = maker.pop(waiting.pop(), None)
        if node is not None:
            tail.add(node.name)
            if node.op_type not in _CONVOLUTIONS:
                waiting += node.input
    return tail
