"""How the reference networks want their pixels and give their maps, as their authors had it."""

from __future__ import annotations

from typing import Any

from torch import nn

from humanpose.errors import InputError
from humanpose.nets.cpm import CPM
from humanpose.skeleton import BODY19, COCO17, CPM14, FLIC9, HAND21, MPII16, Skeleton
from humanpose.spec import ModelSpec

_BY_JOINTS = {len(s.joints): s for s in (MPII16, COCO17, CPM14, FLIC9, HAND21)}
# As the networks see them: HRNet's configurations give them to RGB, SimpleBaseline's to BGR.
_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_HOURGLASS_MEAN = (0.4404 * 255, 0.4440 * 255, 0.4327 * 255)
# CPM is trained on persons scaled to 41/35 x 200 px of height in crops of 368 px; timctho's hand
# tracker cuts twice the hand's extent.
_CPM_CONTEXT = 368 / (200 * 41 / 35)
_HAND_CONTEXT = 2.0


def reference_spec(
    name: str,
    net: str,
    options: dict[str, Any],
    made: nn.Module,
    *,
    skeleton: Skeleton | None = None,
    psycharo: bool = False,
) -> ModelSpec:
    """The description of a reference network.

    Args:
        name: of the weights.
        net: of `nets.create`.
        options: of `nets.create`; the number of joints is added.
        made: the network itself.
        skeleton: of its maps; None = the usual one of so many joints.
        psycharo: a CPM net of psycharo's TensorFlow port.

    Raises:
        InputError: no skeleton has so many joints.
    """
    if isinstance(made, CPM):
        return _cpm_spec(name, net, options, made, skeleton, psycharo=psycharo)
    joints = options.setdefault("joints", 16 if net.startswith("hourglass") else 17)
    hourglass = net.startswith("hourglass")
    return ModelSpec(
        name,
        task="pose",
        net=net,
        options=options,
        skeleton=skeleton or _skeleton(net, joints),
        input=(192, 256) if joints == 17 and not hourglass else (256, 256),
        multiple_of=64 if hourglass else 32,
        channels="bgr" if net.startswith("resnet") else "rgb",
        mean=_HOURGLASS_MEAN if hourglass else _IMAGENET_MEAN,
        std=(255, 255, 255) if hourglass else _IMAGENET_STD,
        pad=(0, 0, 0),
        context=1.25,
        stride=4,
        grid="corner",
        decode="quarter",
        licences={"weights": "those of the imported file"},
    )


def person_spec(name: str, size: tuple[int, int]) -> ModelSpec:
    """The description of the person detector at an input of `size`: BGR as YOLOX has it, 0 to 1."""
    return ModelSpec(
        name,
        task="person",
        net="person",
        options={},
        skeleton=BODY19,  # of a person net's skeleton only the name matters
        input=size,
        channels="bgr",
        mean=(0, 0, 0),
        std=(255, 255, 255),
        pad=(114, 114, 114),
        crop="whole",
        stride=8,
        decode="boxes",
    )


def _cpm_spec(
    name: str,
    net: str,
    options: dict[str, Any],
    made: CPM,
    skeleton: Skeleton | None,
    *,
    psycharo: bool,
) -> ModelSpec:
    variant = made.variant
    person = net == "cpm-person"
    joints = options.setdefault("joints", variant.joints)
    side = 128 if net == "cpm-hand-s4" else 368
    if not made.ceil and variant.own_trunk:
        side = 376  # what gives Caffe's grid of 46 with TensorFlow's pooling
    return ModelSpec(
        name,
        task="person" if person else "hand" if net.startswith("cpm-hand") else "pose",
        net=net,
        options=options,
        # Of a person net's skeleton only the name matters.
        skeleton=CPM14 if person else skeleton or _skeleton(net, joints),
        input=(656, 368) if person else (side, side),
        multiple_of=8,
        channels="rgb" if psycharo else "bgr",
        mean=(127.5, 127.5, 127.5) if psycharo else (128, 128, 128),
        std=(255, 255, 255) if psycharo else (256, 256, 256),
        pad=(128, 128, 128),
        crop="picture-height" if person else "box",
        context=_HAND_CONTEXT if net.startswith("cpm-hand") else _CPM_CONTEXT,
        stride=variant.stride,
        grid="centre",
        background=variant.background,
        decode="peaks" if person else "dark",
        threshold=0.5,
        licences={"weights": "those of the imported file"},
    )


def _skeleton(net: str, joints: int) -> Skeleton:
    if joints not in _BY_JOINTS:
        known = ", ".join(f"{n} ({s.name})" for n, s in sorted(_BY_JOINTS.items()))
        raise InputError(f"{net}: no skeleton of {joints} joints is known; there are: {known}")
    return _BY_JOINTS[joints]
