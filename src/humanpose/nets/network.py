"""Base class of all networks: the interface for training and export."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from humanpose.errors import InputError
from humanpose.skeleton import COCO17, CPM14, FLIC9, HAND21, MPII16, Skeleton
from humanpose.spec import ModelSpec

_BY_JOINTS = {len(s.joints): s for s in (MPII16, COCO17, CPM14, FLIC9, HAND21)}
# As the networks see them: HRNet's configurations give them to RGB, SimpleBaseline's to BGR.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
IMPORTED = {"weights": "those of the imported file"}  # licence of a reference network

# How the weights of a convolution start; `initialise` takes them.
GAUSSIAN = partial(nn.init.normal_, std=0.001)  # HRNet's and SimpleBaseline's
KAIMING = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")

Options = dict[str, Any]  # of `nets.create`


class Net(nn.Module):
    """Base class of networks; a call returns the outputs of training.

    Attributes:
        stages: how many stages give maps.
        losses: values of a recipe's `loss` that it can learn by.
        foreign: kinds of files of other systems that hold its weights: `checkpoints.mapping`.
        wider: a start may have fewer input channels than its layers: `store.start_from`.
    """

    stages = 1
    losses: tuple[str, ...] = ("mse", "cpm")
    foreign: tuple[str, ...] = ()
    wider = False

    def trained_maps(self, image: Tensor) -> list[Tensor] | dict[str, Tensor]:
        """Return the inputs of a loss: the maps of every stage (N, K, h, w), or raw maps by name.

        Args:
            image: normalised, (N, 3, H, W).
        """
        return [self(image)]

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the exported graph: `maps` of the last stage, `maps_1` ... of all.

        Args:
            image: normalised, (N, 3, H, W).
        """
        found = self.trained_maps(image)
        assert isinstance(found, list)
        return {"maps": found[-1]} | {f"maps_{i}": each for i, each in enumerate(found, 1)}

    def prepare(self) -> None:
        """Prepare for training the weights of another network that were copied into this one."""

    def spec(self, name: str, net: str, options: Options, skeleton: Skeleton | None) -> ModelSpec:
        """Describe the network as its authors feed and read it.

        Args:
            name: of the weights.
            net: of `nets.create`.
            options: likewise; the number of joints is added.
            skeleton: of the maps; None = the usual one of that many joints.

        Raises:
            InputError: if no skeleton has that many joints.
        """
        raise NotImplementedError


def topdown_spec(
    name: str,
    net: str,
    options: Options,
    skeleton: Skeleton | None,
    *,
    joints: int = 17,
    **values: Any,
) -> ModelSpec:
    """Describe a network of one person's crop on HRNet's grid; `joints` if `options` has none."""
    options = {"joints": joints} | options
    usual: dict[str, Any] = {
        "input": (192, 256) if options["joints"] == 17 else (256, 256),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "pad": (0, 0, 0),
        "grid": "corner",
        "decode": "quarter",
        "licences": IMPORTED,
    }
    skeleton = skeleton or usual_skeleton(net, options["joints"])
    return ModelSpec(name, "pose", net, options, skeleton, **(usual | values))


def initialise(net: nn.Module, start: Callable[[Tensor], object]) -> None:
    """Start the weights of every convolution by `start`, its biases at zero."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            start(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def usual_skeleton(net: str, joints: int) -> Skeleton:
    """Return the usual skeleton of that many joints.

    Raises:
        InputError: naming `net`, if there is none.
    """
    if joints not in _BY_JOINTS:
        known = ", ".join(f"{n} ({s.name})" for n, s in sorted(_BY_JOINTS.items()))
        raise InputError(f"{net}: no skeleton of {joints} joints is known; there are: {known}")
    return _BY_JOINTS[joints]
