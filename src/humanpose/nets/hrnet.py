"""HRNet: parallel branches at strides 4 to 32 that exchange features all the way.

Parameter names are the official repository's, so that its checkpoints load as they are.

Source: Sun et al. 2019, "Deep High-Resolution Representation Learning for Human Pose
Estimation"; `lib/models/pose_hrnet.py` of leoxiaobin/deep-high-resolution-net.pytorch (MIT).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from humanpose.errors import InputError
from humanpose.nets.network import GAUSSIAN, KAIMING, Net, Options, initialise, topdown_spec
from humanpose.skeleton import Skeleton
from humanpose.spec import ModelSpec

_MODULES = (1, 4, 3)  # exchange units of stages 2, 3 and 4
_BLOCKS = 4  # residual blocks of a branch in one exchange unit
_GROUPS = 32  # largest number of groups of a group normalisation
NORMS = ("batch", "group", "none")
ACTIVATIONS = ("relu", "identity")
INITS = ("official", "kaiming", "fixup")


@dataclass(frozen=True, slots=True)
class Parts:
    """Choices of the ablations: normalisation, activation, and biases; the official ones."""

    norm: str = "batch"
    activation: str = "relu"
    bias: bool = False

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
        """Make a convolution that keeps the size but for the stride."""
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=self.bias)

    def normed(self, channels: int) -> nn.Module:
        """Make the normalisation of so many channels."""
        if self.norm == "batch":
            return nn.BatchNorm2d(channels)
        if self.norm == "group":
            groups = next(g for g in range(min(_GROUPS, channels), 0, -1) if channels % g == 0)
            return nn.GroupNorm(groups, channels)
        return nn.Identity()

    def act(self) -> nn.Module:
        """Make the activation."""
        return nn.ReLU() if self.activation == "relu" else nn.Identity()

    def unit(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        """Make a convolution and its normalisation."""
        return [self.conv(inputs, outputs, kernel, stride), self.normed(outputs)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int, parts: Parts) -> None:
        super().__init__()
        self.conv1 = parts.conv(channels, channels, 3)
        self.bn1 = parts.normed(channels)
        self.relu = parts.act()
        self.conv2 = parts.conv(channels, channels, 3)
        self.bn2 = parts.normed(channels)

    def forward(self, x: Tensor) -> Tensor:
        added = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(added + x)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 beside the identity; 4 x `planes` channels come out."""

    def __init__(self, inputs: int, planes: int, parts: Parts, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = parts.conv(inputs, planes, 1)
        self.bn1 = parts.normed(planes)
        self.conv2 = parts.conv(planes, planes, 3, stride)
        self.bn2 = parts.normed(planes)
        self.conv3 = parts.conv(planes, 4 * planes, 1)
        self.bn3 = parts.normed(4 * planes)
        self.relu = parts.act()
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != 4 * planes:
            self.downsample = nn.Sequential(*parts.unit(inputs, 4 * planes, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        added = self.relu(self.bn1(self.conv1(x)))
        added = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(added)))))
        out: Tensor = self.relu(added + (x if self.downsample is None else self.downsample(x)))
        return out


class Exchange(nn.Module):
    """Residual blocks on each branch, then every branch receives the sum of all.

    Args:
        widths: channels of the branches, finest first.
        outputs: how many branches come out (the very last exchange gives only the finest).
        parts: normalisation, activation, biases.
    """

    def __init__(self, widths: tuple[int, ...], outputs: int, parts: Parts) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, parts) for _ in range(_BLOCKS))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_route(j, i, widths, parts) for j in range(len(widths)))
            for i in range(outputs)
        )
        self.relu = parts.act()

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        fused = []
        for routes in self.fuse_layers:
            assert isinstance(routes, nn.ModuleList)
            arrived = [route(x) for route, x in zip(routes, features, strict=True)]
            total = arrived[0]
            for part in arrived[1:]:
                total = total + part
            fused.append(self.relu(total))
        return fused


def _route(source: int, target: int, widths: tuple[int, ...], parts: Parts) -> nn.Module:
    """Lead branch `source` to branch `target`: up by nearest, down by strided convolutions."""
    if source == target:
        return nn.Identity()
    if source > target:
        up = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*parts.unit(widths[source], widths[target], 1), up)
    steps: list[nn.Module] = []
    for step in range(target - source):
        last = step == target - source - 1
        width = widths[target] if last else widths[source]
        activation = [] if last else [parts.act()]
        steps.append(nn.Sequential(*parts.unit(widths[source], width, 3, 2), *activation))
    return nn.Sequential(*steps)


