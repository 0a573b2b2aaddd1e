"""`lite`: the default pose network. MobileNetV2, feature pyramid, one head of heat maps.

As MoveNet joins them: one map at stride 4. There are no normalisation layers by default: the
weights this project starts from have theirs folded into the convolutions, and a fine-tuning that
starts there keeps its scale. A training from random weights learns faster with them
(`norm="batch"`).

Source: Sandler et al. 2018, "MobileNetV2", table 2; Lin et al. 2017, "Feature Pyramid Networks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from humanpose.errors import InputError
from humanpose.nets.network import KAIMING, Net, Options, initialise
from humanpose.skeleton import BODY19, Skeleton
from humanpose.spec import ModelSpec

M = TypeVar("M", bound=nn.Module)

NORMS = ("none", "batch")
PYRAMID = (24, 32, 64)  # channels of MoveNet's at strides 4, 8, 16, at any width of the backbone
_JOINTS = 19
_HEAD = 96  # channels of the head
_SWEEPS = 30  # of `equalize`
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


def make_divisible(channels: int, width: float) -> int:
    """Return `width` times as many channels, a multiple of 8, as MobileNetV2's authors round."""
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
        width: of the layers; the 1280 channels of the end stay.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = make_divisible(32, width)
        self.stem = SameConv(3, channels, 3, stride=2)
        blocks: list[nn.Module] = []
        taps = []  # index of the last block before each halving of the resolution
        tapped = []
        for expansion, base, repeats, first_stride in _STAGES:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                outputs = make_divisible(base, width)
                blocks.append(Block(channels, outputs, expansion=expansion, stride=stride))
                channels = outputs
            # MoveNet takes stride 16 from the 64-channel stage, not from the 96-channel one.
            if base in (24, 32, 64):
                taps.append(len(blocks) - 1)
                tapped.append(channels)
        self.blocks = nn.ModuleList(blocks)
        self.taps = tuple(taps)
        self.head = SameConv(channels, 1280, 1)
        self.widths = (*tapped, 1280)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(x))
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                features.append(x)
        return [*features, F.relu6(self.head(x))]


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
    """Separable convolution, then 1x1 to `outputs`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.separable = Separable(inputs, _HEAD)
        self.out = SameConv(_HEAD, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.separable(x))
        return out


def normalise(module: nn.Module) -> None:
    """Add batch normalisation after every convolution, which then needs no bias."""
    for part in module.modules():
        if isinstance(part, SameConv):
            part.norm = nn.BatchNorm2d(part.conv.out_channels)
            part.conv.register_parameter("bias", None)


class Lite(Net):
    """Heat maps at stride 4 from a crop of one person.

    `forward` gives logits (N, J, H/4, W/4). They are trained so that their soft-max over the
    map is the joint's position and the sigmoid of their peak the chance that it is right.

    Args:
        joints: maps.
        width: of the backbone; MoveNet Lightning has 1, Thunder 1.75.
        norm: "none", or "batch" for a training from random weights.
        pyramid: channels of the pyramid at strides 4, 8 and 16; both MoveNets' if not given.

    Raises:
        InputError: on another norm, or a pyramid that is not three counts.
    """

    losses = ("place", "mse", "cpm")
    wider = True

    def __init__(
        self,
        joints: int = _JOINTS,
        width: float = 1.0,
        norm: str = "none",
        pyramid: Sequence[int] = PYRAMID,
    ) -> None:
        super().__init__()
        if len(pyramid) != len(PYRAMID) or min(pyramid) < 1:
            raise InputError(f"pyramid {list(pyramid)} is not three counts of channels")
        if norm not in NORMS:
            raise InputError(f"norm {norm!r} is not one of {', '.join(NORMS)}")
        self.norm = norm
        self.backbone = MobileNetV2(width)
        self.pyramid = Pyramid(self.backbone.widths, pyramid)
        self.maps = Head(self.pyramid.width, joints)
        initialise(self, KAIMING)
        if norm == "batch":
            for part in (self.backbone, self.pyramid, self.maps.separable):
                normalise(part)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, J, H/4, W/4) of a normalised image (N, 3, H, W)."""
        logits: Tensor = self.maps(self.pyramid(self.backbone(image)))
        return logits

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return the output of the exported graph: `maps` in [0, 1], see `likelihood`."""
        return {"maps": likelihood(self(image))}

    def prepare(self) -> None:
        """Equalize the weights, unless normalisation layers do."""
        if self.norm == "none":
            equalize(self)

    def spec(self, name: str, net: str, options: Options, skeleton: Skeleton | None) -> ModelSpec:
        """See `Net.spec`; pixels, grid and decoding are ModelSpec's defaults."""
        options = {"joints": _JOINTS} | options
        return ModelSpec(name, "pose", net, options, skeleton or BODY19, (192, 256))


