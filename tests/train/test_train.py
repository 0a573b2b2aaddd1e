import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from humanpose import files, nets
from humanpose.checkpoints.store import load_net, load_tensors
from humanpose.data.augment import Augmentation
from humanpose.data.detection import PersonDataset, PersonPicture
from humanpose.data.pose import PoseDataset
from humanpose.errors import DivergedError, InputError, OutputError
from humanpose.files import locked
from humanpose.lab.training import network_of
from humanpose.skeleton import BODY19, COCO17
from humanpose.spec import ModelSpec
from humanpose.train import loop
from humanpose.train.config import Recipe, validate
from humanpose.train.logging import curve
from humanpose.train.loop import fit
from humanpose.train.losses import assign, overlap_of, person_loss, places, pose_loss, training_loss
from humanpose.train.sampler import Order
from humanpose.types import Sample

ROOT = Path(__file__).resolve().parents[2]
POSE = ModelSpec("t", "pose", "lite", {"joints": 19}, BODY19, (64, 64))


def recipe(**changes: object) -> Recipe:
    values: dict[str, object] = {
        "name": "t", "task": "pose", "net": "lite", "options": {"joints": 19}, "input": [64, 64],
        "data": ["coco"], "samples": 24, "batch": 4, "lr": 1e-3, "backbone_lr": 1e-3, "warmup": 2,
        "precision": "32-true", "workers": 0, "validate_every": 12, "checkpoint_every": 1e-9,
    }  # fmt: skip
    return Recipe.model_validate(values | changes)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Eight pictures with a bright square where every joint is."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(8):
        x, y = rng.integers(15, 50, 2)
        image = rng.integers(0, 60, (64, 64, 3), np.uint8)
        image[y - 4 : y + 5, x - 4 : x + 5] = 250
        path = tmp_path / f"{i}.png"
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        joints = np.full((17, 2), (x, y), np.float32)
        box = np.array([6, 6, 52, 52], np.float32)
        visible = np.full(17, 2, np.uint8)
        made.append(Sample(path, joints, visible, box, 900.0, "train", ("coco", str(i)), COCO17))
    return made


def run(folder: Path, people: list[Sample], **changes: object) -> list[str]:
    """Train in `folder`; returns the lines shown. `stop` raises after that step."""
    stop = changes.pop("stop", None)
    lines: list[str] = []
    calls = 0

    def validate(_: torch.nn.Module) -> dict[str, float]:
        nonlocal calls
        calls += 1
        return {"fake": float(calls)}

    plan = recipe(**changes)
    dataset = PoseDataset(people, POSE, Augmentation(flip=0.5, rotation=30), seed=plan.seed)
    if stop is not None:
        dataset = StopAt(dataset, int(stop) * plan.batch)  # type: ignore[assignment]
    torch.manual_seed(1)
    net = nets.create("lite", joints=19)
    fit(plan, net, POSE, dataset, validate, folder, show=lines.append)
    return lines


class StopAt:
    """A data set that dies after so many items, as a killed run does."""

    def __init__(self, dataset: PoseDataset, items: int) -> None:
        self.dataset, self.left = dataset, items

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.dataset[key]


def test_an_interrupted_run_ends_bit_identical_to_an_unbroken_one(tmp_path, samples):
    run(tmp_path / "whole", samples)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", samples, stop=3)
    lines = run(tmp_path / "cut", samples)
    assert "resumed at step 3 of 6" in lines
    whole, _ = load_tensors(tmp_path / "whole" / "last.safetensors")
    cut, _ = load_tensors(tmp_path / "cut" / "last.safetensors")
    assert whole.keys() == cut.keys()
    assert [k for k in whole if not torch.equal(whole[k], cut[k])] == []


def test_another_seed_gives_another_run(tmp_path, samples):
    run(tmp_path / "a", samples)
    run(tmp_path / "b", samples, seed=1)
    a, _ = load_tensors(tmp_path / "a" / "last.safetensors")
    b, _ = load_tensors(tmp_path / "b" / "last.safetensors")
    assert any(not torch.equal(a[k], b[k]) for k in a)


