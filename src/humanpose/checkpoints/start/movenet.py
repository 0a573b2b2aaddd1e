"""MoveNet Lightning and Thunder (Apache-2.0) -> the names of `lite`.

A .tflite file is int8 per channel: OpenVINO reads it and hands out its constants, dequantised by
the graph's own arithmetic. The .json of a TensorFlow.js graph model has float16 weights beside it.
The net is MobileNetV2 (Thunder's 1.75 times as wide) with a pyramid and four heads (joint maps,
person centre, joint regression, joint offset); the first is taken.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from humanpose import nets
from humanpose.checkpoints.start.convolutions import Layer, graph_convolutions, state_of
from humanpose.errors import FormatError
from humanpose.files import read_limited
from humanpose.types import F32

_WIDTHS = (1.0, 1.75)  # Lightning, Thunder
_LAST = "kpt_heatmap_0/conv2d_5/"  # in the name of the weights of the joint maps
_LIMIT_JSON, _LIMIT_WEIGHTS = 16 << 20, 256 << 20
_CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")


def read_movenet(path: Path) -> dict[str, Tensor]:
    """State with the names of `nets.lite`: backbone, pyramid, maps.

    `maps` has COCO's 17 joints in COCO's order. The net wants image / 127.5 - 1, RGB.

    Raises:
        InputError: if the file is not there.
        FormatError: if it is not MoveNet's.
    """
    tfjs = path.suffix == ".json"
    found = tfjs_convolutions(path, _LAST) if tfjs else graph_convolutions(path)
    size = found[0][0].size
    layers = [movenet_layers(width) for width in _WIDTHS]
    expected = next((each for each in layers if each[0][1].weight.numel() == size), layers[0])
    return state_of(path, "MoveNet", expected, found)


def movenet_layers(width: float) -> list[tuple[str, nn.Conv2d]]:
    """(name in `lite`, convolution) in the order in which MoveNet's graph runs them."""
    with torch.device("meta"):  # only names and shapes are needed
        net = nets.create("lite", joints=17, width=width)
    found = [(name, part) for name, part in net.named_modules() if isinstance(part, nn.Conv2d)]

    def place(layer: tuple[str, nn.Conv2d]) -> tuple[int, int]:
        # Each lateral of the pyramid stands before its smoothing.
        level = re.match(r"pyramid\.(?:laterals|smooths)\.(\d)", layer[0])
        part = ("backbone", "pyramid", "maps").index(layer[0].partition(".")[0])
        return part, int(level[1]) if level else -1

    return sorted(found, key=place)


# ------------------------------------------------------------------------------ TensorFlow.js


def tfjs_convolutions(path: Path, below: str) -> list[Layer]:
    """(weight, bias) of one convolution, the last, and of every one that its input needs.

    Args:
        path: the .json file of a graph model; its weights lie in files beside it.
        below: part of the name of that one's weights; no other may have it.

    Returns:
        In the order in which they have to run. Weights (out, in, height, width), in = 1 where they
        are depthwise; biases zero where there are none.

    Raises:
        InputError: if a file is not there.
        FormatError: if they are not such a model.
    """
    try:
        model = json.loads(read_limited(path, _LIMIT_JSON))
        nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        tensors = dict(_tensors(model["weightsManifest"], path))
        (last,) = (
            name
            for name, node in nodes.items()
            if node["op"] in _CONVOLUTIONS and below in node["input"][1]
        )
        return [
            _weights(nodes[name], tensors)
            for name in _before(nodes, last)
            if nodes[name]["op"] in _CONVOLUTIONS
        ]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path}: not a TensorFlow.js graph model of it ({reason})") from error


def _tensors(manifest: list[Any], path: Path) -> Iterator[tuple[str, F32]]:
    """(name, array) of every floating-point tensor."""
    for group in manifest:
        shards = [path.parent / Path(name).name for name in group["paths"]]
        content = b"".join(read_limited(shard, _LIMIT_WEIGHTS) for shard in shards)
        offset = 0
        for entry in group["weights"]:
            packed = entry.get("quantization", {})
            kind = np.dtype(packed.get("dtype", entry["dtype"]))
            count = math.prod(entry["shape"])
            array = np.frombuffer(content, kind, count, offset).reshape(entry["shape"])
            offset += count * kind.itemsize
            if entry["dtype"] == "float32":
                scale, least = packed.get("scale", 1.0), packed.get("min", 0.0)
                yield (
                    entry["name"],
                    array.astype(np.float32) * np.float32(scale) + np.float32(least),
                )


def _before(nodes: dict[str, Any], last: str) -> list[str]:
    """Names of `last` and of the nodes it needs, each after its inputs (depth first)."""
    order: dict[str, None] = {}
    waiting = [(last, False)]
    while waiting:
        name, ready = waiting.pop()
        if ready:
            order[name] = None
        elif name not in order:
            inputs = [each.partition(":")[0].lstrip("^") for each in nodes[name].get("input", ())]
            waiting.append((name, True))
            waiting += [(each, False) for each in reversed(inputs) if each not in order]
    return list(order)


def _weights(node: dict[str, Any], tensors: dict[str, F32]) -> Layer:
    weight, *others = (tensors[name] for name in node["input"][1:] if name in tensors)
    depthwise = "Depthwise" in node["op"]
    weight = weight.transpose(2, 3, 0, 1) if depthwise else weight.transpose(3, 2, 0, 1)
    if node["op"] in ("Conv2D", "DepthwiseConv2dNative"):
        return weight, np.zeros(len(weight), np.float32)
    fused = [base64.b64decode(name).decode() for name in node["attr"]["fused_ops"]["list"]["s"]]
    if fused[:1] != ["BiasAdd"]:
        raise ValueError(f"{node['name']} is fused with {', '.join(fused) or 'nothing'}")
    return weight, others[0]
