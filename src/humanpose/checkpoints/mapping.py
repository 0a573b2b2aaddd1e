"""Read foreign weights and map their names and layouts to the state of one of our networks.

CPM nets carry the names of the Caffe release (hand nets OpenPose's), the others those of their
official repositories, so that only TensorFlow's names need a translation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from humanpose import sandbox
from humanpose.checkpoints.legacy.caffe import parse_caffemodel
from humanpose.checkpoints.legacy.openpose_pickle import parse_openpose_pickle
from humanpose.checkpoints.legacy.pth import read_pth
from humanpose.checkpoints.legacy.tensorflow import (
    checkpoint_file,
    parse_tf_checkpoint,
    parse_tf_graph,
)
from humanpose.errors import InputError, printable
from humanpose.files import file_size

# Kind of file -> nets that it can hold, as beginnings of their names.
KINDS: dict[str, tuple[str, ...]] = {
    "caffe": ("cpm-",),
    "tensorflow": ("cpm-",),
    "tensorflow-graph": ("cpm-",),
    "openpose-pickle": ("cpm-vgg", "cpm-hand"),
    "hrnet": ("hrnet-",),
    "simplebaseline": ("resnet",),
    "hourglass": ("hourglass",),
}

# The others are files of PyTorch.
_PARSERS = {
    "caffe": parse_caffemodel,
    "tensorflow": parse_tf_checkpoint,
    "tensorflow-graph": parse_tf_graph,
    "openpose-pickle": parse_openpose_pickle,
}
_PARAMETERS = {"weights": "weight", "kernel": "weight", "biases": "bias", "bias": "bias"}
_OPTIMIZERS = re.compile(r"(?i)(adam|momentum|rmsprop|adagrad|adadelta|ftrl|optimizer)\w*$")
_PSYCHARO = ("PersonNet", "PoseNet")

# timctho's sub_conv1 ... sub_conv14, its shared feature and its first stage.
_STEM = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv3_4")
_BODY = (*_STEM, "conv4_1", "conv4_2", *(f"conv4_{i}_CPM" for i in (3, 4, 5, 6)))
_HAND = (*_STEM, "conv4_1", "conv4_2", "conv4_3", "conv4_4", "conv5_1", "conv5_2")


@dataclass(frozen=True, slots=True)
class Import:
    """Tensors of a foreign file, sorted by whether and where they fit a net.

    Attributes:
        state: our name -> tensor of the net's shape; float32, counters int64.
        mapped: our names that the file filled, in the net's order.
        missing: our names that the file did not fill.
        left_over: the file's names that this net has no place for.
        refused: a sentence for each tensor that has a place and does not fit it.
    """

    state: dict[str, Tensor]
    mapped: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    refused: tuple[str, ...]


def read_foreign(kind: str, path: Path) -> Mapping[str, np.ndarray[Any, Any] | Tensor]:
    """Tensors of a foreign file by its own names; nothing in it is executed.

    Files of `kind` other than PyTorch's are parsed in a child process with limits of memory and
    time.

    Raises:
        InputError: if the file is not there.
        FormatError, LimitError: as the reader of the kind says.
    """
    if kind not in _PARSERS:
        return read_pth(path)
    if kind == "tensorflow":
        path, size = checkpoint_file(path)
    else:
        size = file_size(path)
    return sandbox.parse(_PARSERS[kind], path, memory=(2 << 30) + 8 * size)


def to_net(
    arrays: Mapping[str, np.ndarray[Any, Any] | Tensor], kind: str, net_name: str, net: nn.Module
) -> Import:
    """Assign the tensors of `arrays` to those of `net`; nothing is copied into `net`.

    BatchNorm's counters of batches, which old files lack, become 0 and do not count as missing.

    Args:
        arrays: tensors by the file's own names, as the reader of `kind` gave them.
        kind: one of KINDS.
        net_name: name of `net` for `nets.create`.
        net: only names and shapes are read; it may be on the meta device.

    Raises:
        InputError: unknown kind, or one that cannot hold such a net.
    """
    check_kind(kind, net_name)
    own = net.state_dict()
    state: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    left_over, refused = [], []
    for name, value in arrays.items():
        target, shown = _target(name, kind, net_name), printable(name)
        if target not in own:
            left_over.append(name)
            continue
        if target in origin:
            refused.append(f"{shown} and {printable(origin[target])} both fill {target}")
            continue
        origin[target] = name
        tensor = _tensor(value, transposed=kind.startswith("tensorflow"))
        if tensor.shape != own[target].shape:
            given, wanted = tuple(tensor.shape), tuple(own[target].shape)
            refused.append(f"{shown} has shape {given}, {target} wants {wanted}")
        elif not torch.isfinite(tensor).all():
            refused.append(f"{shown} holds values that are not finite")
        else:
            state[target] = tensor
    for name in own:
        if name not in origin and name.endswith(".num_batches_tracked"):
            state[name] = torch.tensor(0)
            origin[name] = ""
    return Import(
        {name: state[name] for name in own if name in state},
        tuple(name for name in own if name in state and origin[name]),
        tuple(name for name in own if name not in origin),
        tuple(left_over),
        tuple(refused),
    )


def is_timctho(names: Mapping[str, Any]) -> bool:
    """Whether TensorFlow names are those of timctho's port (BGR, value / 256 - 0.5)."""
    return any(re.search(r"(^|/)sub_stages/sub_", name) for name in names)