def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, samples):
    run(tmp_path / "r", samples)
    last = tmp_path / "r" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:5000])
    lines = run(tmp_path / "r", samples)
    assert any("warning" in line and "last.safetensors: skipped" in line for line in lines)
    assert "resumed at step 5 of 6" in lines
    # Neither of the two that are kept now is the damaged one.
    for name in ("last", "previous"):
        load_tensors(tmp_path / "r" / f"{name}.safetensors")
    assert (tmp_path / "r" / "last.unreadable").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 2e-3}, r"lr was 0\.001, is 0\.002"),
        ({"data": ["lspet"]}, r"data was \['coco'\], is \['lspet'\]"),
        ({"batch": 8, "samples": 48}, r"batch was 4, is 8"),
    ],
)
def test_another_recipe_does_not_go_on_from_a_checkpoint(tmp_path, samples, changes, said):
    """It would end at once, and its result be that of the old recipe."""
    run(tmp_path / "r", samples)
    with pytest.raises(InputError, match=rf"last\.safetensors: belongs to another .*{said}"):
        run(tmp_path / "r", samples, **changes)
    # Longer, elsewhere, at another speed: the same run.
    lines = run(tmp_path / "r", samples, samples=32, data=["coco=/moved"], log_every=1)
    assert "resumed at step 6 of 8" in lines


def test_a_restart_leaves_nothing_to_go_on_from(tmp_path, samples):
    run(tmp_path / "r", samples)
    dataset = StopAt(PoseDataset(samples, POSE, Augmentation()), 0)
    with pytest.raises(KeyboardInterrupt):
        net = nets.create("lite", joints=19)
        fit(recipe(), net, POSE, dataset, lambda _: {}, tmp_path / "r", resume=False)
    assert not list((tmp_path / "r").glob("*last*")) + list((tmp_path / "r").glob("previous*"))


def test_tensorboard_shows_one_curve_of_a_run_that_was_resumed(tmp_path, samples):
    loggers = ["csv", "tensorboard"]
    run(tmp_path / "r", samples, loggers=loggers)
    run(tmp_path / "r", samples, loggers=loggers, samples=32)
    events = list((tmp_path / "r").rglob("events.out.tfevents*"))
    assert len(events) == 2 and {path.parent.name for path in events} == {"tensorboard"}