class HRNet(Net):
    """Heat maps at stride 4; both sides of the input must be multiples of 32.

    Args:
        joints: maps.
        width: channels of the finest branch; the others have 2, 4 and 8 times as many.
        norm: "batch" (official), "group" or "none".
        activation: "relu" (official) or "identity", which makes the net linear.
        init: "official" (every convolution N(0, 0.001)), "kaiming" (but for the last layer, which
            is as the official one), or "fixup" (that, and as Zhang et al. 2019: the last
            convolution of a residual branch starts at zero, the others scaled down; here also of
            what one resolution adds to another).
    """

    foreign = ("hrnet",)

    def __init__(
        self,
        joints: int = 17,
        *,
        width: int = 32,
        norm: str = "batch",
        activation: str = "relu",
        init: str = "official",
    ) -> None:
        super().__init__()
        for value, known in ((norm, NORMS), (activation, ACTIVATIONS), (init, INITS)):
            if value not in known:
                raise InputError(f"hrnet: {value!r} is not one of {', '.join(known)}")
        # The official net's convolutions have no bias, and the ablation only took BN away; a
        # repaired start without normalisation needs them.
        parts = Parts(norm, activation, bias=norm == "none" and init != "official")
        widths = tuple(width * 2**i for i in range(4))
        self.conv1 = parts.conv(3, 64, 3, 2)
        self.bn1 = parts.normed(64)
        self.conv2 = parts.conv(64, 64, 3, 2)
        self.bn2 = parts.normed(64)
        self.relu = parts.act()
        blocks = [Bottleneck(64 if i == 0 else 256, 64, parts) for i in range(4)]
        self.layer1 = nn.Sequential(*blocks)
        self.transition1 = _transition((256,), widths[:2], parts)
        self.stage2 = _stage(widths[:2], _MODULES[0], parts)
        self.transition2 = _transition(widths[:2], widths[:3], parts)
        self.stage3 = _stage(widths[:3], _MODULES[1], parts)
        self.transition3 = _transition(widths[:3], widths, parts)
        self.stage4 = _stage(widths, _MODULES[2], parts, last=1)
        self.final_layer = nn.Conv2d(width, joints, 1)
        initialise(self, GAUSSIAN if init == "official" else KAIMING)
        if init != "official":
            # Heat maps are nearly everywhere 0: maps of size 1 would have to be unlearned first.
            initialise(self.final_layer, GAUSSIAN)
        if init == "fixup":
            _fixup(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return heat maps (N, joints, H/4, W/4) of a normalised image (N, 3, H, W)."""
        if any(side % 32 for side in image.shape[2:]):
            raise InputError(f"hrnet: input {tuple(image.shape[2:])} must be multiples of 32")
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.layer1(self.relu(self.bn2(self.conv2(x))))
        features: list[Tensor] = self.stage2(_apply(self.transition1, [x]))
        features = self.stage3(_apply(self.transition2, features))
        features = self.stage4(_apply(self.transition3, features))
        maps: Tensor = self.final_layer(features[0])
        return maps

    def spec(self, name: str, net: str, options: Options, skeleton: Skeleton | None) -> ModelSpec:
        """See `Net.spec`."""
        return topdown_spec(name, net, options, skeleton)


def _stage(
    widths: tuple[int, ...], modules: int, parts: Parts, *, last: int | None = None
) -> nn.Sequential:
    outputs = [len(widths)] * (modules - 1) + [last or len(widths)]
    return nn.Sequential(*(Exchange(widths, n, parts) for n in outputs))


def _transition(before: tuple[int, ...], after: tuple[int, ...], parts: Parts) -> nn.ModuleList:
    """Bring branches to the next stage's widths, and make its new branch from the coarsest."""
    routes: list[nn.Module] = []
    for i, width in enumerate(after):
        if i < len(before):
            keep = before[i] == width
            unit = [*parts.unit(before[i], width, 3), parts.act()]
            routes.append(nn.Identity() if keep else nn.Sequential(*unit))
        else:
            unit = [*parts.unit(before[-1], width, 3, 2), parts.act()]
            routes.append(nn.Sequential(nn.Sequential(*unit)))
    return nn.ModuleList(routes)


def _apply(transition: nn.ModuleList, features: list[Tensor]) -> list[Tensor]:
    # The new branch, and in the first transition both, start from the coarsest feature there is.
    return [
        route(features[i] if i < len(features) else features[-1])
        for i, route in enumerate(transition)
    ]


@torch.no_grad()
def _fixup(net: HRNet) -> None:
    """Let what is added to a shortcut begin at zero."""
    depth = sum(isinstance(part, BasicBlock | Bottleneck) for part in net.modules())
    for part in net.modules():
        if isinstance(part, BasicBlock | Bottleneck):
            _silence([conv for conv in part.children() if isinstance(conv, nn.Conv2d)], depth)
        # Where resolutions meet, a map's own branch is the shortcut and the others are added.
        elif isinstance(part, Exchange):
            for routes in part.fuse_layers:
                assert isinstance(routes, nn.ModuleList)
                for route in routes:
                    convs = [conv for conv in route.modules() if isinstance(conv, nn.Conv2d)]
                    _silence(convs, depth)


def _silence(branch: list[nn.Conv2d], depth: int) -> None:
    """Let a residual branch of these convolutions, one of `depth`, begin at zero."""
    for i, conv in enumerate(branch, 1):
        # m convolutions in a branch, L branches: L ** (-1 / (2 m - 2)).
        conv.weight.mul_(0.0 if i == len(branch) else depth ** (-1 / (2 * len(branch) - 2)))