def likelihood(logits: Tensor) -> Tensor:
    """Return maps whose shape is the soft-max's and whose height is the joint's score.

    exp(logit - peak) keeps a Gaussian a Gaussian, so that a sub-pixel step on the log map is
    exact; sigmoid(peak) is the trained probability that the peak is the joint.
    """
    peak = logits.amax(dim=(2, 3), keepdim=True)
    return torch.exp(logits - peak) * torch.sigmoid(peak)


def equalize(net: Lite) -> None:
    """Scale the layers of `net` against each other; its outputs stay equal, up to rounding.

    Where batch normalisation was folded into the convolutions, as in MoveNet's files, the size of
    weights says little: the pyramid's are 0.001 here and 1.6 there. Adam moves all of them by the
    rate, and a rate that is right for the one ruins the other.

    Between a layer without ReLU6 and the next a positive factor may move freely. It goes where the
    root mean squares of both, times the root of their inputs, are as near to 1 as they can be.
    """
    streams = _streams(net)
    with torch.no_grad():
        for _ in range(_SWEEPS):
            for producers, consumers in streams:
                ahead = sum(map(_size, consumers)) / len(consumers)
                factor = math.exp((ahead - sum(map(_size, producers)) / len(producers)) / 2)
                for conv in producers:
                    conv.weight *= factor
                    assert conv.bias is not None
                    conv.bias *= factor
                for conv in consumers:
                    conv.weight /= factor


def _streams(net: Lite) -> list[tuple[list[nn.Conv2d], list[nn.Conv2d]]]:
    """Return (convolutions whose results are added up, those that take the sum) of all `net`."""
    backbone = net.backbone
    laterals = _all(SameConv, net.pyramid.laterals)
    tapped = dict(zip(reversed(backbone.taps), laterals, strict=True))
    found: list[tuple[list[nn.Conv2d], list[nn.Conv2d]]] = []
    blocks = _all(Block, backbone.blocks)
    for i, block in enumerate(blocks):
        if not block.residual:  # a new sum begins
            found.append(([], []))
        elif block.expand is not None:
            found[-1][1].append(block.expand.conv)
        found[-1][0].append(block.project.conv)
        after = blocks[i + 1] if i + 1 < len(blocks) else None
        if after is not None and not after.residual and after.expand is not None:
            found[-1][1].append(after.expand.conv)
        if i in tapped:
            found[-1][1].append(tapped[i].conv)
    found[-1][1].append(backbone.head.conv)
    smooths = _all(Separable, net.pyramid.smooths)
    found.append(([net.pyramid.top.conv, laterals[0].conv], [smooths[0].depthwise.conv]))
    for (smooth, after_it), lateral in zip(pairwise(smooths), laterals[1:], strict=True):
        found.append(([smooth.pointwise.conv, lateral.conv], [after_it.depthwise.conv]))
    last = net.maps.separable
    found.append(([smooths[-1].pointwise.conv], [last.depthwise.conv]))
    found += [([each.depthwise.conv], [each.pointwise.conv]) for each in (*smooths, last)]
    found.append(([last.pointwise.conv], [net.maps.out.conv]))
    return found


def _all(kind: type[M], modules: nn.ModuleList) -> list[M]:
    return [module for module in modules if isinstance(module, kind)]


def _size(conv: nn.Conv2d) -> float:
    """Return the log of the weights' root mean square times the root of their inputs' number."""
    weight = conv.weight
    return 0.5 * math.log(weight.detach().square().mean().item() * weight[0].numel())
