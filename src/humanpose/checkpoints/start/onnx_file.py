"""ONNX files as a start: our own exports, and YOLOX-nano's for `person`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError
from onnx import ModelProto, numpy_helper
from onnx.checker import ValidationError
from torch import Tensor, nn

from humanpose import nets
from humanpose.errors import FormatError, printable
from humanpose.files import read_limited
from humanpose.spec import METADATA_KEY, ModelSpec
from humanpose.types import F32

_LIMIT_BYTES = 512 << 20
_NET, _HALF = "net.", "_half"  # as `humanpose export` names a network's tensors
_PERSON = 0  # of COCO's 80 classes


def read_onnx(path: Path) -> dict[str, Tensor]:
    """State of the network in a file of `humanpose export`, or of `person` in YOLOX-nano's.

    Raises:
        InputError: if the file is not there or too large.
        FormatError: if it is damaged, quantised or another network, or its weights lie in a file
            that is not beside it.
    """
    try:
        model = ModelProto.FromString(read_limited(path, _LIMIT_BYTES))
    except DecodeError as error:
        raise FormatError(f"{path}: not an ONNX file ({error})") from error
    said = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not said:
        return _yolox(path, model.graph)
    if ModelSpec.from_json(said[0], origin=str(path)).precision != "float32":
        raise FormatError(f"{path}: is quantised; a training starts from the float32 file")
    try:
        return {
            tensor.name.removeprefix(_NET).removesuffix(_HALF): torch.from_numpy(
                numpy_helper.to_array(tensor, str(path.parent)).copy()
            ).float()
            for tensor in model.graph.initializer
            if tensor.name.startswith(_NET)
        }
    except (OSError, ValidationError) as error:
        raise FormatError(f"{path}: the file that holds its weights is not here") from error


def _yolox(path: Path, graph: Any) -> dict[str, Tensor]:
    """State of `person` from an export of YOLOX-nano with its normalisation folded away.

    The file's convolutions run in the order of ours; of its classes only the person stays.
    """
    try:
        constants = {tensor.name: tensor for tensor in graph.initializer}
        found = [
            tuple(numpy_helper.to_array(constants[name]) for name in node.input[1:])
            for node in graph.node
            if node.op_type == "Conv"
        ]
    except (KeyError, ValueError, TypeError) as error:
        reason = printable(str(error))
        raise FormatError(f"{path}: not an ONNX file of YOLOX-nano ({reason})") from error
    with torch.device("meta"):  # only names and shapes are needed
        net = nets.create("person")
    wanted = {name: part for name, part in net.named_modules() if isinstance(part, nn.Conv2d)}
    if len(found) != len(wanted):
        raise FormatError(f"{path}: has {len(found)} convolutions, YOLOX-nano has {len(wanted)}")
    state: dict[str, Tensor] = {}
    for arrays, (name, part) in zip(found, wanted.items(), strict=True):
        own = dict(part.named_parameters())
        if len(arrays) != len(own):
            raise FormatError(f"{path}: {name} has no bias; is its normalisation folded away?")
        for (kind, parameter), array in zip(own.items(), arrays, strict=True):
            if name.endswith("kind_out") and len(array) > 1:
                array = array[_PERSON : _PERSON + 1]
            if name == "trunk.stem.0" and array.shape[1:] == (12, 3, 3):
                array = _unfocused(array)
            if array.shape != tuple(parameter.shape):
                shapes = f"{array.shape}, YOLOX-nano {tuple(parameter.shape)}"
                raise FormatError(f"{path}: {name}.{kind} has shape {shapes}")
            state[f"{name}.{kind}"] = torch.from_numpy(np.array(array, np.float32))
    # The file takes pixels of 0..255, our net 0..1. This also brings the first weights to the
    # size of the others, so that the same learning rate suits them.
    state["trunk.stem.0.weight"] *= 255
    return state


def _unfocused(weight: F32) -> F32:
    """Kernel (O, 3, 6, 6) of stride 2 that does what (O, 12, 3, 3) does after YOLOX's Focus.

    Focus stacks every second pixel, from (row, column) 0,0, 1,0, 0,1 and 1,1 on.
    """
    whole = np.empty((len(weight), 3, 6, 6), np.float32)
    for i, part in enumerate(np.split(weight, 4, 1)):
        whole[:, :, i % 2 :: 2, i // 2 :: 2] = part
    return whole
