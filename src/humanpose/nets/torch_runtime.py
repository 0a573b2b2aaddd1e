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


class ExportModule(nn.Module):
    """`net` with its pixel rules inside: what is exported, and what validation runs.

    `forward` takes RGB uint8 (N, H, W, 3) and gives the spec's named outputs, float32; with
    `stages` also the maps of every stage. Where the spec says "flip", each map is the mean of the
    crop's own and of its mirror image's, turned back.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec, *, stages: bool = False) -> None:
        super().__init__()
        self.net = net
        self.names = output_names(spec) + (stage_names(net, spec) if stages else ())
        self.bgr = spec.channels == "bgr"
        self.flip = spec.flip
        if self.flip:
            self.register_buffer("flip_index", torch.tensor(spec.flip_index))
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.normalised(image)
        named = nets.outputs(self.net, torch.cat([x, x.flip(3)]) if self.flip else x)
        found = [named[name] for name in self.names]
        if self.flip:
            found = [self._merged(maps, image.shape[0]) for maps in found]
        # A cast that changes nothing would stand in the exported graph.
        return tuple(out if out.dtype == torch.float32 else out.float() for out in found)

    def _merged(self, maps: Tensor, count: int) -> Tensor:
        """Maps (2 N, K, h, w) of N crops and then of their mirror images as N means."""
        assert isinstance(self.flip_index, Tensor)
        return (maps[:count] + maps[count:].flip(3).index_select(1, self.flip_index)) / 2

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
        self.deployed = ExportModule(net, spec, stages=stages).eval().to(self._device)
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