def check_kind(kind: str, net_name: str) -> None:
    """Raises InputError unless files of `kind` can hold the net called `net_name`."""
    if kind not in KINDS:
        raise InputError(f"unknown kind of weights {kind!r}; there are: {', '.join(KINDS)}")
    if not net_name.startswith(KINDS[kind]):
        those = ", ".join(f"{start}*" for start in KINDS[kind])
        raise InputError(f"files of kind {kind} hold no {net_name!r} (but {those})")


def _target(name: str, kind: str, net_name: str) -> str | None:
    """Our name for the file's `name`, which need not exist in the net; None if it has none."""
    if not kind.startswith("tensorflow"):
        return name
    parts = name.removesuffix(":0").split("/")
    if len(parts) < 2 or parts[-1] not in _PARAMETERS:
        return None
    if any(_OPTIMIZERS.match(part) for part in parts):
        return None
    layer, scope = parts[-2], parts[-3] if len(parts) > 2 else ""
    # psycharo's two nets share layer names; one file may hold both.
    if any(part in _PSYCHARO for part in parts):
        wanted = "PersonNet" if net_name == "cpm-person" else "PoseNet"
        if wanted not in parts:
            return None
    elif timcthos := _timctho(scope, layer, hand=net_name.startswith("cpm-hand")):
        layer = timcthos
    return f"{layer}.{_PARAMETERS[parts[-1]]}"


def _timctho(scope: str, layer: str, *, hand: bool) -> str | None:
    """Our layer for one of timctho's, or None."""
    if scope == "sub_stages":
        if layer == "sub_stage_img_feature":
            return "conv5_3_CPM" if hand else "conv4_7_CPM"
        number = re.fullmatch(r"sub_conv(\d{1,2})", layer)
        if number and 1 <= int(number[1]) <= len(_BODY):
            return (_HAND if hand else _BODY)[int(number[1]) - 1]
        return None
    if scope == "stage_1":
        first = {"conv1": "conv6_1_CPM", "stage_heatmap": "conv6_2_CPM"}
        if layer in first:
            return first[layer] if hand else first[layer].replace("conv6", "conv5")
    stage, middle = re.fullmatch(r"stage_(\d+)", scope), re.fullmatch(r"mid_conv([1-7])", layer)
    return f"Mconv{middle[1]}_stage{stage[1]}" if stage and middle else None


def _tensor(value: np.ndarray[Any, Any] | Tensor, *, transposed: bool) -> Tensor:
    """Return a copy in float32, or in int64 if the file has integers."""
    if isinstance(value, Tensor):
        tensor = value.detach()
    else:
        if transposed and value.ndim == 4:  # (kh, kw, in, out)
            value = value.transpose(3, 2, 0, 1)
        # The file's byte order may not be the machine's, and torch takes only that one.
        native = np.array(value, value.dtype.newbyteorder("="), order="C")
        tensor = torch.from_numpy(native)
    kind = torch.float32 if tensor.is_floating_point() else torch.int64
    return tensor.to(kind, copy=True, memory_format=torch.contiguous_format)
