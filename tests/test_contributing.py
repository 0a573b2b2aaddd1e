"""The patches of CONTRIBUTING.md apply, touch two files each, and what they add works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PATCHES = dict(re.findall(r"### Add an? ([\w ]+)\n.*?```diff\n(.*?)```", TEXT, re.S))

NETWORK = """
import numpy as np, torch
from humanpose import nets
from humanpose.nets.torch_runtime import TorchRuntime
options = {"joints": 16}
net = nets.create("tiny", **options)
spec = net.spec("toy", "tiny", options, None)
maps = TorchRuntime(net, spec).run(np.zeros((2, 256, 256, 3), np.uint8))["maps"]
assert maps.shape == (2, 16, 64, 64) and spec.skeleton.name == "mpii16", (maps.shape, spec)
assert nets.macs("tiny", (256, 256), **options) > 1e6
"""
SCORE = """
import numpy as np
from pathlib import Path
from humanpose.evaluate.predictions import Matched
from humanpose.evaluate.scores import Comparison, Rules, Truth
from humanpose.skeleton import COCO17
from humanpose.types import Sample
joints = np.arange(34, dtype=np.float32).reshape(17, 2)
box, seen = np.array([0, 0, 40, 40], np.float32), np.full(17, 2, np.uint8)
sample = Sample(Path("a.jpg"), joints, seen, box, 900.0, "validation", ("coco", "1"), COCO17)
found = Matched(joints[None] + (3, 4), np.ones(1, np.float32), np.ones(17, bool), 1, "boxes")
*_, score = Comparison(found, Truth.of([sample]), Rules(scores=("median",))).scores
assert score.rule == "median error, px" and abs(score.value - 5) < 1e-6, score
"""
RUN = """
import sys
from humanpose.cli.main import main
sys.argv = ["humanpose", "predict", "noise:96x64", "--frames", "3", "--save", "counts",
            "--detector", "none", "--min-box", "8", "-o", "out"]
main()
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory) -> Path:
    """A copy of the package with every patch applied."""
    folder = tmp_path_factory.mktemp("patched")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for patch in PATCHES.values():
        subprocess.run(["git", "apply", "-"], cwd=folder, input=patch, text=True, check=True)
    return folder


def run(folder: Path, code: str) -> None:
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    subprocess.run(command, cwd=folder, env=environment, check=True)


def test_every_patch_touches_two_files():
    assert list(PATCHES) == ["network", "score", "inference option", "source", "record format"]
    for name, patch in PATCHES.items():
        assert len(set(re.findall(r"^\+\+\+ b/(\S+)", patch, re.M))) == 2, name


def test_the_network_is_made_and_run(patched):
    pytest.importorskip("torch")
    run(patched, NETWORK)


def test_the_score_is_computed(patched):
    run(patched, SCORE)


def test_the_source_the_option_and_the_format_are_on_the_command_line(patched):
    run(patched, RUN)
    assert (patched / "out").is_dir()
    (counts,) = (patched / "out").glob("*.counts.txt")
    assert counts.read_text("utf-8") == "1\n1\n1\n"
