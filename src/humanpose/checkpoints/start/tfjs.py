"""Convolutions of a TensorFlow.js graph model: a .json file with its weights in files beside it."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.errors import FormatError
from humanpose.files import read_limited
from humanpose.types import F32

_LIMIT_JSON, _LIMIT_WEIGHTS = 16 << 20, 256 << 20
_CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")


def convolutions(path: Path, below: str) -> list[tuple[F32, F32]]:
    """(weight, bias) of every convolution that the result of one of them needs, that one last.

    Args:
        path: the .json file.
        below: part of the name of that convolution's weights; it must be of one only.

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
    """Name -> array of what is stored as floating point; of other numbers nothing is wanted."""
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
    """`last` and what it needs, each after its own needs; the first input's way goes first."""
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


def _weights(node: dict[str, Any], tensors: dict[str, F32]) -> tuple[F32, F32]:
    weight, *others = (tensors[name] for name in node["input"][1:] if name in tensors)
    depthwise = "Depthwise" in node["op"]
    weight = weight.transpose(2, 3, 0, 1) if depthwise else weight.transpose(3, 2, 0, 1)
    if node["op"] in ("Conv2D", "DepthwiseConv2dNative"):
        return weight, np.zeros(len(weight), np.float32)
    if _fused(node)[:1] != ["BiasAdd"]:
        raise ValueError(f"{node['name']} is fused with {', '.join(_fused(node)) or 'nothing'}")
    return weight, others[0]


def _fused(node: dict[str, Any]) -> list[str]:
    try:
        names = node["attr"]["fused_ops"]["list"]["s"]
        return [base64.b64decode(name).decode() for name in names]
    except binascii.Error as error:
        raise ValueError(str(error)) from error
