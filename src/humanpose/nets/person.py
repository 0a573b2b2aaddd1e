"""`person`: the default detector. A centre heat map with box size and offset at each cell.

The modern form of CPM's person net (Zhou et al. 2019, "Objects as Points", one class).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from humanpose.nets.mobilenet import Head, MobileNetV2, Pyramid, initialise

STRIDE = 4
# Log sizes are predicted about this many pixels, a middling person in a 320-pixel input.
BASE_SIZE = 64.0
# Before training one cell in about a hundred counts as a centre (Lin et al. 2017, RetinaNet).
_PRIOR_LOGIT = -4.6


class PersonNet(nn.Module):
    """People in a whole picture: where their box centres lie and how large the boxes are.

    `forward` gives raw maps at stride 4, each (N, C, H/4, W/4): "centre" logits (1), "size" =
    log(width / 64), log(height / 64) (2), "offset" from the cell to the box centre in cells (2).
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MobileNetV2(tail=False)
        self.pyramid = Pyramid(self.backbone.widths)
        self.centre = Head(self.pyramid.width, 1)
        self.size = Head(self.pyramid.width, 2)
        self.offset = Head(self.pyramid.width, 2)
        initialise(self)
        assert self.centre.out.conv.bias is not None
        nn.init.constant_(self.centre.out.conv.bias, _PRIOR_LOGIT)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Raw maps of a normalised image (N, 3, H, W)."""
        features = self.pyramid(self.backbone(image))
        return {
            "centre": self.centre(features),
            "size": self.size(features),
            "offset": self.offset(features),
        }

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """What the exported graph returns: `centre` in [0, 1], `size` and `offset` in pixels."""
        raw = self(image)
        return {
            "centre": torch.sigmoid(raw["centre"]),
            "size": box_size(raw["size"]),
            "offset": raw["offset"] * STRIDE,
        }


def box_size(log_size: Tensor) -> Tensor:
    """Width and height in pixels; the exponent is held where float16 still has room."""
    return BASE_SIZE * torch.exp(log_size.clamp(-5.0, 4.0))


def person() -> PersonNet:
    """The detector, He-initialised."""
    return PersonNet()
