"""`person`: the default detector, YOLOX-nano with one class.

Parameter names are our own, in the order in which the convolutions run. No normalisation layers:
published weights have theirs folded into the convolutions, and a fine-tuning keeps their scale.

Its first layer, a 3x3 convolution of four pictures of every second pixel, is written as what it is,
a 6x6 convolution at stride 2: a fifth of the time on a CPU is saved.

Source: Ge et al. 2021, "YOLOX: Exceeding YOLO series in 2021"; `yolox/models` of
Megvii-BaseDetection/YOLOX (Apache-2.0).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from humanpose.errors import InputError
from humanpose.nets.network import Net, Options, initialise
from humanpose.skeleton import BODY19, Skeleton
from humanpose.spec import ModelSpec

ACTIVATIONS = ("silu", "hardswish")
STRIDES = (8, 16, 32)
_WIDTHS = (64, 128, 256)  # of the features at these strides
_HEAD = 64
_POOLS = (5, 9, 13)
# Before training one cell in a hundred holds a person (Lin et al. 2017, RetinaNet).
_PRIOR_LOGIT = -math.log((1 - 0.01) / 0.01)
# The exponent of a side is held where float16 still has room: at most 32 x e^4 = 1,747 px.
_LONGEST = 4.0


class Unit(nn.Sequential):
    """Convolution and activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups)
        super().__init__(conv, nn.SiLU(inplace=True))


