"""`lite`: the default pose network. MobileNetV2, feature pyramid, one head of heat maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from humanpose.nets.mobilenet import (
    Block,
    Head,
    MobileNetV2,
    Pyramid,
    SameConv,
    initialise,
)


class Refine(nn.Module):
    """A second look, which corrects the maps where the joints do not make a person.

    Features and first maps at half their resolution through `blocks` wide blocks that see an
    eighth of the crop to each side every time. It begins by changing nothing.
    """

    def __init__(self, features: int, joints: int, blocks: int, width: int = 64) -> None:
        super().__init__()
        self.down = SameConv(features + joints, width, 3, stride=2)
        self.blocks = nn.Sequential(
            *(Block(width, width, expansion=4, stride=1, kernel=5) for _ in range(blocks))
        )
        self.lateral = SameConv(features, width, 1)
        self.out = Head(width, joints)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """What to add to `logits` (N, J, h, w), of `features` (N, F, h, w)."""
        x = self.blocks(self.down(torch.cat([features, likelihood(logits)], dim=1)))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        found: Tensor = self.out(x + self.lateral(features))
        return found


class Lite(nn.Module):
    """Heat maps at stride 4 from a crop of one person.

    `forward` gives logits (N, J, H/4, W/4). They are trained so that their soft-max over the
    map is the joint's position and the sigmoid of their peak the chance that it is right.

    Args:
        joints: maps.
        refine: blocks of a second look at the maps; 0 = none.
        width: of the backbone; MoveNet Lightning has 1, Thunder 1.75.
    """

    def __init__(self, joints: int, refine: int = 0, width: float = 1.0) -> None:
        super().__init__()
        self.backbone = MobileNetV2(width=width)
        self.pyramid = Pyramid(self.backbone.widths)
        self.maps = Head(self.pyramid.width, joints)
        self.refine = Refine(self.pyramid.width, joints, refine) if refine else None
        initialise(self)
        if self.refine is not None:
            nn.init.zeros_(self.refine.out.out.conv.weight)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, J, H/4, W/4) of a normalised image (N, 3, H, W)."""
        features = self.pyramid(self.backbone(image))
        logits: Tensor = self.maps(features)
        return logits if self.refine is None else logits + self.refine(features, logits)

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """What the exported graph returns: `maps` in [0, 1], see `likelihood`."""
        return {"maps": likelihood(self(image))}


def likelihood(logits: Tensor) -> Tensor:
    """Maps whose shape is the soft-max's and whose height is the joint's score.

    exp(logit - peak) keeps a Gaussian a Gaussian, so that a sub-pixel step on the log map is
    exact; sigmoid(peak) is the trained probability that the peak is the joint.
    """
    peak = logits.amax(dim=(2, 3), keepdim=True)
    return torch.exp(logits - peak) * torch.sigmoid(peak)


def lite(joints: int = 19, refine: int = 0, width: float = 1.0) -> Lite:
    """The pose network with `joints` maps, He-initialised; see `Lite`."""
    return Lite(joints, refine, width)
