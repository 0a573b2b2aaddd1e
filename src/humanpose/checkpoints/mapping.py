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
from torch import Tensor

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
from humanpose.nets.cpm import CPM
from humanpose.nets.network import Net

_PARSERS = {
    "caffe": parse_caffemodel,
    "tensorflow": parse_tf_checkpoint,
    "tensorflow-graph": parse_tf_graph,
    "openpose-pickle": parse_openpose_pickle,
}
# Kinds of files, see `Net.foreign`; the last three are PyTorch's.
KINDS = (*_PARSERS, "hrnet", "simplebaseline", "hourglass")
_PARAMETERS = {"weights": "weight", "kernel": "weight", "biases": "bias", "bias": "bias"}
_OPTIMIZERS = re.compile(r"(?i)(adam|momentum|rmsprop|adagrad|adadelta|ftrl|optimizer)\w*$")
_PSYCHARO = ("PersonNet", "PoseNet")

_STEM = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv3_4")
_BODY = (*_STEM, "conv4_1", "conv4_2", *(f"conv4_{i}_CPM" for i in (3, 4, 5, 6)))
_HAND = (*_STEM, "conv4_1", "conv4_2", "conv4_3", "conv4_4", "conv5_1", "conv5_2")
# A layer of timctho's port -> ours of a body net, and of a hand net.
_TIMCTHO = {
    **{f"sub_stages/sub_conv{i}": ours for i, ours in enumerate(zip(_BODY, _HAND, strict=True), 1)},
    "sub_stages/sub_stage_img_feature": ("conv4_7_CPM", "conv5_3_CPM"),
    "stage_1/conv1": ("conv5_1_CPM", "conv6_1_CPM"),
    "stage_1/stage_heatmap": ("conv5_2_CPM", "conv6_2_CPM"),
}


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
    arrays: Mapping[str, np.ndarray[Any, Any] | Tensor], kind: str, net_name: str, net: Net
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
    check_kind(kind, net_name, net)
    own = net.state_dict()
    state: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    left_over, refused = [], []
    for name, value in arrays.items():
        target = _target(name, net) if kind.startswith("tensorflow") else name
        shown = printable(name)
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


def check_kind(kind: str, net_name: str, net: Net) -> None:
    """Raises InputError unless files of `kind` can hold `net`, which is called `net_name`."""
    if kind not in KINDS:
        raise InputError(f"unknown kind of weights {kind!r}; there are: {', '.join(KINDS)}")
    if kind not in net.foreign:
        others = " or ".join(net.foreign) or "none"
        raise InputError(f"files of kind {kind} hold no {net_name!r} (kinds that do: {others})")


def _target(name: str, net: Net) -> str | None:
    """Our name for TensorFlow's `name`, which need not exist in `net`; None if it has none."""
    parts = name.removesuffix(":0").split("/")
    if len(parts) < 2 or parts[-1] not in _PARAMETERS:
        return None
    if any(_OPTIMIZERS.match(part) for part in parts):
        return None
    layer, place = parts[-2], "/".join(parts[-3:-1])
    # psycharo's two nets share layer names; one file may hold both.
    if any(part in _PSYCHARO for part in parts):
        person = isinstance(net, CPM) and not net.variant.background
        if _PSYCHARO[not person] not in parts:
            return None
    elif place in _TIMCTHO:
        body, hand = _TIMCTHO[place]
        layer = body if hasattr(net, body) else hand
    elif middle := re.fullmatch(r"stage_(\d+)/mid_conv([1-7])", place):
        layer = f"Mconv{middle[2]}_stage{middle[1]}"
    return f"{layer}.{_PARAMETERS[parts[-1]]}"


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
