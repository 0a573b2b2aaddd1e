"""PP-TinyPose of PaddleDetection (Apache-2.0) -> the names of `tinypose`.

Read are an OpenVINO IR (.xml beside .bin) and an ncnn model (.param beside .bin): networks with
their normalisation folded into the convolutions.
"""

from __future__ import annotations

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

_LIMIT_BYTES = 64 << 20
_HALF = b"\x47\x6b\x30\x01"  # ncnn: the weights that follow are float16


def read_tinypose(path: Path) -> dict[str, Tensor]:
    """Return the state of `tinypose` with COCO's 17 joints.

    The net wants RGB normalised as ImageNet's.

    Raises:
        InputError: the file, or the one with its weights, is not there.
        FormatError: it is not TinyPose's.
    """
    net = nets.create("tinypose", joints=17)
    ncnn = path.suffix == ".param"
    found = _ncnn(path) if ncnn else graph_convolutions(path)
    names = _as_run(net) if ncnn else _depth_first(net)
    if len(found) != len(names):
        raise FormatError(f"{path}: has {len(found)} convolutions, TinyPose has {len(names)}")
    parts = dict(net.named_modules())
    layers = [(name, part) for name in names if isinstance(part := parts[name], nn.Conv2d)]
    return state_of(path, "TinyPose", layers, found)


def _depth_first(net: nn.Module) -> list[str]:
    """Return the convolutions of `net`, each after those that its input needs.

    OpenVINO orders operations so; torch's graph of gradients gives the same order.
    """
    names: dict[Any, str] = {
        part.weight: name for name, part in net.named_modules() if isinstance(part, nn.Conv2d)
    }
    order, seen = list[str](), set[object]()
    waiting = [(net(torch.zeros(1, 3, 32, 32)).grad_fn, False)]
    while waiting:
        node, ready = waiting.pop()
        inputs = [each for each, _ in node.next_functions if each is not None]
        if ready:
            weights = (getattr(each, "variable", None) for each in inputs)
            order += [names[weight] for weight in weights if weight in names]
        elif node not in seen:
            seen.add(node)
            waiting += [(node, True), *((each, False) for each in reversed(inputs))]
    return order


def _as_run(net: nn.Module) -> list[str]:
    """Return the convolutions of `net` in the order in which they run."""
    order: list[str] = []
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda *_, name=name: order.append(name))
    with torch.no_grad():
        net(torch.zeros(1, 3, 32, 32))
    return order


def _ncnn(path: Path) -> list[Layer]:
    """Return the convolutions of an ncnn model in the order in which they run."""
    lines = read_limited(path, _LIMIT_BYTES).decode(errors="replace").splitlines()
    content = read_limited(path.with_suffix(".bin"), _LIMIT_BYTES)
    found: list[Layer] = []
    place = 0

    def take(kind: str, count: int) -> F32:
        nonlocal place
        array = np.frombuffer(content, kind, count, place)
        place += -(-array.nbytes // 4) * 4
        return array.astype(np.float32)

    try:
        for line in lines:
            if line.startswith("Convolution"):
                values = dict(word.split("=") for word in line.split() if "=" in word)
                kind = "<f2" if content[place : place + 4] == _HALF else "<f4"
                place += 4
                found.append((take(kind, int(values["6"])), take("<f4", int(values["0"]))))
    except (ValueError, KeyError) as error:
        raise FormatError(f"{path}: not an ncnn model with its .bin ({error})") from error
    if not found or place != len(content):
        raise FormatError(f"{path}: its .bin does not hold the weights of its convolutions")
    return found
