"""Our HRNet and SimpleBaseline against the published code, with weights that it made.

    python benchmarks/parity/hrnet.py --repo CHECKOUT

CHECKOUT is a clone of leoxiaobin/deep-high-resolution-net.pytorch. Its modules are built with
He weights, random biases and random BatchNorm statistics and saved as a training checkpoint; ours
reads that file by way of `humanpose import`'s own functions. Every stage's output is compared,
and two filters exchanged in a stage must show there, 100 times above the tolerance.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from humanpose import nets
from humanpose.checkpoints.legacy.pth import read_pth
from humanpose.checkpoints.mapping import to_net

TOLERANCE = 1e-6  # largest difference as a share of the output's range
_HRNET_STAGES = ("layer1", "stage2", "stage3", "stage4", "final_layer")
_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4", "deconv_layers", "final_layer")
CASES = (
    ("hrnet-w32", "hrnet", "experiments/mpii/hrnet/w32_256x256_adam_lr1e-3.yaml", (256, 256)),
    ("hrnet-w48", "hrnet", "experiments/coco/hrnet/w48_256x192_adam_lr1e-3.yaml", (192, 256)),
    ("resnet50", "simplebaseline", "experiments/mpii/resnet/res50_256x256_d256x3_adam_lr1e-3.yaml",
     (256, 256)),
    ("resnet101", "simplebaseline",
     "experiments/mpii/resnet/res101_256x256_d256x3_adam_lr1e-3.yaml", (256, 256)),
    ("resnet152", "simplebaseline",
     "experiments/mpii/resnet/res152_256x256_d256x3_adam_lr1e-3.yaml", (256, 256)),
)  # fmt: skip


class Config(dict[str, Any]):
    """The published code reads its settings both as `a['B']` and as `a.B`."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def config(value: Any) -> Any:
    """`value` with every dictionary a Config."""
    if isinstance(value, dict):
        return Config({name: config(item) for name, item in value.items()})
    return value


def published(repo: Path, kind: str, experiment: str) -> tuple[nn.Module, int]:
    """The repository's own network, and its number of joints."""
    module = {"hrnet": "pose_hrnet", "simplebaseline": "pose_resnet"}[kind]
    source = repo / "lib" / "models" / f"{module}.py"
    spec = importlib.util.spec_from_file_location(module, source)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    settings = config(yaml.safe_load((repo / experiment).read_text()))
    return loaded.get_pose_net(settings, is_train=False), settings.MODEL.NUM_JOINTS


@torch.no_grad()
def randomise(net: nn.Module) -> None:
    """He weights, and no bias, scale or statistic left at 0 or 1."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                part.bias.normal_()
        elif isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.weight.uniform_(0.3, 0.7)
            part.bias.normal_(std=0.2)
            part.running_mean.normal_(std=0.2)
            part.running_var.uniform_(0.5, 2)


@torch.inference_mode()
def stages(net: nn.Module, names: tuple[str, ...], image: Tensor) -> dict[str, Tensor]:
    """What comes out of each named part; of one with branches, every branch."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_part: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = output
            else:
                found.update({f"{name}.{i}": branch for i, branch in enumerate(output)})

        return hook

    hooks = [net.get_submodule(name).register_forward_hook(note(name)) for name in names]
    net(image)
    for hook in hooks:
        hook.remove()
    return found


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference as a share of `theirs`' range."""
    return float((ours - theirs).abs().max() / (theirs.max() - theirs.min()))


@torch.no_grad()
def fault(net: nn.Module, stage: str) -> Callable[[], None]:
    """Exchange the first two output filters of the stage's first convolution; returns the undo."""
    convs = [
        m
        for m in net.get_submodule(stage).modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    weight, before = convs[0].weight, convs[0].weight.clone()
    axis = 1 if isinstance(convs[0], nn.ConvTranspose2d) else 0
    order = torch.arange(weight.shape[axis])
    order[:2] = torch.tensor([1, 0])
    weight.copy_(before.index_select(axis, order))

    def undo() -> None:
        with torch.no_grad():
            weight.copy_(before)

    return undo


def compare(repo: Path, name: str, kind: str, experiment: str, size: tuple[int, int]) -> bool:
    """Print one network's table; whether it agrees and its faults show."""
    torch.manual_seed(0)
    theirs, joints = published(repo, kind, experiment)
    randomise(theirs)
    theirs.eval()
    ours = nets.create(name, joints=joints).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pth"
        state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
        torch.save({"epoch": 1, "state_dict": state, "perf": np.float64(0.5)}, file)
        found = to_net(read_pth(file), kind, name, ours)
    assert not (found.missing or found.left_over or found.refused), found
    ours.load_state_dict(found.state)
    names = _HRNET_STAGES if kind == "hrnet" else _RESNET_STAGES
    image = torch.randn(2, 3, size[1], size[0])
    expected, good = stages(theirs, names, image), True
    got = stages(ours, names, image)
    print(f"{name}, {joints} joints, {size[0]} x {size[1]}, {len(found.mapped)} tensors")
    for key, value in expected.items():
        part = difference(got[key], value)
        good &= part < TOLERANCE
        print(f"  {key:16}{part:10.1e}")
    for stage in names:
        undo = fault(ours, stage)
        wrong = stages(ours, names, image)
        undo()
        own = max(difference(wrong[k], v) for k, v in expected.items() if k.startswith(stage))
        end = difference(wrong["final_layer"], expected["final_layer"])
        good &= own > 100 * TOLERANCE
        print(f"  fault in {stage:14}{own:10.1e} there, {end:.1e} at the output")
    return good


def main() -> None:
    """Compare every case; ends with 1 if one disagrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True, help="clone of the published code")
    repo = parser.parse_args().repo
    good = [compare(repo, *case) for case in CASES]
    print(f"{sum(good)} of {len(good)} agree below {TOLERANCE:g}, and show their faults")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
