"""`lite`: the default pose network. MobileNetV2, feature pyramid, one head of heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from humanpose.errors import InputError
from humanpose.nets.mobilenet import PYRAMID, Head, MobileNetV2, Pyramid, initialise, normalise

NORMS = ("none", "batch")


class Lite(nn.Module):
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

    def __init__(
        self,
        joints: int,
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
        self.backbone = MobileNetV2(width=width)
        self.pyramid = Pyramid(self.backbone.widths, pyramid)
        self.maps = Head(self.pyramid.width, joints)
        initialise(self)
        if norm == "batch":
            for part in (self.backbone, self.pyramid, self.maps.separable):
                normalise(part)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, J, H/4, W/4) of a normalised image (N, 3, H, W)."""
        logits: Tensor = self.maps(self.pyramid(self.backbone(image)))
        return logits

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


def lite(
    joints: int = 19, width: float = 1.0, norm: str = "none", pyramid: Sequence[int] = PYRAMID
) -> Lite:
    """The pose network with `joints` maps, He-initialised; see `Lite`."""
    return Lite(joints, width, norm, pyramid)
