"""Builds of packs that are killed, run out of disk, or meet bad input."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_pack import make_sets

from humanpose.data.pack import Pack
from humanpose.lab.packing import PackRecipe, plan


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[str]:
    return make_sets(tmp_path_factory.mktemp("sets"), 12)


def command(recipe: Path, output: Path, *more: str) -> list[str]:
    build = ["data", "build", str(recipe), "-o", str(output), "--workers", "1", *more]
    return [sys.executable, "-m", "humanpose.cli.main", *build]


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Path, Path]:
    """A recipe of some 30 MB, and what an undisturbed build makes of it."""
    folder = tmp_path_factory.mktemp("large")
    recipe = folder / "r.yaml"
    recipe.write_text(json.dumps({"data": make_sets(folder, 48), "raw": True}))
    subprocess.run(command(recipe, folder / "whole.h5"), check=True, capture_output=True)
    return recipe, folder / "whole.h5"


def kill_and_go_on(recipe: Path, whole: Path, output: Path, kills: int) -> None:
    seed = int(os.environ.get("HUMANPOSE_TEST_SEED", time.time_ns() % 100_000))
    print(f"HUMANPOSE_TEST_SEED={seed}")
    rng = random.Random(seed)
    part = output.with_name(f"{output.name}.part")
    killed, moments = 0, []
    while killed < kills:
        child = subprocess.Popen(
            command(recipe, output, "--force"),
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        moment = rng.uniform(size_of(part), whole.stat().st_size)  # once it has grown by so much
        while child.poll() is None and size_of(part) <= moment:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        if child.poll() is None:
            killed += 1
            moments.append(round(moment / whole.stat().st_size, 2))
            if rng.random() < 0.3:
                child.kill()  # the writer lives on for a moment
            else:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            assert not output.exists() or output.read_bytes() == whole.read_bytes()
        else:
            assert child.returncode == 0, child.stderr.read().decode()
            assert output.read_bytes() == whole.read_bytes()
            output.unlink()
        child.stderr.close()
        if rng.random() < 0.2:  # what a power cut may do
            wait_for_the_end_of(child.pid)
            if size_of(part):
                content = bytearray(part.read_bytes())
                content[len(content) // 2] ^= 0xFF
                part.write_bytes(content)
    print("killed at", moments)
    done = subprocess.run(command(recipe, output, "--force"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole.read_bytes()
    assert Pack(output).damaged() == [] and not part.exists()


def size_of(path: Path) -> int:
    """Bytes of a file that may come and go; 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_for_the_end_of(group: int) -> None:
    """A writer whose parent was killed alone lives on for a moment: less than two seconds."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def test_a_killed_build_goes_on_and_ends_the_same(large, tmp_path):
    kill_and_go_on(*large, tmp_path / "p.h5", kills=5)


@pytest.mark.slow
def test_twenty_kills(large, tmp_path):
    kill_and_go_on(*large, tmp_path / "p.h5", kills=20)


def test_an_unfinished_build_is_taken_up(large, tmp_path):
    """The second build must read what is there, not make it again."""
    recipe, whole = large
    content = whole.read_bytes()
    (tmp_path / "p.h5.part").write_bytes(content[: len(content) * 2 // 3])
    done = subprocess.run(command(recipe, tmp_path / "p.h5"), capture_output=True, text=True)
    assert done.returncode == 0 and "went on after" in done.stdout
    assert (tmp_path / "p.h5").read_bytes() == content
    (tmp_path / "q.h5.part").write_bytes(content)  # stopped before it was renamed
    done = subprocess.run(command(recipe, tmp_path / "q.h5"), capture_output=True, text=True)
    assert "went on after 144 persons" in done.stdout
    other = command(recipe, tmp_path / "r.h5", "--set", "seed=1")
    (tmp_path / "r.h5.part").write_bytes(content[: len(content) // 2])
    done = subprocess.run(other, capture_output=True, text=True)
    assert done.returncode == 0 and "went on" not in done.stdout


def test_a_full_disk_is_one_line_and_the_old_file_stays(large, tmp_path):
    recipe, whole = large
    output = tmp_path / "p.h5"
    output.write_bytes(b"what was there")

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12 << 20, 12 << 20))

    done = subprocess.run(
        command(recipe, output, "--force"), capture_output=True, text=True, preexec_fn=little
    )
    assert done.returncode == 74 and done.stderr.count("\n") == 1, done.stderr
    assert "p.h5: the disk is full" in done.stderr
    assert output.read_bytes() == b"what was there"
    done = subprocess.run(command(recipe, output, "--force"), capture_output=True, text=True)
    assert "went on after" in done.stdout and output.read_bytes() == whole.read_bytes()


def test_two_builds_do_not_write_one_file(large, tmp_path):
    recipe, whole = large
    first = subprocess.Popen(command(recipe, tmp_path / "p.h5"), stdout=subprocess.DEVNULL)
    second = subprocess.run(command(recipe, tmp_path / "p.h5"), capture_output=True, text=True)
    ends = {first.wait(), second.returncode}
    assert 0 in ends and ends <= {0, 74} and second.stderr.count("\n") <= 1
    assert (tmp_path / "p.h5").read_bytes() == whole.read_bytes()


def test_errors_are_one_line_each(cli, sets, tmp_path):
    folder = tmp_path / "coco"
    shutil.copytree(sets[0].partition("=")[2], folder)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"data: ['coco={folder}']\n")
    (folder / "images" / "a" / "2.jpg").write_bytes(b"not a picture")
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "p.h5", "-q")
    assert code == 2 and "images/a/2.jpg" in err and err.count("\n") == 1
    assert (
        cli("data", "build", recipe, "-o", tmp_path / "p.h5", "--set", "leave_out=[2.jpg]")[0] == 0
    )
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "p.h5")
    assert code == 74 and "--force" in err
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "q.h5", "--set", "boks=3")
    assert code == 2 and "boks" in err
    shares = "split={train: 0.5, validation: 0.1}"
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "q.h5", "--set", shares)
    assert code == 2 and "sum up to 1" in err
    assert not (tmp_path / "q.h5").exists()


def test_people_without_a_box_or_a_joint_are_left_out(sets, tmp_path):
    entries = json.loads((Path(sets[1].partition("=")[2]) / "annot" / "train.json").read_text())
    entries[0] |= {"joints_vis": [0] * 16, "center": [-1, -1], "scale": -1}
    entries[1] |= {"joints_vis": [0] * 16}  # a box about its centre, as of MPII's test part
    (tmp_path / "train.json").write_text(json.dumps(entries))
    made, left_out = plan(PackRecipe(data=[f"mpii={tmp_path / 'train.json'}"]))
    assert left_out == 2 and len(made.rows) == len(entries) - 2
