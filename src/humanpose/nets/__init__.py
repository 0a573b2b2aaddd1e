"""Networks as torch modules. `create(name, **options)` builds one; needs the [train] extra."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from humanpose.errors import InputError
from humanpose.nets.cpm import CPM, VARIANTS
from humanpose.nets.detector import PersonNet
from humanpose.nets.hourglass import HourglassNet
from humanpose.nets.hrnet import HRNet
from humanpose.nets.lite import Lite
from humanpose.nets.network import Net
from humanpose.nets.resnet import PoseResNet
from humanpose.nets.tinypose import TinyPose

# Name -> its maker. A network is a file of this folder and a line of this table.
NETS: dict[str, Callable[..., Net]] = {
    "lite": Lite,
    "person": PersonNet,
    "tinypose": TinyPose,
    **{name: partial(CPM, variant) for name, variant in VARIANTS.items()},
    **{f"hrnet-w{width}": partial(HRNet, width=width) for width in (32, 48)},
    **{f"resnet{depth}": partial(PoseResNet, depth) for depth in (50, 101, 152)},
    **{f"hourglass{stacks}": partial(HourglassNet, stacks) for stacks in (1, 2, 8)},
}


def create(name: str, **options: Any) -> Net:
    """Make the network called `name`, initialised for training.

    Raises:
        InputError: on an unknown name or an option the network does not have.
    """
    if name not in NETS:
        raise InputError(f"unknown network {name!r}; there are: {', '.join(sorted(NETS))}")
    try:
        return NETS[name](**options)
    except TypeError as error:
        raise InputError(f"network {name!r}: {error}") from error


def macs(name: str, size: tuple[int, int], **options: Any) -> int:
    """Count the multiply-accumulates of the convolutions for one (width, height) input."""
    total = 0

    def count(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        # A transposed convolution multiplies once per input cell, another once per output cell.
        cells = inputs[0] if isinstance(conv, nn.ConvTranspose2d) else output
        total += conv.weight.numel() * cells.shape[2] * cells.shape[3]

    with torch.device("meta"):
        net = create(name, **options).eval()
        for part in net.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                part.register_forward_hook(count)
        net.outputs(torch.empty(1, 3, size[1], size[0]))
    return total
