"""INT8: a float32 graph quantised on real crops."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from humanpose.errors import MissingExtraError
from humanpose.types import U8

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def quantised(
    model: onnx.ModelProto, crops: Sequence[U8], *, in_float: float = 0.0
) -> onnx.ModelProto:
    """`model` with int8 weights (one scale a channel) and activations (one a tensor; one a channel
    where a depthwise convolution takes them).

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
    model, sums = split_concatenated(model)
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


def split_concatenated(model: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
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
    """Put `nodes` into `graph`, without unused ones and their constants."""
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
