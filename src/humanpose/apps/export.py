"""A trained network -> ONNX that explains itself, with a parity report."""

from __future__ import annotations

import io
import logging
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from humanpose import heatmap
from humanpose.checkpoints.store import load_net
from humanpose.errors import HumanPoseError
from humanpose.files import atomic_write
from humanpose.infer import runtime
from humanpose.nets.torch_runtime import Deployed, TorchRuntime
from humanpose.spec import METADATA_KEY, ModelSpec
from humanpose.types import U8

_OPSET = 18
# Smaller tensors (biases) stay float32: they weigh nothing and are added to float32 sums.
_HALVE_ABOVE = 256
# Of a float32 back-end, as a share of an output's range: another order of summation, no more.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an exported network lies from the torch one, on the same crops.

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


def export(weights: Path, output: Path, pictures: U8 | None = None) -> list[Parity]:
    """Write `weights` (.safetensors) as ONNX to `output` and compare the two.

    Args:
        weights: file with a ModelSpec.
        output: .onnx to write; weights inside are float16, computed with as float32.
        pictures: (N, H, W, 3) RGB crops of the spec's input size to compare on; None = noise.

    Returns:
        First what rounding the weights to float16 costs, then one report per back-end and
        precision that runs here, each against the rounded torch network.

    Raises:
        HumanPoseError: if a float32 back-end differs by more than 0.1 % of an output's range.
    """
    net, spec = load_net(weights)
    model = _halved(_traced(Deployed(net, spec).eval(), spec))
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
    onnx.checker.check_model(model)
    with atomic_write(output) as file:
        file.write(model.SerializeToString())
    width, height = spec.input
    if pictures is None:
        pictures = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    rounded = TorchRuntime(_rounded(net), spec)
    rounded.name = "torch, float16 weights,"
    reports = [compare(TorchRuntime(net, spec), rounded, spec, pictures)]
    for found in _ways(output):
        reports.append(compare(rounded, found, spec, pictures))
        if found.precision == "float32" and reports[-1].largest_value > _TOLERANCE:
            raise HumanPoseError(
                f"{output}: {found.name} differs by {reports[-1].largest_value:.2%}"
            )
    return reports


def _rounded(net: nn.Module) -> nn.Module:
    """A copy of `net` with the values that `_halved` leaves in the file."""
    copy = deepcopy(net)
    for tensor in copy.state_dict().values():
        if tensor.is_floating_point() and tensor.numel() >= _HALVE_ABOVE:
            tensor.copy_(tensor.half().float())
    return copy


def _traced(deployed: Deployed, spec: ModelSpec) -> onnx.ModelProto:
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
            dynamic_axes={name: {0: "N"} for name in ("image", *deployed.names)},
            opset_version=_OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Large float32 constants stored as float16, each followed by a Cast back."""
    casts = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size < _HALVE_ABOVE:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _ways(path: Path) -> list[runtime.Runtime]:
    """Every back-end and precision that runs here, float32 OpenVINO first."""
    found = []
    for backend, precision in (
        ("openvino", "float32"),
        ("onnxruntime", "float32"),
        ("openvino", "bf16"),
    ):
        try:
            settings = runtime.Settings(backend, precision, cache="")
            found.append(runtime.load(path, settings)[0])
        except HumanPoseError:  # not installed, or not on this CPU
            continue
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
        score = float(np.abs(ours["centre"] - theirs["centre"]).max())
        return Parity(label, value, float("nan"), score)
    cells, scores = heatmap.decode(ours["maps"], spec.decode)
    their_cells, their_scores = heatmap.decode(theirs["maps"], spec.decode)
    apart = np.linalg.norm(cells - their_cells, axis=-1) * spec.stride
    sure = scores > 0.3
    pixel = float(apart[sure].max()) if sure.any() else 0.0
    return Parity(label, value, pixel, float(np.abs(scores - their_scores).max()))
