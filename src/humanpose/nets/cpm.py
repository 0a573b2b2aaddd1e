"""Convolutional Pose Machines: one family, a description per variant.

Every stage after the first sees image features, the belief maps of the stage before and, in most
variants, the pooled centre map. Layers carry the names of the Caffe release, or OpenPose's for
the hand nets, so that old weights find their places.

Source: Wei et al. 2016, "Convolutional Pose Machines", and the prototxt files of its release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from humanpose.errors import InputError
from humanpose.nets.network import IMPORTED, Net, Options, initialise, usual_skeleton
from humanpose.skeleton import CPM14, Skeleton
from humanpose.spec import ModelSpec

# A step is "name kernel width", or "pool2" / "pool3" (window; stride 2). A width of 0 stands for
# the number of belief maps, and such a layer has no ReLU.
Steps = tuple[str, ...]

_VGG: Steps = (
    "conv1_1 3 64", "conv1_2 3 64", "pool2", "conv2_1 3 128", "conv2_2 3 128", "pool2",
    "conv3_1 3 256", "conv3_2 3 256", "conv3_3 3 256", "conv3_4 3 256", "pool2",
    "conv4_1 3 512", "conv4_2 3 512",
)  # fmt: skip
_BODY: Steps = (
    *_VGG, "conv4_3_CPM 3 256", "conv4_4_CPM 3 256", "conv4_5_CPM 3 256", "conv4_6_CPM 3 256",
    "conv4_7_CPM 3 128",
)  # fmt: skip
_PERSON: Steps = (*_VGG, "conv4_3 3 512", "conv4_4 3 512", "conv5_1 3 512", "conv5_2_CPM 3 128")
_HAND: Steps = (
    *_VGG, "conv4_3 3 512", "conv4_4 3 512", "conv5_1 3 512", "conv5_2 3 512", "conv5_3_CPM 3 128",
)  # fmt: skip
_REFINE_VGG: Steps = (*(f"Mconv{i} 7 128" for i in range(1, 6)), "Mconv6 1 128", "Mconv7 1 0")


def _wide(stage: int) -> Steps:
    """Return the 9x9 trunk of the release's first nets; stages 1 and 2 each have one."""
    return tuple(step for i in (1, 2, 3) for step in (f"conv{i}_stage{stage} 9 128", "pool3"))


@dataclass(frozen=True, slots=True)
class Variant:
    """Variant of the CPM family.

    Attributes:
        joints: maps without background, by default.
        background: one more map for it.
        stages: by default.
        features: from the image to what every stage after the first sees.
        first: stage 1, from `features`, or from the image where `own_trunk`.
        refine: a stage after the first; "_stage{t}" is added to the names.
        order: what a later stage concatenates: "feature", "belief", "centre".
        own_trunk: stage 1 starts from the image; later stages reduce `features` by a 5x5
            convolution of their own (conv4_stage2, conv1_stage3 ...).
        relu_beliefs: ReLU on belief maps too (the slim nets' quirk).
        stride: image pixels a cell.
    """

    features: Steps
    first: Steps
    refine: Steps
    order: tuple[str, ...]
    joints: int = 14
    background: bool = True
    stages: int = 6
    own_trunk: bool = False
    relu_beliefs: bool = False
    stride: int = 8


_CENTERMAP = Variant(
    features=_wide(2),
    first=(*_wide(1), "conv4_stage1 5 32", "conv5_stage1 9 512", "conv6_stage1 1 512",
           "conv7_stage1 1 0"),
    refine=("Mconv1 11 128", "Mconv2 11 128", "Mconv3 11 128", "Mconv4 1 128", "Mconv5 1 0"),
    order=("feature", "belief", "centre"),
    own_trunk=True,
)  # fmt: skip
_BODY_FIRST: Steps = ("conv5_1_CPM 1 512", "conv5_2_CPM 1 0")
_HAND_FIRST: Steps = ("conv6_1_CPM 1 512", "conv6_2_CPM 1 0")
_BELIEF_FIRST = ("belief", "feature", "centre")
_HAND_S4: Steps = _HAND[:5] + _HAND[6:]  # without the second pool

