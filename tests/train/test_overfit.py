"""A network must be able to learn 32 people by heart: nets, targets, losses and decoding agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from humanpose import nets
from humanpose.data.augment import Augmentation
from humanpose.data.pose import PoseDataset
from humanpose.data.readers import read
from humanpose.data.targets import Targets
from humanpose.evaluate.run import pose_score
from humanpose.infer.topdown import TopDown
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.skeleton import LSP14
from humanpose.train.config import Recipe
from humanpose.train.loop import fit

# Targets about the joint itself: on grids as coarse as these, HRNet's, which lie about the nearest
# cell, are right for 98 % of the joints even if they are learnt without error. A width below the
# number of joints cannot do it either: the maps are a linear function of so many features a cell.
HRNET = {
    "net": "hrnet-w32", "options": {"width": 16, "init": "kaiming"}, "side": 96,
    "targets": "exact", "sigma": 2.0, "lr": 3e-3, "epochs": 300,
}  # fmt: skip
CPM = {
    "net": "cpm-vgg", "options": {"stages": 3, "width": 0.375, "init": "kaiming"}, "side": 96,
    "targets": "cpm", "sigma": 0.875, "loss": "cpm", "lr": 1e-3, "epochs": 700,
}  # fmt: skip
HOURGLASS = {
    "net": "hourglass1", "options": {}, "side": 64, "targets": "exact", "sigma": 1.5, "lr": 3e-3,
    "epochs": 400,
}  # fmt: skip


class _Learnt(Exception):
    """Every person is learnt by heart: the training may end."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", [HRNET, CPM, HOURGLASS], ids=lambda case: case["net"])
def test_32_people_are_learnt_by_heart(data, tmp_path, case):
    everybody = [s for s in read("lspet", data / "lspet") if not np.isnan(s.joints).any()]
    people = everybody[:320:10]
    torch.manual_seed(0)
    case = dict(case)
    side = case.pop("side")
    options = {"joints": 14} | case["options"]
    net = nets.create(case["net"], **options)
    spec = net.spec("t", case["net"], options, LSP14)
    spec = replace(spec, input=(side, side), decode="dark")
    plan = Recipe.model_validate({
        "loss": "mse", "name": "t", "task": "pose", "input": spec.input, "data": ["lspet"],
        "batch": 32, "warmup": 20, "weight_decay": 0, "ema": 0, "workers": 0,
        "log_every": 4, "loggers": ["csv"],
        "validate_every": 32 * 10, **case,
    })  # fmt: skip
    targets = Targets(plan.targets, plan.sigma)
    dataset = PoseDataset(people, spec, Augmentation(), targets=targets)

    def score(trained: torch.nn.Module) -> dict[str, float]:
        found = pose_score(TopDown(TorchRuntime(trained, spec), spec), people)
        assert found.rule.startswith("PCK@0.2 torso")
        if found.value == 1:
            raise _Learnt
        return {"lspet": found.value}

    with pytest.raises(_Learnt):
        fit(plan, net, spec, dataset, score, tmp_path, show=print)
