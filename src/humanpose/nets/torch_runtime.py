"""A torch network behind the same call as an exported one: uint8 crops in, named maps out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from humanpose.errors import InputError
from humanpose.nets.network import Net
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8


class PixelModule(nn.Module):
    """`net` with its pixel rules: the base of what is trained and of what is exported."""

    def __init__(self, net: Net, spec: ModelSpec) -> None:
        super().__init__()
        self.net = net
        self.bgr = spec.channels == "bgr"
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

    def normalised(self, image: Tensor) -> Tensor:
        """Return RGB uint8 (N, H, W, 3) as the network takes it, (N, 3, H, W) channels-last."""
        x = image.permute(0, 3, 1, 2).float()
        if self.bgr:
            x = x.flip(1)
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor)
        return (x - self.mean) / self.std


class ExportModule(PixelModule):
    """The module that is exported and that validation runs.

    `forward` takes RGB uint8 (N, H, W, 3) and gives the spec's outputs by `names`, float32: boxes
    of a detector, else maps, and with `stages` also the maps of every stage.
    """

    def __init__(self, net: Net, spec: ModelSpec, *, stages: bool = False) -> None:
        super().__init__(net, spec)
        first = "boxes" if spec.decode == "boxes" else "maps"
        self.names = (first, *(stage_names(net, spec) if stages else ()))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        named = self.net.outputs(self.normalised(image))
        found = [named[name] for name in self.names]
        # A cast that changes nothing would stand in the exported graph.
        return tuple(out if out.dtype == torch.float32 else out.float() for out in found)


def stage_names(net: Net, spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of the maps of every stage, "maps_1" first; the last is also "maps".

    Raises:
        InputError: if `net` has one stage only.
    """
    if net.stages < 2:
        raise InputError(f"network {spec.net!r} has one stage; stages need a CPM or hourglass net")
    return tuple(f"maps_{i}" for i in range(1, net.stages + 1))


class TorchRuntime:
    """`infer.runtime.Runtime` over a torch network, on the device where `net` lies.

    It computes in float32 unless `precision` is "bf16".
    """

    def __init__(
        self, net: Net, spec: ModelSpec, *, precision: str = "float32", stages: bool = False
    ) -> None:
        self._device = next(net.parameters()).device
        self.deployed = ExportModule(net, spec, stages=stages).eval().to(self._device)
        self.precision = precision
        self.name = "torch"

    @torch.inference_mode()
    def run(self, crops: U8) -> dict[str, F32]:
        """Return the outputs of RGB crops (N, H, W, 3) uint8."""
        image = torch.from_numpy(np.ascontiguousarray(crops)).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            found = self.deployed(image)
        arrays: list[NDArray[np.float32]] = [out.float().cpu().numpy() for out in found]
        return dict(zip(self.deployed.names, arrays, strict=True))
