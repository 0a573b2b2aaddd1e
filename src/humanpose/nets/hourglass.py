"""Stacked hourglass: down to a 64th and up again, as often as there are stacks.

Source: Newell et al. 2016, "Stacked Hourglass Networks for Human Pose Estimation"; the variant
and the parameter names are those of bearpaw/pytorch-pose, whose predictions on MPII are public.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from humanpose.errors import InputError
from humanpose.nets.network import Net, Options, topdown_spec
from humanpose.skeleton import Skeleton
from humanpose.spec import ModelSpec

_FEATURES = 256
_MEAN = (0.4404 * 255, 0.4440 * 255, 0.4327 * 255)
_DEPTH = 4  # halvings inside an hourglass


class Bottleneck(nn.Module):
    """Pre-activation residual: normalisation and ReLU come before each convolution."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 2 * planes, 1)
        same = inputs == 2 * planes
        self.downsample = None if same else nn.Sequential(nn.Conv2d(inputs, 2 * planes, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.conv3(F.relu(self.bn3(out)))
        short: Tensor = x if self.downsample is None else self.downsample(x)
        return out + short


def _residuals(blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(_FEATURES, _FEATURES // 2) for _ in range(blocks)))


class Hourglass(nn.Module):
    """One hourglass of four halvings; the innermost level has one residual group more."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.hg = nn.ModuleList(
            nn.ModuleList(_residuals(blocks) for _ in range(4 if level == 0 else 3))
            for level in range(_DEPTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._level(_DEPTH - 1, x)

    def _level(self, level: int, x: Tensor) -> Tensor:
        groups = self.hg[level]
        assert isinstance(groups, nn.ModuleList)
        low = groups[1](F.max_pool2d(x, 2))
        low = self._level(level - 1, low) if level > 0 else groups[3](low)
        up = F.interpolate(groups[2](low), scale_factor=2.0, mode="nearest")
        kept: Tensor = groups[0](x)
        return kept + up


class HourglassNet(Net):
    """Heat maps at stride 4 from the last stack; the input's sides must be multiples of 64.

    Args:
        stacks: hourglasses one after the other.
        joints: maps.
        blocks: residuals in each group.
    """

    foreign = ("hourglass",)

    def __init__(self, stacks: int, joints: int = 16, blocks: int = 1) -> None:
        super().__init__()
        self.stages = stacks
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Bottleneck(64, 64))
        self.layer2 = nn.Sequential(Bottleneck(128, 128))
        self.layer3 = nn.Sequential(Bottleneck(256, 128))
        self.hg = nn.ModuleList(Hourglass(blocks) for _ in range(stacks))
        self.res = nn.ModuleList(_residuals(blocks) for _ in range(stacks))
        self.fc = nn.ModuleList(
            nn.Sequential(nn.Conv2d(_FEATURES, _FEATURES, 1), nn.BatchNorm2d(_FEATURES), nn.ReLU())
            for _ in range(stacks)
        )
        self.score = nn.ModuleList(nn.Conv2d(_FEATURES, joints, 1) for _ in range(stacks))
        self.fc_ = nn.ModuleList(nn.Conv2d(_FEATURES, _FEATURES, 1) for _ in range(stacks - 1))
        self.score_ = nn.ModuleList(nn.Conv2d(joints, _FEATURES, 1) for _ in range(stacks - 1))

    def trained_maps(self, image: Tensor) -> list[Tensor]:
        """Return the heat maps of every stack, each (N, joints, H/4, W/4)."""
        if any(side % 64 for side in image.shape[2:]):
            raise InputError(f"hourglass: input {tuple(image.shape[2:])} must be multiples of 64")
        x = self.layer1(F.relu(self.bn1(self.conv1(image))))
        x = self.layer3(self.layer2(F.max_pool2d(x, 2)))
        maps: list[Tensor] = []
        for i, hourglass in enumerate(self.hg):
            y = self.fc[i](self.res[i](hourglass(x)))
            maps.append(self.score[i](y))
            if i < len(self.fc_):
                x = x + self.fc_[i](y) + self.score_[i](maps[-1])
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Return the heat maps of the last stack."""
        return self.trained_maps(image)[-1]

    def spec(self, name: str, net: str, options: Options, skeleton: Skeleton | None) -> ModelSpec:
        """See `Net.spec`."""
        return topdown_spec(
            name,
            net,
            options,
            skeleton,
            joints=16,
            input=(256, 256),
            multiple_of=64,
            mean=_MEAN,
            std=(255, 255, 255),
        )