VARIANTS: dict[str, Variant] = {
    "cpm-centermap": _CENTERMAP,
    "cpm-vgg": Variant(_BODY, _BODY_FIRST, _REFINE_VGG, _BELIEF_FIRST),
    "cpm-flic": replace(_CENTERMAP, joints=9, stages=4),
    "cpm-person": Variant(
        _PERSON, _HAND_FIRST, _REFINE_VGG, ("belief", "feature"),
        joints=1, background=False, stages=4,
    ),
    "cpm-hand": Variant(_HAND, _HAND_FIRST, _REFINE_VGG, ("belief", "feature"), joints=21),
    "cpm-hand-s4": Variant(
        _HAND_S4, _HAND_FIRST, _REFINE_VGG, ("belief", "feature"), joints=21, stages=3, stride=4
    ),
    "cpm-vgg-slim": Variant(
        _BODY, _BODY_FIRST, _REFINE_VGG, _BELIEF_FIRST, relu_beliefs=True
    ),
    "cpm-hand-slim": Variant(
        _HAND, _HAND_FIRST, _REFINE_VGG, ("belief", "feature"), joints=21, relu_beliefs=True
    ),
}  # fmt: skip


# Pixels as psycharo's TensorFlow port has them.
PSYCHARO: Options = {"channels": "rgb", "mean": (127.5, 127.5, 127.5), "std": (255, 255, 255)}
# CPM is trained on persons scaled to 41/35 x 200 px of height in crops of 368 px; timctho's hand
# tracker cuts twice the hand's extent.
_CONTEXT = 368 / (200 * 41 / 35)
_HAND_CONTEXT = 2.0

_STARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": partial(nn.init.normal_, std=0.01),
    "kaiming": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "xavier": nn.init.xavier_uniform_,
}


def centre_map(width: int, height: int, *, sigma: float = 21.0) -> Tensor:
    """Make a Gaussian (1, 1, height, width) at (width / 2, height / 2), as the release's demo.

    The exported graph makes it anew for the size it is given: `int` would freeze that.
    """
    x = torch.exp(-((torch.arange(width) - width / 2) ** 2) / (2 * sigma**2))
    y = torch.exp(-((torch.arange(height) - height / 2) ** 2) / (2 * sigma**2))
    return (y[:, None] * x[None]).view(1, 1, height, width)


