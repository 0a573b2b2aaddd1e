"""Targets, augmentation and losses against computations of their own: loops, affines by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from humanpose.data.augment import Augmentation, generator, random_crop
from humanpose.data.pack import Pack
from humanpose.data.pose import PoseDataset, hrnet_half_body_box, with_square_box
from humanpose.data.readers import read
from humanpose.data.targets import (
    INSIDE,
    OUTSIDE,
    UNKNOWN,
    Targets,
    carried,
    in_pixels_of,
    neighbours,
)
from humanpose.geometry import crop_of_box, mirrored
from humanpose.heatmap import cells_of, encode, to_cells
from humanpose.lab.packing import PackRecipe, build
from humanpose.nets.detector import STRIDES
from humanpose.skeleton import COCO17, CPM14, LSP14, MPII16, convert
from humanpose.spec import ModelSpec
from humanpose.train.config import Recipe
from humanpose.train.losses import person_loss, pose_loss, squared_loss, training_loss
from humanpose.types import Sample

HRNET = ModelSpec("t", "pose", "hrnet-w32", {}, MPII16, (128, 96), grid="corner", context=1.25)
CPM = ModelSpec(
    "t", "pose", "cpm-vgg", {}, CPM14, (96, 128), multiple_of=8, stride=8, background=True
)
NOBODY = np.zeros((0, 14, 2), np.float32)


def person(**more) -> Sample:
    joints, visible = np.zeros((16, 2), np.float32), np.full(16, 2, np.uint8)
    box = np.array([10, 20, 60, 80], np.float32)
    return Sample(Path("a.jpg"), joints, visible, box, 1.0, "train", ("t", "1"), MPII16, **more)


# ------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("compat", [False, True])
def test_hrnet_maps_cell_by_cell(compat):
    rng = np.random.default_rng(0)
    joints = rng.uniform(-45, 175, (200, 2)).astype(np.float32)
    joints[:20] = rng.uniform(-5, 5, (20, 2))
    joints[20:40] = rng.uniform(-32, -20, (20, 2))
    joints[7] = np.nan
    made = []
    for part in np.split(joints[:192], 12):
        known = np.full(16, INSIDE)
        made.append(Targets("hrnet", 2.0, compat).maps(part, known, NOBODY, HRNET))
    target = np.concatenate([m["target"] for m in made])
    weight = np.concatenate([m["weight"] for m in made])
    assert target.shape == (192, 24, 32)
    for joint, found, counts in zip(joints, target, weight, strict=False):
        expected = np.zeros((24, 32))
        if np.isnan(joint).any():
            assert counts == 0 and not found.any()
            continue
        # The centre is a whole cell; int() of the original cuts towards zero.
        centre = [int(v / 4 + 0.5) if compat else math.floor(v / 4 + 0.5) for v in joint]
        for y in range(24):
            for x in range(32):
                dx, dy = x - centre[0], y - centre[1]
                if max(abs(dx), abs(dy)) <= 6:
                    expected[y, x] = math.exp(-(dx * dx + dy * dy) / 8)
        assert np.allclose(found, expected, atol=1e-6)
        # "If not any part of the Gaussian is in bounds": br < 0 or ul >= size, br = centre + 7.
        if compat:
            out = any(c + 7 < 0 or c - 6 >= size for c, size in zip(centre, (32, 24), strict=True))
        else:
            out = not expected.any()
        assert counts == (not out)
    empty = [c == 1 and not t.any() for t, c in zip(target, weight, strict=True)]
    assert any(empty) == compat  # the quirk: a joint one cell too far out counts with an empty map


def test_exact_maps_peak_where_the_joint_is_and_count_inside_only():
    joints = np.full((16, 2), np.nan, np.float32)
    joints[0], joints[1] = (41.3, 30.9), (200, 10)
    known = np.array([INSIDE, OUTSIDE] + [UNKNOWN] * 14)
    made = Targets("exact", 1.5, weights={"ankle": 1.5}).maps(joints, known, NOBODY, HRNET)
    for y, x in ((7, 10), (8, 11), (0, 0)):
        value = math.exp(-((x - 41.3 / 4) ** 2 + (y - 30.9 / 4) ** 2) / (2 * 1.5**2))
        assert made["target"][0, y, x] == pytest.approx(value, abs=1e-6)
    assert made["weight"].tolist() == [1.5] + [0.0] * 15 and not made["target"][1:].any()


def cpm_map(people: list[np.ndarray]) -> np.ndarray:
    """(15, 16, 12) by loops over cells: sigma 7 px, centres at 3.5, 11.5 ..., cut below 1 %."""
    out = np.zeros((15, 16, 12))
    for joint in range(14):
        for points in people:
            x, y = points[joint]
            for row in range(16):
                for column in range(12):
                    squared = (8 * column + 3.5 - x) ** 2 + (8 * row + 3.5 - y) ** 2
                    exponent = squared / 2 / 7 / 7
                    if exponent <= 4.6052:
                        out[joint, row, column] = min(
                            1, out[joint, row, column] + math.exp(-exponent)
                        )
    out[14] = np.maximum(0, 1 - out[:14].max(0))
    return out


def test_cpm_maps_cell_by_cell():
    rng = np.random.default_rng(1)
    me, others = rng.uniform(-10, 120, (14, 2)), rng.uniform(-10, 120, (2, 14, 2))
    others[0, 3] = me[3] + 1  # two wrists at one place: the sum is clipped
    me[5] = np.nan
    rule = Targets("cpm", 7 / 8)
    known = np.where(np.isnan(me[:, 0]), UNKNOWN, INSIDE)
    made = rule.maps(np.float32(me), known, np.float32(others), CPM)
    assert np.allclose(made["target"], cpm_map([me]), atol=2e-5)
    assert np.allclose(made["everyone"], cpm_map([me, *others]), atol=2e-5)
    assert made["weight"].tolist() == [1.0] * 5 + [0.0] + [1.0] * 9
    published = replace(rule, compat=True).maps(np.float32(me), known, np.float32(others), CPM)
    assert published["weight"].tolist() == [1.0] * 15  # what is not annotated counts as absent


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """MPII-like folder: two people in one picture, one in another."""
    rng = np.random.default_rng(3)
    (tmp_path / "annot").mkdir()
    (tmp_path / "images").mkdir()
    entries = []
    for name, x in (("a", 60), ("a", 95), ("b", 100)):
        picture = tmp_path / "images" / f"{name}.jpg"
        noise = rng.integers(0, 255, (200, 240, 3), np.uint8)
        picture.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes())
        joints = rng.uniform([x - 30, 40], [x + 30, 160], (16, 2)).tolist()
        entries.append({
            "image": picture.name, "joints": joints, "joints_vis": [1] * 16,
            "center": [x, 100], "scale": 0.6,
        })  # fmt: skip
    (tmp_path / "annot" / "train.json").write_text(json.dumps(entries))
    return tmp_path


def test_the_first_stage_sees_everybody_in_a_picture_and_in_a_pack(crowd):
    people = read("mpii", crowd)
    assert [len(group) for group in neighbours([*people, *people])] == [1, 1, 0] * 2
    build(PackRecipe(data=[f"mpii={crowd}"], box=64), crowd / "p.json")
    packed = list(Pack(crowd / "p.json"))
    packed.sort(key=lambda s: s.origin[1])
    assert [len(group) for group in neighbours(packed)] == [1, 1, 0]
    (other,) = neighbours(packed)[0]
    there = packed[0].crop.to_crop(people[1].joints)  # the stored picture is smaller and cut
    assert np.allclose(in_pixels_of(packed[0], other), there, atol=1e-2)

    rules = Augmentation(rule="cpm", scale=(0.8, 1.2), rotation=40, flip=0.5)
    sets = [PoseDataset(s, CPM, rules, targets=Targets("cpm", 0.875)) for s in (people, packed)]
    more = 0.0
    for epoch in range(8):
        plain, stored = (s[(epoch, 0)] for s in sets)
        assert np.allclose(plain["everyone"], stored["everyone"], atol=0.02)
        assert (plain["everyone"][:14] >= plain["target"][:14] - 1e-6).all()
        more += plain["everyone"][:14].sum() / plain["target"][:14].sum()
    assert more / 8 > 1.2  # the other one stands beside, partly outside


# -------------------------------------------------------------------------------- augmentation


def parts_of(matrix: np.ndarray, unit: float) -> tuple[float, float, bool]:
    """Zoom against `unit`, degrees counter-clockwise, and whether it mirrors."""
    linear = matrix[:, :2]
    flip = np.linalg.det(linear) < 0
    if flip:
        linear = linear @ np.diag([-1, 1])
    zoom = math.sqrt(np.linalg.det(linear)) / unit
    return zoom, math.degrees(math.atan2(linear[0, 1], linear[0, 0])), bool(flip)


def hrnet_affine(centre, side, turn, size) -> np.ndarray:
    """From picture to crop by three points: the centre, a point above it, and the third corner."""
    radians = math.radians(turn)
    up = np.array([math.sin(radians), -math.cos(radians)]) * side / 2
    across = np.array([-up[1], up[0]])
    source = np.float32([centre, centre + up, centre + up - across])
    middle = np.array(size) / 2
    up = np.array([0, -size[0] / 2])
    target = np.float32([middle, middle + up, middle + up - [size[0] / 2, 0]])
    return cv2.getAffineTransform(source, target)


def test_hrnet_crops_are_the_published_affine():
    rules = Augmentation(rule="hrnet", scale=(0.75, 1.25), rotation=30, flip=0.5)
    centre, scale, width = np.array([130.2, 90.7]), 0.9, 300
    plain = crop_of_box(
        with_square_box(
            person(centre=centre - [0, 15 * scale], scale=scale),
            "hrnet",
        ).box, (256, 256),
    )  # fmt: skip
    side = 200 * 1.25 * scale
    assert np.allclose(plain.matrix, hrnet_affine(centre, side, 0, (256, 256)), atol=1e-3)
    drawn = []
    for i in range(2000):
        crop, flip = random_crop(plain, rules, generator(0, 0, i))
        zoom, turn, mirror = parts_of(crop.matrix, 256 / side)
        drawn.append((1 / zoom, turn, flip))
        assert mirror == flip
        if i < 50:
            # The published code mirrors the picture first, the centre with it.
            mirrored_centre = np.array([width - 1 - centre[0], centre[1]]) if flip else centre
            expected = hrnet_affine(mirrored_centre, side / zoom, turn, (256, 256))
            if flip:
                expected = expected @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]])
            assert np.allclose(crop.matrix, expected, atol=2e-3)
    growth, turns, flips = (np.array(column) for column in zip(*drawn, strict=True))
    assert growth.min() >= 0.75 - 1e-9 and growth.max() <= 1.25 + 1e-9
    clipped = (np.abs(growth - 1) > 0.25 - 1e-6).mean()
    assert clipped == pytest.approx(0.317, abs=0.04)  # a normal beyond one deviation
    assert np.abs(turns).max() <= 60 + 1e-6
    assert (np.abs(turns) < 1e-6).mean() == pytest.approx(0.4, abs=0.04)
    assert turns[np.abs(turns) > 1e-6].std() == pytest.approx(28.9, abs=1.5)
    assert flips.mean() == pytest.approx(0.5, abs=0.04)


def test_cpm_crops_go_through_its_four_steps():
    rules = Augmentation(rule="cpm", scale=(0.7, 1.3), rotation=40, flip=0.5)
    centre, scale = np.array([130.2, 90.7], np.float32), 0.9
    sample = with_square_box(person(centre=centre, scale=scale), "cpm")
    plain = crop_of_box(sample.box, (368, 368), context=368 / (200 * 41 / 35))
    points = np.random.default_rng(0).uniform(0, 250, (20, 2))
    drawn = []
    for i in range(1000):
        crop, flip = random_crop(plain, rules, generator(0, 0, i))
        multiplier, turn, _ = parts_of(crop.matrix, 41 / 35 / scale)
        drawn.append((multiplier, turn, flip))
        if i >= 30:
            continue
        factor = 41 / 35 / scale * multiplier
        moved, person_at = points * factor, centre * factor  # 1. scale
        turned = cv2.getRotationMatrix2D((150.0, 140.0), -turn if flip else turn, 1.0)  # 2. rotate
        moved, person_at = (p @ turned[:, :2].T + turned[:, 2] for p in (moved, person_at))
        moved = moved - person_at + 184  # 3. crop
        if flip:
            moved[:, 0] = 368 - 1 - moved[:, 0]  # 4. flip
        assert np.allclose(crop.to_crop(points), moved, atol=2e-3)
    zooms, turns, flips = (np.array(column) for column in zip(*drawn, strict=True))
    assert zooms.min() > 0.7 - 1e-6 and zooms.max() < 1.3 + 1e-6 and zooms.std() > 0.16
    assert np.abs(turns).max() <= 40 + 1e-6 and turns.std() == pytest.approx(23.1, abs=1)
    assert flips.mean() == pytest.approx(0.5, abs=0.06)


def test_a_person_without_scale_keeps_its_box():
    sample = person(centre=np.zeros(2, np.float32))
    assert with_square_box(sample, "cpm") is sample


def test_half_a_body_by_hrnets_rule():
    joints = np.full((17, 2), np.nan, np.float32)
    joints[5:11] = [[10, 10], [30, 10], [10, 30], [30, 30], [20, 20], [20, 44]]
    joints[11:15] = [[12, 60], [28, 60], [12, 90], [28, 98]]
    whole = np.array([0, 0, 40, 100], np.float32)
    boxes = [hrnet_half_body_box(joints, COCO17, generator(0, 0, i), default=whole)
             for i in range(1500)]  # fmt: skip
    upper, lower = (np.stack(boxes)[:, 1] < 40), (np.stack(boxes)[:, 1] > 40)
    assert (upper | lower).all()
    assert upper.mean() == pytest.approx(0.69, abs=0.04)  # the original's coin
    box = boxes[int(lower.argmax())]
    assert np.allclose(box[:2] + box[2:] / 2, joints[11:15].mean(0))
    crop = crop_of_box(box, (192, 256), context=1.25)
    # 1.5 times the joints' extent, grown to the crop's aspect.
    assert np.linalg.norm(crop.matrix[:, 0]) == pytest.approx(256 / (1.5 * 38), rel=1e-4)
    few = np.where(np.arange(17)[:, None] < 13, joints, np.nan)
    same = hrnet_half_body_box(few, COCO17, generator(0, 0, 0), default=whole)
    assert (same == whole).all()  # eight known joints are not more than eight


# -------------------------------------------------------------------------------------- losses


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def plan(**changes: object) -> Recipe:
    values = {"name": "t", "task": "pose", "net": "lite", "input": [64, 64], "data": ["coco"],
              "samples": 8, "lr": 1.0, "loss": "mse"}  # fmt: skip
    return Recipe.model_validate(values | changes)


def test_the_mean_of_squares_by_hand():
    maps, target, weight = numbers(3, 4, 5, 6), numbers(3, 4, 5, 6, seed=1), torch.rand(3, 4)
    total = 0.0
    for joint in range(4):
        squares = [
            float(weight[n, joint] * (maps[n, joint, y, x] - target[n, joint, y, x])) ** 2
            for n in range(3) for y in range(5) for x in range(6)
        ]  # fmt: skip
        total += 0.5 * sum(squares) / len(squares)
    assert squared_loss(maps, target, weight).item() == pytest.approx(total / 4, rel=1e-5)


def test_the_hardest_joints_by_hand():
    maps, target, weight = numbers(3, 6, 5, 4), numbers(3, 6, 5, 4, seed=1), torch.ones(3, 6)
    total = 0.0
    for n in range(3):
        each = [0.5 * float(((maps - target)[n, j] ** 2).sum()) / 20 for j in range(6)]
        total += sum(sorted(each)[-2:]) / 2
    assert squared_loss(maps, target, weight, hardest=2).item() == pytest.approx(total / 3)
    every = squared_loss(maps, target, weight)
    assert squared_loss(maps, target, weight, hardest=9).item() == pytest.approx(every.item())


def test_cpms_loss_by_hand_with_everybody_in_the_first_stage():
    stages = [numbers(2, 15, 4, 3, seed=s) for s in range(3)]
    batch = {
        "target": torch.rand(2, 15, 4, 3),
        "everyone": torch.rand(2, 15, 4, 3),
        "weight": torch.ones(2, 15),
    }
    loss, parts = training_loss(stages, batch, plan(loss="cpm", targets="cpm"))
    labels = [batch["everyone"], batch["target"], batch["target"]]
    # Caffe's EuclideanLoss: the sum over 2 N, N people in the batch.
    each = [float(((a - b) ** 2).sum()) / (2 * 2) for a, b in zip(stages, labels, strict=True)]
    assert loss.item() == pytest.approx(sum(each), rel=1e-5)
    found = [parts[f"stage_{i}"].item() for i in (1, 2, 3)]
    assert found == pytest.approx(each, rel=1e-5)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_teacher_of_many_stages_is_followed_stage_by_stage(count):
    stages = [numbers(2, 15, 4, 3, seed=s) for s in range(3)]
    teacher = torch.rand(2, count, 15, 4, 3)
    batch = {
        "target": torch.rand(2, 15, 4, 3), "weight": torch.ones(2, 15),
        "known": torch.ones(2, 14, dtype=torch.long), "teacher": teacher.half(),
    }  # fmt: skip
    chosen = {1: [0, 0, 0], 3: [0, 1, 2], 6: [1, 3, 5]}[count]
    taught = sum(
        float(((maps - teacher[:, i].half().float()) ** 2).sum()) / 4
        for maps, i in zip(stages, chosen, strict=True)
    )
    loss, _ = training_loss(stages, batch, plan(loss="cpm", targets="cpm", distil=1))
    assert loss.item() == pytest.approx(taught, rel=1e-4)
    alone, _ = training_loss(stages, batch, plan(loss="cpm", targets="cpm"))
    half, _ = training_loss(stages, batch, plan(loss="cpm", targets="cpm", distil=0.25))
    assert half.item() == pytest.approx(0.25 * taught + 0.75 * alone.item(), rel=1e-4)


@pytest.mark.parametrize("background", [False, True])
def test_a_teachers_maps_follow_the_students_crop(background):
    """Its joints are in another order, and two are more than the student has."""
    spec = replace(HRNET, skeleton=LSP14, input=(128, 128), grid="centre", background=background)
    everything = np.random.default_rng(0).uniform(60, 140, (16, 2)).astype(np.float32)
    joints = convert(everything, MPII16, LSP14)
    before = crop_of_box(np.array([40, 40, 120, 120], np.float32), (128, 128))
    maps = encode(to_cells(before.to_crop(everything), 4, "centre"), (32, 32), sigma=1.5)
    cells = cells_of(before, 4, "centre")
    after = crop_of_box(np.array([45, 35, 120, 120], np.float32), (128, 128))
    for crop, flipped in ((after, False), (mirrored(after, 63.5), True)):
        given = maps[None].astype(np.float16)
        moved = carried(given, cells, MPII16, crop, spec, flipped=flipped)
        there = crop.to_crop(joints)
        there = there[LSP14.flip_index] if flipped else there
        expected = encode(to_cells(there, 4, "centre"), (32, 32), sigma=1.5)
        assert moved.shape == (1, 14 + background, 32, 32)
        assert np.abs(moved[0, :14] - expected).max() < 0.12  # bilinear
        if background:
            assert np.abs(moved[0, 14] - (1 - expected.max(0))).max() < 0.2


def test_the_loss_of_a_batch_is_the_mean_of_its_parts_shares():
    """Two processes with unlike parts: their mean is what one process has of the whole batch."""
    logits = numbers(4, 3, 5, 7)
    known = torch.tensor([[1, 1, 1], [1, 0, 2], [0, 0, 0], [2, 2, 1]])
    batch = {"target": torch.rand(4, 3, 5, 7), "known": known, "weight": (known == 1).float()}
    whole, _ = pose_loss(logits, batch)
    totals = iter([(known == 1).sum(), (known > 0).sum()] * 2)
    parts = [
        pose_loss(logits[half], {k: v[half] for k, v in batch.items()}, lambda _: next(totals) / 2)
        for half in (slice(0, 2), slice(2, 4))
    ]
    assert sum(loss for loss, _ in parts).item() / 2 == pytest.approx(whole.item(), rel=1e-5)

    guesses = sum((32 // stride) * (64 // stride) for stride in STRIDES)
    raw = {
        "box": torch.rand(4, guesses, 4) * 30 + 5,
        "object": numbers(4, guesses),
        "kind": numbers(4, guesses),
    }
    people = torch.zeros(4, 3, 4)
    people[0, :2] = torch.tensor([[20.0, 16, 18, 20], [45, 16, 14, 22]])
    people[3, :1] = torch.tensor([[30.0, 14, 20, 20]])
    batch = {"image": torch.zeros(4, 32, 64, 3), "people": people, "ignore": torch.zeros(4, 3, 4)}
    totals: list[torch.Tensor] = []

    def noted(count: torch.Tensor) -> torch.Tensor:
        totals.append(count)
        return count

    whole, _ = person_loss(raw, batch, noted)
    parts = [
        person_loss(
            {k: v[half] for k, v in raw.items()},
            {k: v[half] for k, v in batch.items()},
            lambda _: totals[0] / 2,
        )
        for half in (slice(0, 2), slice(2, 4))
    ]
    assert sum(loss for loss, _ in parts).item() / 2 == pytest.approx(whole.item(), rel=1e-5)
