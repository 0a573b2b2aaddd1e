"""Export a trained network to ONNX with its description inside, and report its parity."""

from __future__ import annotations

import io
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from humanpose import heatmap
from humanpose.checkpoints.store import load_net
from humanpose.errors import HumanPoseError, InputError
from humanpose.export.accuracy_check import AccuracyCheck, Examples
from humanpose.export.quantise import nncf_module, quantised
from humanpose.files import atomic_write
from humanpose.infer import runtime
from humanpose.infer.options import InferenceOptions
from humanpose.nets.network import Net
from humanpose.nets.torch_runtime import ExportModule, TorchRuntime
from humanpose.spec import METADATA_KEY, ModelSpec
from humanpose.types import U8

_OPSET = 18
# Smaller tensors stay float32, as do biases and the scales of int8 weights: they weigh nothing.
_HALVE_ABOVE = 256
# Of a float32 back-end, as a share of an output's range: another order of summation, no more.
_TOLERANCE = 1e-3
# Shares of the convolutions that INT8 leaves in float32, from the outputs backwards; the first
# whose loss is within the limit is taken. Errors there are not averaged out by later layers.
_IN_FLOAT = (0.0, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences of an exported network from the torch one, on the same crops.

    Attributes:
        runtime: back-end and precision.
        largest_value: largest difference of any output value, as a share of the output's range.
        largest_pixel: largest distance between decoded joints, input pixels (pose), of joints
            that the reference scores above 0.3; NaN for a detector.
        largest_score: largest difference of a joint's score, or of a centre's.
    """

    runtime: str
    largest_value: float
    largest_pixel: float
    largest_score: float


@dataclass(frozen=True, slots=True)
class Lower:
    """A precision below float32, and the loss of accuracy allowed for it.

    Attributes:
        precision: "int8": the file is quantised; "bf16": the file is the float32 one, checked
            in bf16, which is chosen when it is run.
        examples: what to calibrate and to judge on.
        limit: largest loss of any score, points (hundredths).
        show: takes lines about scores.
    """

    precision: str
    examples: Examples
    limit: float = 1.0
    show: Callable[[str], None] = print


def export(
    weights: Path,
    output: Path,
    pictures: U8 | None = None,
    *,
    stages: bool = False,
    lower: Lower | None = None,
) -> list[Parity]:
    """Write `weights` (.safetensors) as ONNX to `output` and compare the two.

    Args:
        weights: file with a ModelSpec.
        output: .onnx to write; weights inside are float16, computed with as float32.
        pictures: (N, H, W, 3) RGB crops of the spec's input size to compare on; None = noise.
        stages: the maps of every stage are outputs too: "maps_1", "maps_2" ...
        lower: a precision below float32, and what it may cost; None = float32.

    Returns:
        First what rounding the weights to float16 costs, then one report per back-end and
        precision that runs here, each against the rounded torch network.

    Raises:
        HumanPoseError: if a float32 back-end differs by more than 0.1 % of an output's range.
        InputError: if `lower` costs more than it may, or the network has no stages. Nothing is
            written.
    """
    net, spec = load_net(weights)
    graph = traced(ExportModule(net, spec, stages=stages).eval(), spec)
    width, height = spec.input
    if pictures is None:
        pictures = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    rounded = TorchRuntime(_rounded(net), spec, stages=stages)
    rounded.name = "torch, float16 weights,"
    reports = [compare(TorchRuntime(net, spec, stages=stages), rounded, spec, pictures)]
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / output.name
        _write(draft, graph, spec)
        if lower is not None:
            spec = _lowered(draft, graph, spec, lower)
        for found in _ways(draft, spec):
            reports.append(compare(rounded, found, spec, pictures))
            if found.precision == "float32" and reports[-1].largest_value > _TOLERANCE:
                raise HumanPoseError(
                    f"{output}: {found.name} differs by {reports[-1].largest_value:.2%}"
                )
        with atomic_write(output) as file:
            file.write(draft.read_bytes())
    return reports


def _lowered(draft: Path, graph: onnx.ModelProto, spec: ModelSpec, lower: Lower) -> ModelSpec:
    """Quantise or check `draft`, the float32 file of `graph`; return its new description."""
    if lower.precision == "int8":
        nncf_module()  # where it is missing, say so before the scoring
    check = AccuracyCheck(_loaded(draft, "float32"), spec, lower.examples)
    if lower.precision == "bf16":
        lost, line = check.loss(check.scores(_loaded(draft, "bf16")), "bf16", lower.show)
    else:
        spec = replace(spec, precision="int8")
        for share in _IN_FLOAT:
            rest = f"the last {share:.0%} of the convolutions" if share else "the outputs"
            lower.show(f"int8, {rest} in float32; calibrated on {len(check.crops)} crops")
            small = quantised(graph, check.crops, in_float=share)
            _write(draft, small, spec)
            after = check.scores(_loaded(draft, "float32"))
            lost, line = check.loss(after, "int8", lower.show)
            if lost <= lower.limit:
                # The scores of the float32 network would be untrue of this file.
                spec = replace(spec, scores={rule: round(v, 4) for rule, v in after.items()})
                _write(draft, small, spec)
                break
    if not lost <= lower.limit:  # also where it is NaN
        raise InputError(
            f"{draft.name} not written: {lower.precision} loses {lost:.2f} points, more than the "
            f"limit of {lower.limit:g} ({line})"
        )
    return spec


def _loaded(path: Path, precision: str, backend: str = "openvino") -> runtime.Runtime:
    options = InferenceOptions(runtime=backend, precision=precision, cache="")
    return runtime.load(path, options)[0]


def _write(path: Path, graph: onnx.ModelProto, spec: ModelSpec) -> None:
    """`graph` with its description and with float16 weights as a file."""
    model = _halved(deepcopy(graph))
    for tensor in model.graph.initializer:  # NNCF's int8 take ten bytes each if they are below 0
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    del model.graph.value_info[:]  # shapes that every runtime finds by itself
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _rounded(net: Net) -> Net:
    """A copy of `net` with the values that `_halved` leaves in the file."""
    copy = deepcopy(net)
    for tensor in copy.state_dict().values():
        if tensor.is_floating_point() and _is_halved(tensor.shape):
            tensor.copy_(tensor.half().float())
    return copy


def _is_halved(shape: Sequence[int]) -> bool:
    return len(shape) > 1 and math.prod(shape) >= _HALVE_ABOVE


def traced(deployed: ExportModule, spec: ModelSpec) -> onnx.ModelProto:
    """Trace `deployed` to an ONNX graph that takes any batch and input size."""
    width, height = spec.input
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own deprecations are not ours to mend
        torch.onnx.export(
            deployed,
            (example,),
            buffer,  # type: ignore[arg-type]  # the tracer writes to any file object
            input_names=["image"],
            output_names=list(deployed.names),
            dynamic_axes={
                "image": {0: "N", 1: "H", 2: "W"},
                **{name: {0: "N"} for name in deployed.names},
            },
            opset_version=_OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Large float32 constants stored as float16, each followed by a Cast back."""
    casts = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or not _is_halved(array.shape):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _ways(path: Path, spec: ModelSpec) -> list[runtime.Runtime]:
    """Load `path` in every back-end and precision that runs here, float32 OpenVINO first."""
    ways = [("openvino", "float32"), ("onnxruntime", "float32")]
    if spec.precision != "int8":  # there it would only be the precision of the rest
        ways.append(("openvino", "bf16"))
    found: list[runtime.Runtime] = []
    for backend, precision in ways:
        with suppress(HumanPoseError):  # not installed, or not on this CPU
            found.append(_loaded(path, precision, backend))
    return found


def compare(
    reference: runtime.Runtime, other: runtime.Runtime, spec: ModelSpec, crops: U8
) -> Parity:
    """Differences of `other` from `reference` on `crops` (N, H, W, 3)."""
    ours, theirs = reference.run(crops), other.run(crops)
    value = max(
        float(np.abs(ours[name] - theirs[name]).max() / max(np.ptp(ours[name]), 1e-9))
        for name in ours
    )
    label = f"{other.name} {other.precision}"
    if spec.decode == "boxes":
        score = float(np.abs(ours["boxes"] - theirs["boxes"])[..., 4].max())
        return Parity(label, value, float("nan"), score)
    rule = "argmax" if spec.decode == "peaks" else spec.decode
    cells, scores = heatmap.decode(ours["maps"], rule)
    their_cells, their_scores = heatmap.decode(theirs["maps"], rule)
    apart = np.linalg.norm(cells - their_cells, axis=-1) * spec.stride
    sure = scores > 0.3
    pixel = float(apart[sure].max()) if sure.any() else 0.0
    return Parity(label, value, pixel, float(np.abs(scores - their_scores).max()))
