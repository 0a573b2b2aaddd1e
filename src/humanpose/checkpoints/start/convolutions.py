"""Convolutions of files that OpenVINO reads, and their assignment to the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from humanpose.errors import FormatError, InputError
from humanpose.types import F32

Layer = tuple[F32, F32]  # weight and bias of a convolution


def graph_convolutions(path: Path) -> list[Layer]:
    """Return the convolutions of a .tflite or .xml file in topological order, dequantised.

    Raises:
        InputError: the file is not there.
        FormatError: it cannot be read, or a convolution has no bias.
    """
    import openvino as ov

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        graph = ov.Core().read_model(path)
    except RuntimeError as error:
        raise FormatError(
            f"{path}: damaged, not a TFLite or OpenVINO file, or without the .bin beside it"
        ) from error
    wanted = []
    for op in graph.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            wanted.append(op.input_value(1))
            wanted.append(_bias_after(op, path))
    if not wanted:
        raise FormatError(f"{path}: has no convolutions")
    # The hint: a CPU with bf16 would give the constants in it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    constants = ov.compile_model(ov.Model(wanted, []), "CPU", exact)([])
    arrays = [np.asarray(constants[i], np.float32) for i in range(len(wanted))]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def _bias_after(op: Any, path: Path) -> Any:
    """Return the constant that is added to a convolution's result."""
    add = op
    while add is op or add.get_type_name() in ("Transpose", "Reshape"):
        (user,) = add.output(0).get_target_inputs()
        add = user.get_node()
    if add.get_type_name() != "Add":
        raise FormatError(f"{path}: a convolution without bias ({op.get_friendly_name()})")
    return add.input_value(1)


def state_of(
    path: Path, title: str, layers: Sequence[tuple[str, nn.Conv2d]], found: Sequence[Layer]
) -> dict[str, Tensor]:
    """Return the tensors of `layers`, (name, convolution) each, out of those `found` in a file.

    Further ones in the file are left out.

    Raises:
        FormatError: one does not fit; `title` is the network that `path` should hold.
    """
    state: dict[str, Tensor] = {}
    for i, (name, conv) in enumerate(layers):
        if i >= len(found) or found[i][0].size != conv.weight.numel():
            raise FormatError(f"{path}: not {title} (layer {i}, {name}, does not fit)")
        weight, bias = found[i]
        state[f"{name}.weight"] = torch.from_numpy(weight.reshape(tuple(conv.weight.shape)).copy())
        state[f"{name}.bias"] = torch.from_numpy(bias.reshape(-1).copy())
    return state
