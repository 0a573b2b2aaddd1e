"""SimpleBaseline pose nets: a ResNet and three transposed convolutions.

Source: Xiao et al. 2018, "Simple Baselines for Human Pose Estimation and Tracking"; parameter
names of `lib/models/pose_resnet.py` in the official repositories (MIT).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from humanpose.nets.hrnet import Bottleneck, Parts
from humanpose.nets.network import GAUSSIAN, Net, Options, initialise, topdown_spec
from humanpose.skeleton import Skeleton
from humanpose.spec import ModelSpec

_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_UP_CHANNELS = 256


class PoseResNet(Net):
    """Heat maps at stride 4; both sides of the input must be multiples of 32.

    Args:
        depth: 50, 101 or 152.
        joints: maps.
    """

    foreign = ("simplebaseline",)
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, depth: int, joints: int = 17) -> None:
        super().__init__()
        parts = Parts()
        self.conv1 = parts.conv(3, 64, 7, 2)
        self.bn1 = parts.normed(64)
        channels = 64
        for i, blocks in enumerate(_DEPTHS[depth]):
            planes, layer = 64 * 2**i, nn.Sequential()
            for k in range(blocks):
                layer.append(Bottleneck(channels, planes, parts, 2 if i > 0 and k == 0 else 1))
                channels = 4 * planes
            self.add_module(f"layer{i + 1}", layer)
        up: list[nn.Module] = []
        for _ in range(3):
            up.append(nn.ConvTranspose2d(channels, _UP_CHANNELS, 4, 2, 1, bias=False))
            up += [nn.BatchNorm2d(_UP_CHANNELS), nn.ReLU()]
            channels = _UP_CHANNELS
        self.deconv_layers = nn.Sequential(*up)
        self.final_layer = nn.Conv2d(channels, joints, 1)
        # The official start without an ImageNet file; with one, the rest is loaded over it.
        initialise(self, GAUSSIAN)

    def forward(self, image: Tensor) -> Tensor:
        """Return heat maps (N, joints, H/4, W/4) of a normalised image (N, 3, H, W)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        maps: Tensor = self.final_layer(self.deconv_layers(x))
        return maps

    def spec(self, name: str, net: str, options: Options, skeleton: Skeleton | None) -> ModelSpec:
        """See `Net.spec`."""
        return topdown_spec(name, net, options, skeleton, channels="bgr")
