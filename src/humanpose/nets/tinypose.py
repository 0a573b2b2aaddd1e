"""`tinypose`: PP-TinyPose, a Lite-HRNet of shuffle units, 1.3 M parameters at 17 joints.

Four branches at strides 4 to 32 exchange features; the head joins them from coarse to fine. There
are no normalisation layers by default: those of the published weights are folded into their
convolutions.

Source: PaddleDetection (Apache-2.0), `ppdet/modeling/backbones/lite_hrnet.py`, its "wider_naive";
Yu et al. 2021, "Lite-HRNet"; Ma et al. 2018, "ShuffleNet V2".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from humanpose.errors import InputError
from humanpose.nets.lite import NORMS, SameConv, normalise
from humanpose.nets.network import KAIMING, Net, Options, initialise, topdown_spec
from humanpose.skeleton import BODY19, Skeleton
from humanpose.spec import ModelSpec

_STEM = 32
_WIDTHS = (40, 80, 160, 320)  # of the branches at strides 4, 8, 16, 32
_MODULES = (2, 4, 2)  # exchanges of the stages with 2, 3 and 4 branches
_UNITS = 2  # of each branch before an exchange
_JOINTS = 19


class Conv(SameConv):
    """Convolution with even padding, and ReLU unless it is linear."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, groups=inputs if depthwise else 1)
        self.conv.stride = (stride, stride)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if self.linear else F.relu(out)


def separable(inputs: int, outputs: int, *, stride: int = 1, linear: bool = False) -> nn.Sequential:
    """Return a linear depthwise 3x3 convolution and a 1x1 convolution after it."""
    depthwise = Conv(inputs, inputs, 3, stride=stride, depthwise=True, linear=True)
    return nn.Sequential(depthwise, Conv(inputs, outputs, linear=linear))


def shuffled(left: Tensor, right: Tensor) -> Tensor:
    """Return the channels of both in turn: a channel shuffle of two groups."""
    return torch.stack((left, right), 2).flatten(1, 2)


class Stem(nn.Module):
    """Two halvings of the resolution, the second one by two different branches."""

    def __init__(self) -> None:
        super().__init__()
        half = _STEM // 2
        self.first = Conv(3, _STEM, 3, stride=2)
        self.left = separable(half, half, stride=2)
        self.expand = Conv(half, _STEM)
        self.right = separable(_STEM, half, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        left, right = self.first(image).chunk(2, 1)
        return shuffled(self.left(left), self.right(self.expand(right)))


class Unit(nn.Module):
    """Shuffle unit: half of the channels pass as they are, half go through three convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(Conv(half, half), separable(half, half))

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, 1)
        return shuffled(kept, self.branch(worked))


class Exchange(nn.Module):
    """Shuffle units on each branch, then every branch receives the sum of all.

    The published weights were trained by a program that changes a branch in place: the first
    branch counts twice in every sum, and the others receive its sum before ReLU, not itself.
    """

    def __init__(self, branches: int) -> None:
        super().__init__()
        widths = _WIDTHS[:branches]
        self.branches = nn.ModuleList(
            nn.Sequential(*(Unit(width) for _ in range(_UNITS))) for width in widths
        )
        self.ways = nn.ModuleList(
            nn.ModuleList(self._way(source, target) for source in range(branches))
            for target in range(branches)
        )

    @staticmethod
    def _way(source: int, target: int) -> nn.Module:
        """Return what brings the features of one branch to the size of another."""
        theirs, ours = _WIDTHS[source], _WIDTHS[target]
        if source >= target:
            return Conv(theirs, ours, linear=True) if source > target else nn.Identity()
        steps = [separable(theirs, theirs, stride=2) for _ in range(target - source - 1)]
        return nn.Sequential(*steps, separable(theirs, ours, stride=2, linear=True))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        sums: list[Tensor] = []
        for target, ways in enumerate(self.ways):
            assert isinstance(ways, nn.ModuleList)  # narrows the type
            first, *rest = zip(ways, features, strict=True)
            total = 2 * first[0](sums[0] if sums else first[1])
            for source, (way, x) in enumerate(rest, 1):
                found = way(x)
                if source > target:
                    found = F.interpolate(found, scale_factor=2 ** (source - target))
                total = total + found
            sums.append(total)
        return [F.relu(each) for each in sums]


class TinyPose(Net):
    """Heat maps (N, J, H/4, W/4) of a normalised crop (N, 3, H, W) of one person.

    Args:
        joints: maps.
        norm: "none", or "batch" for a training from random weights.

    Raises:
        InputError: on another norm.
    """

    def __init__(self, joints: int = _JOINTS, norm: str = "none") -> None:
        super().__init__()
        if norm not in NORMS:
            raise InputError(f"norm {norm!r} is not one of {', '.join(NORMS)}")
        self.stem = Stem()
        self.starts = nn.ModuleList(
            [separable(_STEM, _WIDTHS[0])]
            + [
                separable(theirs, ours, stride=2)
                for theirs, ours in zip((_STEM, *_WIDTHS[1:]), _WIDTHS[1:], strict=False)
            ]
        )
        self.exchanges = nn.ModuleList(
            nn.Sequential(*(Exchange(branches) for _ in range(count)))
            for branches, count in enumerate(_MODULES, 2)
        )
        finer = (_WIDTHS[0], *_WIDTHS[:-1])
        self.head = nn.ModuleList(map(separable, _WIDTHS, finer))
        self.maps = nn.Conv2d(_WIDTHS[0], joints, 1)
        initialise(self, KAIMING)
        if norm == "batch":
            normalise(self)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        features = [self.starts[0](x), self.starts[1](x)]
        for i, stage in enumerate(self.exchanges):
            if i:
                features.append(self.starts[i + 1](features[-1]))
            features = stage(features)
        x = self.head[-1](features.pop())
        for join, finer in zip(reversed(self.head[:-1]), reversed(features), strict=True):
            x = join(finer + F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        maps: Tensor = self.maps(x)
        return maps

    def spec(self, name: str, net: str, options: Options, skeleton: Skeleton | None) -> ModelSpec:
        """See `Net.spec`."""
        options = {"joints": _JOINTS} | options
        if options["joints"] == _JOINTS:
            skeleton = skeleton or BODY19
        return topdown_spec(name, net, options, skeleton, input=(192, 256), decode="dark")
