"""MoveNet Lightning and Thunder (Apache-2.0) -> the names of `lite`.

A .tflite file is int8 per channel: OpenVINO reads it and hands out its constants, dequantised by
the graph's own arithmetic. The .json of a TensorFlow.js graph model has float16 weights beside it.
The net is MobileNetV2 (Thunder's 1.75 times as wide) with a pyramid and four heads (joint maps,
person centre, joint regression, joint offset); the first is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from humanpose.checkpoints.start import tfjs
from humanpose.errors import FormatError, InputError
from humanpose.nets.mobilenet import Block, Head, MobileNetV2, Pyramid, SameConv, Separable

_WIDTHS = (1.0, 1.75)  # Lightning, Thunder


class _MoveNet(nn.Module):
    """The part of MoveNet that is read, its layers declared in the file's order."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.backbone = MobileNetV2(width=width)
        self.pyramid = Pyramid(self.backbone.widths)
        self.maps = Head(self.pyramid.width, 17)

    def convolutions(self) -> list[tuple[str, nn.Conv2d]]:
        """(name, convolution) in the order in which the graph runs them."""
        order: list[nn.Module] = [self.backbone.stem, *self.backbone.blocks]
        if self.backbone.head is not None:
            order.append(self.backbone.head)
        order.append(self.pyramid.top)
        for lateral, smooth in zip(self.pyramid.laterals, self.pyramid.smooths, strict=True):
            order += [lateral, smooth]
        order.append(self.maps)
        names = {module: name for name, module in self.named_modules()}
        return [(names[conv], conv) for module in order for conv in _convs(module)]


def _convs(module: nn.Module) -> list[nn.Conv2d]:
    parts: list[nn.Module | None]
    match module:
        case SameConv():
            return [module.conv]
        case Block():
            parts = [module.expand, module.depthwise, module.project]
        case Separable():
            parts = [module.depthwise, module.pointwise]
        case Head():
            parts = [module.separable, module.out]
        case _:
            raise TypeError(type(module).__name__)
    return [conv for part in parts if part is not None for conv in _convs(part)]


def read_movenet(path: Path) -> dict[str, Tensor]:
    """State with the names of `nets.lite`: backbone, pyramid, maps.

    `maps` has COCO's 17 joints in COCO's order. The net wants image / 127.5 - 1, RGB.

    Raises:
        InputError: if the file is not there.
        FormatError: if it is not MoveNet's.
    """
    if path.suffix == ".json":
        found = tfjs.convolutions(path, "kpt_heatmap_0/conv2d_5/")
    else:
        found = _graph_convolutions(path)
    fitting = [width for width in _WIDTHS if _fits(found[:1], _MoveNet(width).backbone.stem.conv)]
    expected = _MoveNet(fitting[0] if fitting else 1.0).convolutions()
    state: dict[str, Tensor] = {}
    for i, (name, conv) in enumerate(expected):
        if not _fits(found[i : i + 1], conv):
            raise FormatError(f"{path}: not MoveNet (layer {i}, {name}, does not fit)")
        weight, bias = found[i]
        state[f"{name}.weight"] = torch.from_numpy(weight.reshape(tuple(conv.weight.shape)).copy())
        state[f"{name}.bias"] = torch.from_numpy(bias.reshape(-1).copy())
    return state


def _fits(found: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]], conv: nn.Conv2d) -> bool:
    return bool(found) and found[0][0].size == conv.weight.numel()


def _graph_convolutions(path: Path) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """(weight, bias) of every convolution in topological order, dequantised."""
    import openvino as ov

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        graph = ov.Core().read_model(path)
    except RuntimeError as error:
        raise FormatError(f"{path}: not a readable TFLite file") from error
    wanted = []
    for op in graph.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            wanted.append(op.input_value(1))
            wanted.append(_bias_after(op, path))
    if not wanted:
        raise FormatError(f"{path}: has no convolutions")
    constants = ov.compile_model(ov.Model(wanted, []), "CPU")([])
    arrays = [np.asarray(constants[i], np.float32) for i in range(len(wanted))]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def _bias_after(op: Any, path: Path) -> Any:
    """The constant that is added to a convolution's result."""
    (user,) = op.output(0).get_target_inputs()
    add = user.get_node()
    while add.get_type_name() in ("Transpose", "Reshape"):
        (user,) = add.output(0).get_target_inputs()
        add = user.get_node()
    if add.get_type_name() != "Add":
        raise FormatError(f"{path}: a convolution without bias ({op.get_friendly_name()})")
    return add.input_value(1)