def _separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Make a 3x3 of each channel, then a 1x1 of all."""
    return nn.Sequential(
        Unit(inputs, inputs, 3, stride=stride, groups=inputs), Unit(inputs, outputs, 1)
    )


class Bottleneck(nn.Module):
    """1x1 and separable 3x3, beside the identity if `short`."""

    def __init__(self, channels: int, *, short: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(Unit(channels, channels, 1), _separable(channels, channels))
        self.short = short

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x)
        return out + x if self.short else out


class Split(nn.Module):
    """Cross-stage partial layer: half of the channels go through `depth` bottlenecks."""

    def __init__(self, inputs: int, outputs: int, depth: int = 1, *, short: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.through = Unit(inputs, half, 1)
        self.past = Unit(inputs, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half, short=short) for _ in range(depth)))
        self.out = Unit(2 * half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.cat([self.blocks(self.through(x)), self.past(x)], 1))
        return out


class Pools(nn.Module):
    """Spatial pyramid: the map beside its maxima over larger and larger windows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.into = Unit(channels, channels // 2, 1)
        self.out = Unit(channels // 2 * (1 + len(_POOLS)), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        pooled = [F.max_pool2d(x, side, 1, side // 2) for side in _POOLS]
        out: Tensor = self.out(torch.cat([x, *pooled], 1))
        return out


class Trunk(nn.Module):
    """Features (N, 64, 128, 256 channels) at strides 8, 16 and 32 of an image (N, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(3, 16, 6, stride=2)
        self.stride4 = nn.Sequential(_separable(16, 32, stride=2), Split(32, 32))
        self.stride8 = nn.Sequential(_separable(32, 64, stride=2), Split(64, 64, 3))
        self.stride16 = nn.Sequential(_separable(64, 128, stride=2), Split(128, 128, 3))
        self.stride32 = nn.Sequential(
            _separable(128, 256, stride=2), Pools(256), Split(256, 256, short=False)
        )
        self.side32 = Unit(256, 128, 1)
        self.up16 = Split(256, 128, short=False)
        self.side16 = Unit(128, 64, 1)
        self.up8 = Split(128, 64, short=False)
        self.down16 = _separable(64, 64, stride=2)
        self.out16 = Split(128, 128, short=False)
        self.down32 = _separable(128, 128, stride=2)
        self.out32 = Split(256, 256, short=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        at8 = self.stride8(self.stride4(self.stem(image)))
        at16 = self.stride16(at8)
        side32 = self.side32(self.stride32(at16))
        side16 = self.side16(self.up16(torch.cat([_twice(side32), at16], 1)))
        out8 = self.up8(torch.cat([_twice(side16), at8], 1))
        out16 = self.out16(torch.cat([self.down16(out8), side16], 1))
        return [out8, out16, self.out32(torch.cat([self.down32(out16), side32], 1))]


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Head(nn.Module):
    """Of one stride: chances of a person (class), box, and of anything (objectness)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.into = Unit(inputs, _HEAD, 1)
        self.kind = nn.Sequential(_separable(_HEAD, _HEAD), _separable(_HEAD, _HEAD))
        self.kind_out = nn.Conv2d(_HEAD, 1, 1)
        self.place = nn.Sequential(_separable(_HEAD, _HEAD), _separable(_HEAD, _HEAD))
        self.box_out = nn.Conv2d(_HEAD, 4, 1)
        self.object_out = nn.Conv2d(_HEAD, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, h x w, 6): x, y, log width, log height in cells, object and class logits."""
        x = self.into(x)
        place = self.place(x)
        out = [self.box_out(place), self.object_out(place), self.kind_out(self.kind(x))]
        return torch.cat(out, 1).flatten(2).transpose(1, 2)


class PersonNet(Net):
    """People in a whole picture, one guess a cell of three grids.

    Args:
        activation: YOLOX's own "silu", or "hardswish": nearly the same curve without an
            exponential, which saves another fifth of the time.
    """

    losses = ()

    def __init__(self, activation: str = "silu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InputError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        self.trunk = Trunk()
        self.heads = nn.ModuleList(map(Head, _WIDTHS))
        if activation == "hardswish":
            for unit in [part for part in self.modules() if isinstance(part, Unit)]:
                unit[1] = nn.Hardswish(inplace=True)
        initialise(self, partial(nn.init.kaiming_normal_, mode="fan_in", nonlinearity="relu"))
        for head in self.heads:
            assert isinstance(head, Head)
            for out in (head.kind_out, head.object_out):
                assert out.bias is not None
                nn.init.constant_(out.bias, _PRIOR_LOGIT)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return guesses about a normalised image (N, 3, H, W), sides multiples of 32.

        Returns:
            box (N, A, 4): middle x, y, width, height, input pixels, finest grid first;
            object, kind (N, A): logits of any object, and of a person if there is one.
        """
        features = self.trunk(image)
        raw = [head(x).float() for head, x in zip(self.heads, features, strict=True)]
        boxes = []
        for each, x, stride in zip(raw, features, STRIDES, strict=True):
            grid = cells(x.shape[2], x.shape[3], x.device)
            # Published boxes count from the corner of the first pixel, ours from its middle.
            middle = (each[..., :2] + grid) * stride - 0.5
            sides = torch.exp(each[..., 2:4].clamp(max=_LONGEST)) * stride
            boxes.append(torch.cat([middle, sides], 2))
        whole = torch.cat(raw, 1)
        return {"box": torch.cat(boxes, 1), "object": whole[..., 4], "kind": whole[..., 5]}

    def trained_maps(self, image: Tensor) -> dict[str, Tensor]:
        """Return box, object and kind, see `forward`."""
        found: dict[str, Tensor] = self(image)
        return found

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Output of the exported graph: `boxes` (N, A, 5): x, y of the corner, width, height in
        input pixels, and score in [0, 1].
        """
        found = self(image)
        middle, sides = found["box"].split(2, 2)
        score = torch.sigmoid(found["object"]) * torch.sigmoid(found["kind"])
        return {"boxes": torch.cat([middle - sides / 2, sides, score[..., None]], 2)}

    def spec(self, name: str, net: str, options: Options, skeleton: Skeleton | None) -> ModelSpec:
        """See `Net.spec`; pixels as YOLOX has them, BGR in 0 ... 255."""
        return ModelSpec(
            name,
            task="person",
            net=net,
            options=options,
            skeleton=BODY19,  # of a person net's skeleton only the name matters
            input=(256, 256),
            channels="bgr",
            mean=(0, 0, 0),
            std=(255, 255, 255),
            pad=(114, 114, 114),
            crop="whole",
            stride=8,
            decode="boxes",
        )


def cells(height: int, width: int, device: torch.device) -> Tensor:
    """Return (height x width, 2): column and row of each cell, row by row."""
    columns = torch.arange(width, device=device, dtype=torch.float32).repeat(height)
    rows = torch.arange(height, device=device, dtype=torch.float32).repeat_interleave(width)
    return torch.stack([columns, rows], 1)
