"""A network as the loop calls it: from uint8 crops to the maps that a loss judges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from humanpose import nets
from humanpose.nets.cpm import CPM
from humanpose.nets.hourglass import HourglassNet
from humanpose.nets.torch_runtime import ExportModule
from humanpose.spec import ModelSpec


class TrainModule(nn.Module):
    """`net` behind its own pixel rules.

    `forward` takes RGB uint8 (N, H, W, 3) and gives a detector's raw maps by name, or the maps
    of every stage, first to last, (N, K, h, w) each.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.pixels = ExportModule(net, spec)
        self.net = net

    def forward(self, image: Tensor) -> dict[str, Tensor] | list[Tensor]:
        x = self.pixels.normalised(image).to(next(self.net.parameters()).dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        if isinstance(self.net, CPM | HourglassNet):
            found = nets.outputs(self.net, x)
            return [found[f"maps_{i}"] for i in range(1, nets.stages(self.net) + 1)]
        out: Any = self.net(x)
        return out if isinstance(out, dict) else [out]