def test_two_trainings_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.2)
    with (
        locked(tmp_path / "r" / ".lock", "training"),
        pytest.raises(OutputError, match=r"r/\.lock: another training is writing there"),
        locked(tmp_path / "r" / ".lock", "training"),
    ):
        pass
    with locked(tmp_path / "r" / ".lock", "training"):
        pass


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rates": {"backbon.*": 0.1}}, r"rates: no parameter of lite is called 'backbon\.\*'"),
        ({"joint_weights": {"wrsit": 2}}, "joint_weights: body19 has no 'wrsit'; it has ankle, "),
        ({"targets": "hrnet", "loss": "mse", "net": "cpm-hand", "backbone_lr": None},
         "targets hrnet: cpm-hand has a map of the background; use cpm"),
        ({"targets": "cpm", "loss": "cpm"}, "targets cpm: lite has no map of the background"),
        ({"net": "hrnet-w32", "options": {"width": 2}, "backbone_lr": None},
         "loss place: hrnet-w32 does not learn by it; use mse or cpm"),
        ({"net": "hrnet-w32", "options": {"width": 2}, "loss": "mse"},
         "backbone_lr: hrnet-w32 has no part called backbone"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_network_is_refused(changes, said):
    plan = recipe(skeleton="body19", **changes)
    net, spec = network_of(plan, {})
    with pytest.raises(InputError, match=said):
        validate(plan, net, spec)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardest": 8}, "hardest counts with loss mse or cpm"),
        ({"augment": {"flip": 50}}, "flip must be from 0 to 1, not 50"),
        ({"augment": {"scale": [0, 1]}}, "scale must be above 0"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        recipe(**changes)


def test_a_checkpoint_of_another_net_is_refused(tmp_path, samples):
    run(tmp_path / "r", samples)
    plan = recipe()
    dataset = PoseDataset(samples, POSE, Augmentation())
    with pytest.raises(InputError, match=r"last\.safetensors: belongs to another network"):
        fit(plan, nets.create("person"), POSE, dataset, lambda _: {}, tmp_path / "r")


def test_the_best_weights_carry_their_spec_and_logs_are_written(tmp_path, samples):
    run(tmp_path / "r", samples, samples=120)
    _, spec = load_net(tmp_path / "r" / "best.safetensors")
    assert spec == POSE
    figures = curve(tmp_path / "r" / "curve.csv")
    assert {"loss", "place", "grad_norm", "lr", "samples_per_s", "val/fake"} <= set(figures)
    assert list((tmp_path / "r").rglob("events.out.tfevents*"))


def test_pose_training_learns_where_the_square_is(tmp_path, samples):
    """Sixteen epochs on eight pictures: the loss must fall far below the flat map's."""
    plan = recipe(samples=8 * 40, batch=8, lr=3e-3, backbone_lr=3e-3, validate_every=10_000)
    dataset = PoseDataset(samples, POSE, Augmentation())
    net = nets.create("lite", joints=19)
    fit(plan, net, POSE, dataset, lambda _: {"x": 0.0}, tmp_path, show=lambda _: None)
    items = [dataset[(0, i)] for i in range(8)]
    batch = {k: torch.from_numpy(np.stack([item[k] for item in items])) for k in items[0]}
    image = (batch["image"].permute(0, 3, 1, 2).float() - 127.5) / 127.5
    _, parts = pose_loss(net.eval()(image), batch)
    flat = np.log(16 * 16)
    assert parts["place"] < 0.75 * flat


def test_pose_loss_is_least_at_the_truth_and_ignores_unknown_joints():
    target = torch.zeros(2, 3, 5, 7)
    target[:, 0, 2, 3] = 1
    known = torch.tensor([[1, 0, 2], [1, 0, 2]])
    batch = {"target": target, "known": known, "weight": (known == 1).float()}
    right = torch.full((2, 3, 5, 7), -8.0)
    right[:, 0, 2, 3] = 8
    wrong = right.roll(2, dims=3)
    good, _ = pose_loss(right, batch)
    bad, _ = pose_loss(wrong, batch)
    assert good < 0.01 < bad
    changed = right.clone()
    changed[:, 1] = 50  # the unknown joint's map may say anything
    same, _ = pose_loss(changed, batch)
    assert same == good
    sure = right.clone()
    sure[:, 2, 0, 0] = 8  # a joint known to be outside must not be believed
    worse, parts = pose_loss(sure, batch)
    assert worse > good and parts["score"] > 1


def test_a_batch_without_any_known_joint_is_finite():
    logits = torch.randn(2, 3, 5, 7, requires_grad=True)
    known = torch.zeros(2, 3, dtype=torch.long)
    batch = {"target": torch.zeros(2, 3, 5, 7), "known": known, "weight": known.float()}
    loss, _ = pose_loss(logits, batch)
    loss.backward()
    assert loss == 0 and torch.isfinite(logits.grad).all()


def test_person_loss_is_least_at_the_truth(samples):
    spec = ModelSpec("t", "person", "person", {}, BODY19, (64, 64), crop="whole", decode="boxes")
    empty = np.zeros((0, 4), np.float32)
    picture = PersonPicture(samples[0].picture, samples[0].box[None], empty)
    item = PersonDataset([picture], spec, Augmentation())[(0, 0)]
    batch = {k: torch.from_numpy(v)[None] for k, v in item.items()}
    middles, strides = places((64, 64), torch.device("cpu"))
    truth = batch["people"][0, :1]
    near = ((middles - truth[:, :2]).abs() < 1.5 * strides[:, None]).all(1) & (strides == 16)
    sure = torch.where(near, 9.0, -9.0)[None]
    box = torch.where(near[:, None], truth, torch.cat([middles, strides[:, None].repeat(1, 2)], 1))
    raw = {"box": box[None], "object": sure, "kind": sure}
    good, parts = person_loss(raw, batch)
    assert good < 0.02 and set(parts) == {"box", "object", "kind"}
    for name, other in (("box", box[None] * 1.2), ("object", -sure), ("kind", -sure)):
        worse, _ = person_loss(raw | {name: other}, batch)
        assert worse > good + 0.05, name
    # A find in a marked place, a possible person without annotation, costs nothing.
    lone = sure.clone()
    lone[0, 0] = 9.0
    wrong, _ = person_loss(raw | {"object": lone}, batch)
    ignore = torch.zeros_like(batch["ignore"])
    ignore[0, 0] = torch.tensor([4.0, 4.0, 10.0, 10.0])
    spared, _ = person_loss(raw | {"object": lone}, batch | {"ignore": ignore})
    assert wrong > good + 0.5 and spared == pytest.approx(float(good), abs=1e-3)


def test_guesses_are_assigned_as_simota_has_it():
    """Two people: a guess answers for one at most, the best overlaps are taken, never far ones."""
    middles, strides = places((96, 96), torch.device("cpu"))
    people = torch.tensor([[24.0, 24.0, 30.0, 40.0], [70.0, 60.0, 40.0, 50.0]])
    boxes = torch.cat([middles, strides[:, None].repeat(1, 2)], 1)
    finest = middles[strides == 8]
    close = [int((finest - person[:2]).norm(dim=1).argmin()) for person in people]
    for row, person in zip(close, people, strict=True):
        boxes[row] = person
    rows, whose = assign(boxes, torch.full((len(boxes),), 0.5), people, middles, strides)
    found = dict(zip(rows.tolist(), whose.tolist(), strict=True))
    assert len(found) == len(rows) and found[close[0]] == 0 and found[close[1]] == 1
    away = (middles[rows] - people[whose, :2]).abs()
    inside = (away < people[whose, 2:] / 2).all(1)
    assert (inside & (away < 1.5 * strides[rows, None]).all(1)).all()
    # As many as the ten best overlaps add up to.
    for i, person in enumerate(people):
        every = overlap_of(boxes, person.expand(len(boxes), 4))
        assert list(found.values()).count(i) <= max(1, int(every.topk(10).values.sum()))
    nobody, _ = assign(boxes, boxes[:, 0], people + 1000, middles, strides)
    assert not len(nobody)


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "rmsprop"])
def test_every_optimiser_resumes(tmp_path, samples, kind):
    run(tmp_path / "whole", samples, optimizer=kind)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", samples, optimizer=kind, stop=3)
    run(tmp_path / "cut", samples, optimizer=kind)
    whole, _ = load_tensors(tmp_path / "whole" / "last.safetensors")
    cut, _ = load_tensors(tmp_path / "cut" / "last.safetensors")
    assert any(name.startswith("optimizer/") for name in whole)
    assert [k for k in whole if not torch.equal(whole[k], cut[k])] == []


