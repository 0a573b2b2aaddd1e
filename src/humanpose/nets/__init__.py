"""Networks as torch modules. `create(name, **options)` builds one; needs the [train] extra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from torch import Tensor, nn

from humanpose.errors import InputError
from humanpose.nets.lite import lite
from humanpose.nets.person import person


class Net(Protocol):
    """What training and export ask of a network: logits by a call, and its `outputs`."""

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Named maps of a normalised image (N, 3, H, W), as the exported graph returns them."""
        ...


NETS: dict[str, Callable[..., nn.Module]] = {"lite": lite, "person": person}


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


def outputs(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """`net.outputs(image)`, typed: every network of this package has it."""
    return cast(Net, net).outputs(image)
