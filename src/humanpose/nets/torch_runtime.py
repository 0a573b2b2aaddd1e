"""A torch network behind the same call as an exported one: uint8 crops in, named maps out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from humanpose import nets
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8


class Deployed(nn.Module):
    """`net` with its pixel rules inside: what is exported, and what validation runs.

    `forward` takes RGB uint8 (N, H, W, 3) and gives the spec's named outputs, float32.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.net = net
        self.names = tuple(output_names(spec))
        self.bgr = spec.channels == "bgr"
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        named = nets.outputs(self.net, self.normalised(image))
        return tuple(named[name].float() for name in self.names)

    def normalised(self, image: Tensor) -> Tensor:
        """RGB uint8 (N, H, W, 3) -> what the network takes, (N, 3, H, W) channels-last."""
        x = image.permute(0, 3, 1, 2).float()
        if self.bgr:
            x = x.flip(1)
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor)
        return (x - self.mean) / self.std


def output_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the exported outputs, in order: a detector of boxes has three."""
    return ("centre", "size", "offset") if spec.decode == "boxes" else ("maps",)


class TorchRuntime:
    """`infer.runtime.Runtime` over a torch network; float32 unless `precision` is "bf16"."""

    def __init__(self, net: nn.Module, spec: ModelSpec, *, precision: str = "float32") -> None:
        self.deployed = Deployed(net, spec).eval()
        self.precision = precision
        self.name = "torch"

    @torch.inference_mode()
    def run(self, crops: U8) -> dict[str, F32]:
        """Outputs of RGB crops (N, H, W, 3) uint8."""
        device = next(self.deployed.parameters()).device
        image = torch.from_numpy(np.ascontiguousarray(crops)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            found = self.deployed(image)
        arrays: list[NDArray[np.float32]] = [out.float().cpu().numpy() for out in found]
        return dict(zip(self.deployed.names, arrays, strict=True))
