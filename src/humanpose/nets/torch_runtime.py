"""A torch network behind the same call as an exported one: uint8 crops in, named maps out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from humanpose import nets
from humanpose.errors import InputError
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8


class Deployed(nn.Module):
    """`net` with its pixel rules inside: what is exported, and what validation runs.

    `forward` takes RGB uint8 (N, H, W, 3) and gives the spec's named outputs, float32; with
    `stages` also the maps of every stage.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec, *, stages: bool = False) -> None:
        super().__init__()
        self.net = net
        self.names = output_names(spec) + (stage_names(net, spec) if stages else ())
        self.bgr = spec.channels == "bgr"
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        named = nets.outputs(self.net, self.normalised(image))
        # A cast that changes nothing would stand in the exported graph.
        return tuple(
            out if out.dtype == torch.float32 else out.float()
            for out in (named[name] for name in self.names)
        )

    def normalised(self, image: Tensor) -> Tensor:
        """RGB uint8 (N, H, W, 3) -> what the network takes, (N, 3, H, W) channels-last."""
        x = image.permute(0, 3, 1, 2).float()
        if self.bgr:
            x = x.flip(1)
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor)
        return (x - self.mean) / self.std


def output_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the exported outputs, in order: a detector gives boxes, the others maps."""
    return ("boxes",) if spec.decode == "boxes" else ("maps",)


def stage_names(net: nn.Module, spec: ModelSpec) -> tuple[str, ...]:
    """Names of the maps of every stage, "maps_1" first; the last is the same as "maps".

    Raises:
        InputError: if `net` has one stage only.
    """
    count = nets.stages(net)
    if count < 2:
        raise InputError(f"network {spec.net!r} has one stage; stages need a CPM or hourglass net")
    return tuple(f"maps_{i}" for i in range(1, count + 1))


class TorchRuntime:
    """`infer.runtime.Runtime` over a torch network, on the device where `net` lies.

    It computes in float32 unless `precision` is "bf16".
    """

    def __init__(
        self,
        net: nn.Module,
        spec: ModelSpec,
        *,
        precision: str = "float32",
        stages: bool = False,
    ) -> None:
        self._device = next(net.parameters()).device
        self.deployed = Deployed(net, spec, stages=stages).eval().to(self._device)
        self.precision = precision
        self.name = "torch"

    @torch.inference_mode()
    def run(self, crops: U8) -> dict[str, F32]:
        """Outputs of RGB crops (N, H, W, 3) uint8."""
        image = torch.from_numpy(np.ascontiguousarray(crops)).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            found = self.deployed(image)
        arrays: list[NDArray[np.float32]] = [out.float().cpu().numpy() for out in found]
        return dict(zip(self.deployed.names, arrays, strict=True))
