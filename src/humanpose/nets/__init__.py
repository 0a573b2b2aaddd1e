"""Networks as torch modules. `create(name, **options)` builds one; needs the [train] extra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from humanpose.errors import InputError
from humanpose.nets.cpm import CPM, VARIANTS, cpm
from humanpose.nets.detector import person
from humanpose.nets.hourglass import HourglassNet, hourglass1, hourglass2, hourglass8
from humanpose.nets.hrnet import hrnet_w32, hrnet_w48
from humanpose.nets.lite import lite
from humanpose.nets.resnet import resnet50, resnet101, resnet152


class Net(Protocol):
    """What training and export ask of a network: logits by a call, and its `outputs`."""

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Named maps of a normalised image (N, 3, H, W), as the exported graph returns them.

        A net of several stages gives each one's as maps_1, maps_2 ... too.
        """
        ...


NETS: dict[str, Callable[..., nn.Module]] = {
    "lite": lite,
    "person": person,
    **{name: cpm(name) for name in VARIANTS},
    "hrnet-w32": hrnet_w32,
    "hrnet-w48": hrnet_w48,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "hourglass1": hourglass1,
    "hourglass2": hourglass2,
    "hourglass8": hourglass8,
}


def create(name: str, **options: Any) -> nn.Module:
    """The network called `name`, initialised for training.

    Raises:
        InputError: on an unknown name or an option the network does not have.
    """
    if name not in NETS:
        raise InputError(f"unknown network {name!r}; there are: {', '.join(sorted(NETS))}")
    try:
        return NETS[name](**options)
    except TypeError as error:
        raise InputError(f"network {name!r}: {error}") from error


def multiplies(name: str, size: tuple[int, int], **options: Any) -> int:
    """Multiply-accumulates of one (width, height) input in convolutions; nothing is computed."""
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
        outputs(net, torch.empty(1, 3, size[1], size[0]))
    return total


def outputs(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """`net.outputs(image)`, typed: every network of this package has it."""
    return cast(Net, net).outputs(image)


def stages(net: nn.Module) -> int:
    """How many stages' maps `net` gives; 1 for a net that knows no stages."""
    if isinstance(net, CPM):
        return net.stages
    return len(net.score) if isinstance(net, HourglassNet) else 1