def test_without_an_average_the_net_itself_is_judged(tmp_path, samples):
    run(tmp_path, samples, ema=0)
    state, _ = load_tensors(tmp_path / "last.safetensors")
    best, _ = load_tensors(tmp_path / "best.safetensors")
    assert not any(name.startswith("ema/") for name in state)
    assert all(torch.equal(best[name], state[f"net/{name}"]) for name in best)


def test_a_run_ends_when_nothing_gets_better(tmp_path, samples):
    plan = recipe(samples=400, patience=3)
    dataset = PoseDataset(samples, POSE, Augmentation())
    scores = iter([0.3, 0.5, 0.4, 0.5, 0.5, 0.9])

    def judge(_: torch.nn.Module) -> dict[str, float]:
        return {"x": next(scores)}

    def go() -> list[str]:
        lines: list[str] = []
        fit(plan, nets.create("lite", joints=19), POSE, dataset, judge, tmp_path, show=lines.append)
        return lines

    judged = [line for line in go() if "validation" in line]
    assert len(judged) == 5 and judged[1].count("(best)") == 1 and "(best)" not in judged[-1]
    assert [line for line in go() if "validation" in line] == []  # it has ended, and stays so
    assert next(scores) == 0.9


def test_a_net_that_blew_up_ends_the_run_and_keeps_its_checkpoint(tmp_path, samples, monkeypatch):
    run(tmp_path, samples, samples=20, log_every=1)
    before, _ = load_tensors(tmp_path / "last.safetensors")

    def infinite(*args: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, parts = training_loss(*args)
        return loss * math.inf, parts

    monkeypatch.setattr(loop, "training_loss", infinite)
    with pytest.raises(DivergedError, match="step 14: no finite gradient 10 times in a row"):
        run(tmp_path, samples, samples=400, checkpoint_every=99, log_every=1)
    after, _ = load_tensors(tmp_path / "last.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before)
    losses = curve(tmp_path / "curve.csv")["loss"]  # up to the end, far beyond the checkpoint
    assert list(losses) == list(range(1, 15)) and math.isinf(losses[14])


def test_a_resumed_curve_has_no_line_twice(tmp_path, samples):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, samples, stop=5, log_every=1, checkpoint_every=1e-9)
    path = tmp_path / "curve.csv"
    path.write_text(path.read_text() + "5,loss,99.0\n6,loss,99.0\n7,lo")  # beyond the checkpoint
    last = tmp_path / "last.safetensors"
    last.write_bytes(b"torn")  # the one before, of step 4, is used
    run(tmp_path, samples, log_every=1)
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    assert len({(step, name) for step, name, _ in rows}) == len(rows)
    assert sorted(curve(path)["loss"]) == [1, 2, 3, 4, 5, 6] and "99.0" not in path.read_text()


def test_a_logger_that_is_not_installed_is_named(tmp_path, samples):
    with pytest.raises(InputError, match="loggers: mlflow is not installed; run: pip install"):
        run(tmp_path, samples, loggers=["csv", "mlflow"])


def test_two_ranks_share_each_batch():
    plan = recipe(samples=400, batch=4)
    whole = list(Order(21, plan, 3))
    parts = [list(Order(21, plan, 3, rank=rank, ranks=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    with pytest.raises(InputError, match="cannot be shared by 3 processes"):
        Order(21, plan, 0, ranks=3)


def test_crops_of_a_batch_have_one_of_the_sizes(samples, tmp_path):
    sizes = [(64, 64), (32, 96), (96, 32)]
    plan = recipe(samples=400, batch=4, sizes=sizes)
    batches = list(Order(20, plan, 0))
    drawn = [{size for _, _, size in batch} for batch in batches]
    assert all(len(each) == 1 for each in drawn)
    counts = Counter(size for each in drawn for size in each)
    assert set(counts) == {0, 1, 2} and min(counts.values()) > 20
    assert list(Order(20, plan, 37)) == batches[37:]  # a resumed run draws the same
    without = Order(20, recipe(samples=400, batch=4), 0)
    assert [[key[:2] for key in batch] for batch in batches] == list(without)

    plain = Augmentation(scale=(1, 1), rotation=0, shift=0, colour=0)
    dataset = PoseDataset(samples, POSE, plain, sizes=sizes)
    for number, (width, height) in enumerate(sizes):
        item = dataset[0, 3, number]
        assert item["image"].shape == (height, width, 3)
        (maps,) = (item[name] for name in item if item[name].ndim == 3 and name != "image")
        assert maps.shape[1:] == (height // 4, width // 4)
        y, x = np.unravel_index(maps[0].argmax(), maps.shape[1:])
        assert item["image"][4 * y + 1, 4 * x + 1].min() > 120  # the target lies on the joint
    net = nets.create("lite", joints=19)
    fit(plan.model_copy(update={"samples": 24}), net, POSE, dataset, lambda _: {}, tmp_path / "run")
    with pytest.raises(InputError, match="sizes: 64x100: lite takes multiples of 32"):
        validate(recipe(sizes=[[64, 100]]), net, POSE)
    with pytest.raises(ValidationError, match="a detector sees the whole picture"):
        recipe(task="person", net="person", sizes=[[64, 64]])


def test_every_sample_is_seen_once_an_epoch_and_order_follows_the_step():
    plan = recipe(samples=400, batch=4)
    batches = list(Order(20, plan, 0))
    first = [i for batch in batches[:5] for _, i in batch]
    assert sorted(first) == list(range(20)) and {e for b in batches[:5] for e, _ in b} == {0}
    assert [i for b in batches[5:10] for _, i in b] != first
    assert list(Order(20, plan, 37)) == batches[37:]
