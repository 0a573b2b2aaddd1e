"""Recipes: what they say, and what is made of them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from humanpose import nets
from humanpose.checkpoints.store import load_net
from humanpose.errors import InputError
from humanpose.lab.training import network_of, skeleton_of
from humanpose.nets.hrnet import HRNet
from humanpose.skeleton import BODY19, COCO17, LSP14, Skeleton
from humanpose.train.config import Recipe, load_yaml
from humanpose.train.optim import optimizer_of, rate_share, set_rates
from humanpose.types import Sample

ROOT = Path(__file__).resolve().parents[2]


def recipe(**changes: object) -> Recipe:
    values: dict[str, object] = {
        "name": "t", "task": "pose", "net": "lite", "input": [64, 64], "data": ["coco"],
        "samples": 24, "batch": 4, "lr": 1e-3,
    }  # fmt: skip
    return Recipe.model_validate(values | changes)


def sample(skeleton: Skeleton) -> Sample:
    count = len(skeleton.joints)
    joints, visible = np.zeros((count, 2), np.float32), np.full(count, 2, np.uint8)
    box = np.array([0, 0, 9, 9], np.float32)
    return Sample(Path("a.jpg"), joints, visible, box, 81.0, "train", ("t", "1"), skeleton)


def test_rates_follow_names_biases_and_the_schedule():
    """CPM's layers: later stages four times, biases twice, biases do not decay (prototxt)."""
    plan = load_yaml(ROOT / "recipes" / "cpm_mpii_lsp.yaml", (), Recipe)
    net = nets.create("cpm-vgg", joints=14)
    optimizer = optimizer_of(plan, net)
    assert set_rates(optimizer, plan, 0) == 8e-5
    names = {id(p): name for name, p in net.named_parameters()}
    found = {
        names[id(p)]: (group["lr"] / 8e-5, group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(found) == len(names)
    assert found["conv1_1.weight"] == found["conv5_2_CPM.weight"] == (1, 5e-4)
    assert found["conv1_1.bias"] == (2, 0)
    assert found["Mconv7_stage6.weight"] == pytest.approx((4, 5e-4))
    assert found["Mconv1_stage2.bias"] == pytest.approx((8, 0))
    drops = [136_106 * i for i in range(1, 5)]
    for n, step in enumerate(drops, 1):
        assert rate_share(plan, step - 1) == pytest.approx(0.333 ** (n - 1))
        assert rate_share(plan, step) == pytest.approx(0.333**n)
    assert plan.steps == 600_000


def test_epochs_are_counted_in_the_data_sets_size():
    plan = load_yaml(ROOT / "recipes" / "hrnet_w32_mpii.yaml", (), Recipe).sized(22_246)
    assert plan.samples == 210 * 22_246 and plan.validate_every == 22_246
    at = [170 * 22_246 // 128, 200 * 22_246 // 128]
    assert [rate_share(plan, step) for step in (0, at[0], at[0] + 1, at[1] + 1)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )


def test_a_cosine_warms_up_and_ends_at_zero():
    plan = recipe(samples=4000, warmup=100)
    assert rate_share(plan, 0) == pytest.approx(0.01)
    assert rate_share(plan, 500) == pytest.approx(0.5)
    assert rate_share(plan, 999) < 1e-4


TRAININGS = [p for p in sorted((ROOT / "recipes").glob("*.yaml")) if "\ntask:" in p.read_text()]


@pytest.mark.parametrize("path", TRAININGS, ids=lambda p: p.stem)
def test_every_recipe_is_valid_and_names_its_own_command(path):
    plan = load_yaml(path, (), Recipe).sized(22_246)
    with torch.device("meta"):
        net = nets.create(plan.net, **plan.options)
    assert plan.steps > 0 and len(optimizer_of(plan, net).param_groups) >= 1
    assert f"humanpose train recipes/{path.name}" in path.read_text()


def test_relative_rates_follow_the_size_of_each_tensor():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        net[0].weight[:], net[1].weight[:] = 100.0, 0.5
        net[0].bias[:], net[1].bias[:] = 2.0, 0.0
    optimizer = optimizer_of(recipe(relative=True, lr=1e-3), net)
    names = {id(p): name for name, p in net.named_parameters()}
    rates = {names[id(p)]: g["peak"] for g in optimizer.param_groups for p in g["params"]}
    expected = {"0.weight": 0.1, "0.bias": 2e-3, "1.weight": 5e-4, "1.bias": 1e-6}
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("augment.flop=1",), "augment.flop"),
        (("lr=fast",), "lr: Input should be a valid number"),
        (("bacth=3",), "bacth: Extra inputs"),
        (("batch",), "write it as key=value"),
        (("name.x=1",), "name has no parts"),
        (("mosaic=2",), "mosaic: Input should be less than or equal to 1"),
        (("epochs=3",), "give either samples or epochs"),
        (("drops=[3]",), "schedule step needs drops"),
        (("loss=cpm",), "loss cpm needs targets cpm"),
        (("targets=cpm",), "which loss place does not know"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(changes, message):
    with pytest.raises(InputError, match=message):
        load_yaml(ROOT / "recipes" / "lite.yaml", changes, Recipe)


@pytest.fixture
def crosses(tmp_path: Path) -> Path:
    """Twelve pictures of three joints that no skeleton of ours has; id 110 validates."""
    rng = np.random.default_rng(1)
    content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    joints = {"keypoints": ["left_paw", "right_paw", "tail"], "skeleton": [[1, 3], [2, 3]]}
    content["categories"] = [{"id": 1, "name": "cat", **joints}]
    for number in range(100, 112):
        image = rng.integers(0, 255, (80, 80, 3), np.uint8)
        (tmp_path / f"{number}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
        points = [v for x, y in rng.uniform(10, 70, (3, 2)).tolist() for v in (x, y, 2)]
        content["images"].append({"id": number, "file_name": f"{number}.png"})
        content["annotations"].append({
            "id": number, "image_id": number, "category_id": 1, "keypoints": points,
            "num_keypoints": 3, "bbox": [5, 5, 70, 70], "area": 4900.0, "iscrowd": 0,
        })  # fmt: skip
    path = tmp_path / "cats.json"
    path.write_text(json.dumps(content))
    return path


def test_ones_own_joints_train_by_ten_lines(cli, crosses, tmp_path):
    path = ROOT / "recipes" / "own_data.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) <= 10
    small = ["input=[64, 64]", "epochs=2", "batch=4", "workers=0", "precision=32-true"]
    changes = [part for change in small for part in ("--set", change)]
    data = f"coco={crosses}"
    code, said, err = cli("train", path, "--data", data, "-o", tmp_path / "r", *changes)
    assert code == 0, err
    assert "11 training items; 5 steps of 4" in said and "coco 0." in said
    _, spec = load_net(tmp_path / "r" / "best.safetensors")
    assert spec.skeleton.joints == ("left_paw", "right_paw", "tail")
    assert spec.skeleton.pairs == ((0, 1),) and spec.options == {"joints": 3}
    assert list((tmp_path / "r" / "pictures").glob("*.jpg"))
    wrong = ("--set", "options.joints=17")
    code, _, err = cli("train", path, "--data", data, "-o", tmp_path / "q", *wrong)
    assert code == 2 and "options.joints is 17, but cat3 has 3 joints" in err


def test_joints_must_be_named_where_sets_differ():
    plan, coco, lspet = recipe(), [sample(COCO17)], [sample(LSP14)]
    with pytest.raises(InputError, match=r"different joints \(coco17, lsp14\): say which"):
        skeleton_of(plan, {"coco": coco, "lspet": lspet})
    assert skeleton_of(plan, {"coco": coco}) == COCO17
    named = recipe(skeleton="body19")
    assert skeleton_of(named, {"coco": coco, "lspet": lspet}) == BODY19
    with pytest.raises(InputError, match="skeleton 'body20' is not known"):
        skeleton_of(recipe(skeleton="body20"), {"coco": coco})


def test_a_reference_net_is_described_as_its_authors_had_it():
    sets = {"coco": [sample(COCO17)]}
    net, spec = network_of(load_yaml(ROOT / "recipes" / "hrnet_w32_coco.yaml", (), Recipe), sets)
    assert spec.mean == pytest.approx((123.675, 116.28, 103.53)) and spec.decode == "quarter"
    assert spec.input == (192, 256) and spec.grid == "corner" and spec.data == ("coco",)
    assert spec.options == {"joints": 17} and isinstance(net, HRNet)
    changed = recipe(net="hrnet-w32", spec={"decode": "dark", "pad": [1, 2, 3]})
    assert network_of(changed, sets)[1].pad == (1, 2, 3)
    for wrong in ({"decode": "best"}, {"depth": 3}):
        with pytest.raises(InputError, match="recipe 't': "):
            network_of(recipe(net="hrnet-w32", spec=wrong), sets)


def test_set_changes_a_nested_value():
    plan = load_yaml(ROOT / "recipes" / "lite.yaml", ("augment.flip=0.25", "samples=64"), Recipe)
    assert plan.augment.flip == 0.25 and plan.steps == 2


def test_unreadable_recipes_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.yaml: cannot be read"):
        load_yaml(tmp_path / "gone.yaml", (), Recipe)
    bad = tmp_path / "bad.yaml"
    for text in ("a: [", "just words", "\x00"):
        bad.write_text(text)
        with pytest.raises(InputError, match=r"bad\.yaml"):
            load_yaml(bad, (), Recipe)
