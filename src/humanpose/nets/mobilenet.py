"""MobileNetV2 and a small feature pyramid, as MoveNet joins them: one map at stride 4.

As they stand here they have no normalisation layers: the weights this project starts from have
theirs folded into the convolutions, and a fine-tuning that starts there keeps its scale. A
training from random weights learns faster with them; `normalise` puts them in.

Source: Sandler et al. 2018, "MobileNetV2", table 2; Lin et al. 2017, "Feature Pyramid Networks".
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

# expansion, channels at width 1, repeats, stride
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


PYRAMID = (24, 32, 64)  # MoveNet's at strides 4, 8, 16, at any width of the backbone


def widened(channels: int, width: float) -> int:
    """`width` times as many channels, a multiple of 8, as MobileNetV2's authors round."""
    found = max(8, int(channels * width + 4) // 8 * 8)
    return found + 8 if found < 0.9 * channels * width else found


class SameConv(nn.Module):
    """Convolution with TensorFlow's "same" padding: at stride 2 only right and bottom grow."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.trailing = stride == 2
        padding = 0 if self.trailing else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        self.norm: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.trailing:
            x = F.pad(x, (0, 1, 0, 1))
        out: Tensor = self.norm(self.conv(x))
        return out


class Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise, project 1x1."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = SameConv(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, 3, stride=stride, groups=hidden)
        self.project = SameConv(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """Features at strides 4, 8, 16 and 32.

    Args:
        tail: keep the 320- and 1280-channel end; without it stride 32 has 160 channels and the
            net 0.9 M parameters less.
        width: of the layers; the 1280 channels of the end stay.
    """

    def __init__(self, *, tail: bool = True, width: float = 1.0) -> None:
        super().__init__()
        channels = widened(32, width)
        self.stem = SameConv(3, channels, 3, stride=2)
        blocks: list[nn.Module] = []
        taps = []  # index of the last block before each halving of the resolution
        tapped = []
        for expansion, base, repeats, first_stride in _STAGES if tail else _STAGES[:-1]:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                outputs = widened(base, width)
                blocks.append(Block(channels, outputs, expansion=expansion, stride=stride))
                channels = outputs
            # MoveNet takes stride 16 from the 64-channel stage, not from the 96-channel one.
            if base in (24, 32, 64):
                taps.append(len(blocks) - 1)
                tapped.append(channels)
        self.blocks = nn.ModuleList(blocks)
        self.taps = tuple(taps)
        self.head = SameConv(channels, 1280, 1) if tail else None
        self.widths = (*tapped, 1280 if tail else channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(x))
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                features.append(x)
        features.append(x if self.head is None else F.relu6(self.head(x)))
        return features


class Separable(nn.Module):
    """Depthwise 3x3, then 1x1 and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = SameConv(inputs, inputs, 3, groups=inputs)
        self.pointwise = SameConv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)))


class Pyramid(nn.Module):
    """Join features from coarse to fine: upsample, add the lateral, smooth; (N, C, h/4, w/4).

    Args:
        widths: channels of the features, fine to coarse.
        fine: its own, at all strides but the coarsest; C is the first.
    """

    def __init__(self, widths: Sequence[int], fine: Sequence[int] = PYRAMID) -> None:
        super().__init__()
        self.top = SameConv(widths[-1], fine[-1], 1)
        self.laterals = nn.ModuleList(
            SameConv(width, own, 1)
            for width, own in zip(reversed(widths[:-1]), reversed(fine), strict=True)
        )
        outputs = (*reversed(fine[:-1]), fine[0])
        self.smooths = nn.ModuleList(
            Separable(width, out) for width, out in zip(reversed(fine), outputs, strict=True)
        )
        self.width = fine[0]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        *fine, coarse = features
        x: Tensor = self.top(coarse)
        for lateral, smooth, feature in zip(
            self.laterals, self.smooths, reversed(fine), strict=True
        ):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = smooth(x + lateral(feature))
        return x


class Head(nn.Module):
    """Separable convolution to `hidden` channels, then 1x1 to `outputs`."""

    def __init__(self, inputs: int, outputs: int, *, hidden: int = 96) -> None:
        super().__init__()
        self.separable = Separable(inputs, hidden)
        self.out = SameConv(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.separable(x))
        return out


def normalise(module: nn.Module) -> None:
    """Batch normalisation after every convolution, which then needs no bias."""
    for part in module.modules():
        if isinstance(part, SameConv):
            part.norm = nn.BatchNorm2d(part.conv.out_channels)
            part.conv.register_parameter("bias", None)


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            assert part.bias is not None  # every convolution of this family has one
            nn.init.zeros_(part.bias)