class CPM(Net):
    """Belief maps of every stage.

    Args:
        variant: which net.
        joints: maps without background; None = the variant's.
        stages: None = the variant's.
        pooling: "ceil" (Caffe) or "floor" (TensorFlow's VALID).
        centre_sigma: of the built-in centre map, pixels: 21 as in training; psycharo's TensorFlow
            port leaves a factor 2 out and so runs with 25 / sqrt(2) = 17.68.
        init: of the weights: "gaussian", N(0, 0.01), as the Caffe release, whose VGG layers then
            need their published weights; "xavier" (uniform), as timctho's TensorFlow port;
            "kaiming", which a training from random weights needs.
        width: every layer's channels are multiplied by it, but for the maps.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        joints: int | None = None,
        stages: int | None = None,
        pooling: str = "ceil",
        centre_sigma: float = 21.0,
        init: str = "gaussian",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if init not in _STARTS:
            raise InputError(f"cpm: init {init!r} is not one of {', '.join(_STARTS)}")
        if pooling not in ("ceil", "floor"):
            raise InputError(f"cpm: pooling {pooling!r} is neither ceil nor floor")
        if stages is not None and stages < 1:
            raise InputError(f"cpm: stages must be at least 1, not {stages}")
        if not width > 0:
            raise InputError(f"cpm: width must be above 0, not {width:g}")
        self.variant = variant
        self.foreign = ("caffe", "tensorflow", "tensorflow-graph")
        if variant.background and not variant.own_trunk:
            self.foreign += ("openpose-pickle",)
        self.width = width
        self.stages = variant.stages if stages is None else stages
        self.maps = (variant.joints if joints is None else joints) + variant.background
        self.ceil = pooling == "ceil"
        self.centre_sigma = centre_sigma
        self._start = _STARTS[init]
        trunk = self._add(variant.features, 3)
        self._add(variant.first, 3 if variant.own_trunk else trunk)
        channels = {"feature": trunk, "belief": self.maps, "centre": 1}
        for stage in range(2, self.stages + 1):
            if variant.own_trunk:
                channels["feature"] = self._add((self._reduction(stage),), trunk)
            self._add(self._refinement(stage), sum(channels[part] for part in variant.order))

    def forward(self, image: Tensor, centre: Tensor | None = None) -> list[Tensor]:
        """Return the belief maps of every stage, each (N, maps, h, w).

        Args:
            image: (N, 3, H, W), BGR / 256 - 0.5.
            centre: (N, 1, H, W) centre map, for the variants that take one.
        """
        variant = self.variant
        trunk = self._run(variant.features, image)
        beliefs = [self._run(variant.first, image if variant.own_trunk else trunk)]
        seen = {"feature": trunk}
        if "centre" in variant.order:
            if centre is None:
                raise InputError("cpm: this net needs a centre map")
            # TensorFlow's SAME average of the VGG nets equals Caffe's clipped window.
            clipped = self.ceil or not variant.own_trunk
            seen["centre"] = F.avg_pool2d(centre, 9, 8, ceil_mode=clipped)
        for stage in range(2, self.stages + 1):
            seen["belief"] = beliefs[-1]
            if variant.own_trunk:
                seen["feature"] = self._run((self._reduction(stage),), trunk)
            joined = torch.cat([seen[part] for part in variant.order], dim=1)
            beliefs.append(self._run(self._refinement(stage), joined))
        return beliefs

    def trained_maps(self, image: Tensor) -> list[Tensor]:
        """Return the belief maps of every stage, the centre map built in."""
        height, width = image.shape[2:]
        centre = None
        if "centre" in self.variant.order:
            # Nothing is added so that the map has the image's batch size: beside an Expand to it,
            # OpenVINO 2026.4 computes layers of the INT8 graph wrongly.
            centre = centre_map(width, height, sigma=self.centre_sigma).to(image)
            centre = centre + 0 * image[:, :1]
        maps: list[Tensor] = self(image, centre)
        return maps

    def spec(self, name: str, net: str, options: Options, skeleton: Skeleton | None) -> ModelSpec:
        """See `Net.spec`; pixels as in the Caffe release."""
        variant, hand, person = self.variant, self.variant.joints == 21, not self.variant.background
        options = {"joints": variant.joints} | options
        side = 368 if variant.stride == 8 else 128
        if not self.ceil and variant.own_trunk:
            side = 376  # what gives Caffe's grid of 46 with TensorFlow's pooling
        return ModelSpec(
            name,
            task="person" if person else "hand" if hand else "pose",
            net=net,
            options=options,
            # Of a person net's skeleton only the name matters.
            skeleton=CPM14 if person else skeleton or usual_skeleton(net, options["joints"]),
            input=(656, 368) if person else (side, side),
            multiple_of=8,
            channels="bgr",
            mean=(128, 128, 128),
            std=(256, 256, 256),
            crop="picture-height" if person else "box",
            context=_HAND_CONTEXT if hand else _CONTEXT,
            stride=variant.stride,
            background=variant.background,
            decode="peaks" if person else "dark",
            threshold=0.5,
            licences=IMPORTED,
        )

    def _reduction(self, stage: int) -> str:
        return f"conv{4 if stage == 2 else 1}_stage{stage} 5 32"

    def _refinement(self, stage: int) -> Steps:
        return tuple(step.replace(" ", f"_stage{stage} ", 1) for step in self.variant.refine)

    def _add(self, steps: Steps, channels: int) -> int:
        """Make the convolutions of `steps`; returns the channels that come out."""
        for step in steps:
            if step.startswith("pool"):
                continue
            name, kernel, width = step.split()
            outputs = max(1, round(int(width) * self.width)) if int(width) else self.maps
            conv = nn.Conv2d(channels, outputs, int(kernel), padding=int(kernel) // 2)
            initialise(conv, self._start)
            self.add_module(name, conv)
            channels = outputs
        return channels

    def _run(self, steps: Steps, x: Tensor) -> Tensor:
        for step in steps:
            if step.startswith("pool"):
                x = F.max_pool2d(x, int(step[4:]), 2, ceil_mode=self.ceil)
                continue
            name, _, width = step.split()
            x = self.get_submodule(name)(x)
            if int(width) or self.variant.relu_beliefs:
                x = F.relu(x)
        return x
