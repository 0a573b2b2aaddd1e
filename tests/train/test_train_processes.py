"""Trainings as processes: killed at any moment, and shared by two."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from humanpose.checkpoints.store import load_tensors
from humanpose.train.logging import curve

HUMANPOSE = Path(sys.executable).with_name("humanpose")
RECIPE = {
    "name": "small", "task": "pose", "net": "hrnet-w32",
    "options": {"width": 4, "norm": "group"}, "input": [64, 64],
    "augment": {"rule": "hrnet", "scale": [0.75, 1.25], "rotation": 30, "flip": 0.5},
    "targets": "hrnet", "sigma": 2, "loss": "mse", "batch": 8, "lr": 1e-3, "warmup": 5,
    "precision": "32-true", "workers": 0, "log_every": 1, "threads": 1, "loggers": ["csv"],
}  # fmt: skip


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Forty-five pictures of coloured squares; ids divisible by 11, five of them, validate."""
    rng = np.random.default_rng(0)
    (tmp_path / "set" / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(99, 144):
        image = rng.integers(0, 80, (72, 72, 3), np.uint8)
        joints = np.stack([*rng.uniform(12, 60, (2, 17)), np.full(17, 2)], 1)
        for x, y, _ in joints.astype(int):
            image[y - 2 : y + 3, x - 2 : x + 3] = rng.integers(150, 255, 3)
        name = f"{number}.png"
        (tmp_path / "set/images" / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
        images.append({"id": number, "file_name": name})
        annotations.append({
            "id": number, "image_id": number, "num_keypoints": 17, "area": 2000.0, "iscrowd": 0,
            "keypoints": joints.ravel().tolist(), "bbox": [8, 8, 56, 56],
        })  # fmt: skip
    content = {"images": images, "annotations": annotations}
    (tmp_path / "set" / "person_keypoints.json").write_text(json.dumps(content))
    return tmp_path / "set"


def command(folder: Path, people: Path, *options: str, **changes: object) -> list[str]:
    """A training of RECIPE with `changes` in `folder`."""
    recipe = RECIPE | {"data": [f"coco={people}"]} | changes
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe))
    return [str(HUMANPOSE), "train", str(path), "-o", str(folder), *options]


def trained(*args: object, **changes: object) -> str:
    done = subprocess.run(
        command(*args, **changes), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(folder: Path) -> dict[str, dict[int, float]]:
    """The curve of a run but for what depends on the machine."""
    timed = ("samples_per_s", "data_wait")
    return {name: v for name, v in curve(folder / "curve.csv").items() if name not in timed}


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(1500)
def test_kills_at_any_moment_leave_no_trace(people, tmp_path, kills):
    plan = {
        "net": "lite", "options": {}, "input": [32, 32], "loss": "place", "targets": "exact",
        "batch": 4, "samples": 4 * 60 * (kills + 1), "validate_every": 100,
        "checkpoint_every": 0.2,
    }  # fmt: skip
    trained(tmp_path / "whole", people, **plan)
    rng = random.Random(kills)
    log = tmp_path / "cut.log"
    saved = tmp_path / "cut" / "last.safetensors"
    with log.open("w") as said:
        for _ in range(kills):
            begun = len(steps_shown(log))
            child = subprocess.Popen(
                command(tmp_path / "cut", people, **plan), stdout=said, stderr=said
            )
            # Once it goes on and has something to go on from, at any moment of the next second:
            # in a step, a save, a validation.
            while child.poll() is None and (len(steps_shown(log)) == begun or not saved.exists()):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1))
            child.kill()
            assert child.wait() == -9, "it ended before it was killed; make the run longer"
    said = trained(tmp_path / "cut", people, **plan)
    assert "resumed at step" in said and "warning" not in log.read_text() + said
    whole, cut = (
        load_tensors(tmp_path / name / "last.safetensors")[0] for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []
    assert figures(tmp_path / "whole") == figures(tmp_path / "cut")


def steps_shown(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("step ")]


@pytest.mark.parametrize("steps", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_two_processes_have_the_curve_of_one(people, tmp_path, steps):
    """In double precision: in single the rounding of a sum's order grows beyond it (docs)."""
    plan = {"samples": 8 * steps, "precision": "64-true", "checkpoint_every": 1e9}
    trained(tmp_path / "one", people, **plan)
    options = ("--devices", "2", "--accelerator", "cpu")
    said = trained(tmp_path / "two", people, *options, **plan)
    assert said.count("best weights") == 1  # one process speaks
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert one.keys() == two.keys() and len(one["loss"]) == steps
    for name in ("loss", "grad_norm", "lr", "val/coco"):
        apart = [abs(one[name][step] - two[name][step]) for step in one[name]]
        assert max(apart) < 1e-5, name
    assert one["loss"][steps] < 0.9 * one["loss"][1]


def test_a_batch_that_cannot_be_shared_is_refused(people, tmp_path):
    done = subprocess.run(
        command(tmp_path / "r", people, "--devices", "2", "--accelerator", "cpu",
                samples=8, batch=7),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "cannot be shared by 2 processes" in done.stderr


def test_torchrun_starts_the_processes_too(people, tmp_path):
    torchrun = Path(sys.executable).with_name("torchrun")
    plan = {"samples": 8 * 5, "precision": "64-true"}
    trained(tmp_path / "one", people, **plan)
    ours = command(tmp_path / "two", people, "--devices", "2", "--accelerator", "cpu", **plan)
    port = str(29500 + os.getpid() % 1000)
    done = subprocess.run(
        [torchrun, "--nproc-per-node", "2", "--master-port", port, *ours],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert max(abs(one["loss"][s] - two["loss"][s]) for s in range(1, 6)) < 1e-5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's mallopt")
def test_freed_memory_is_not_fetched_from_the_kernel_again():
    """Pages that the kernel hands out, of ten times the same 128 MB, before and after.

    After, in the last of five passes: it takes one or two until the heap has its places.
    """
    code = """
import resource, torch
from humanpose.train.distributed import keep_memory
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(32 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
usual = pages()
print(keep_memory(), usual, [pages() for _ in range(5)][-1])
"""
    call = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told, usual, kept = call.stdout.split()
    if told == "False":
        pytest.skip("no glibc")
    assert int(kept) * 10 < int(usual)
