"""Builds of packs that are killed, run out of disk, or meet bad input."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from makers.data import make_sets

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
    """A recipe of some 30 MB in 12 shards, and what an undisturbed build makes of it."""
    folder = tmp_path_factory.mktemp("large")
    recipe = folder / "r.yaml"
    recipe.write_text(json.dumps({"data": make_sets(folder, 48), "raw": True, "shard": 12}))
    whole = folder / "whole" / "p.json"
    subprocess.run(command(recipe, whole), check=True, capture_output=True)
    return recipe, whole


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file of the pack that is alone in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kill_and_go_on(recipe: Path, whole: Path, output: Path, kills: int) -> None:
    seed = int(os.environ.get("HUMANPOSE_TEST_SEED", time.time_ns() % 100_000))
    print(f"HUMANPOSE_TEST_SEED={seed}")
    rng = random.Random(seed)
    want = content_of(whole.parent)
    size = sum(map(len, want.values()))
    killed, moments = 0, []
    while killed < kills:
        child = subprocess.Popen(
            command(recipe, output, "--force"),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        moment = rng.uniform(size_of(output.parent), size)  # once it has grown by so much
        while child.poll() is None and size_of(output.parent) <= moment:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        if child.poll() is None:
            killed += 1
            moments.append(round(moment / size, 2))
            child.kill()
            child.wait()
        else:
            assert child.returncode == 0, child.stderr.read().decode()
        child.stderr.close()
        if output.exists():
            assert want.items() <= content_of(output.parent).items()
            for path in output.parent.iterdir():
                path.unlink()
        files = sorted(path for path in output.parent.iterdir() if size_of(path))
        if files and rng.random() < 0.2:  # what a power cut may do
            path = rng.choice(files)
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(content)
    print("killed at", moments)
    done = subprocess.run(command(recipe, output, "--force"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert content_of(output.parent) == want
    assert Pack(output).damaged() == []


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder, that may come and go; 0 if not there."""
    try:
        return sum(map(size_of, path.iterdir())) if path.is_dir() else path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_killed_build_goes_on_and_ends_the_same(large, tmp_path):
    kill_and_go_on(*large, tmp_path / "p.json", kills=5)


@pytest.mark.slow
def test_twenty_kills(large, tmp_path):
    kill_and_go_on(*large, tmp_path / "p.json", kills=20)


def unfinished(whole: Path, folder: Path, shards: int) -> int:
    """Put into `folder` what a build leaves that was killed after so many shards; its persons."""
    index = json.loads(whole.read_text())["shards"][:shards]
    digest = index[0]["name"].split("-")[1]
    for shard in index:
        shutil.copy(whole.parent / shard["name"], folder)
    lines = [plan_digest(whole), *map(json.dumps, index), '{"name": "torn']
    assert lines[0].startswith(digest)
    (folder / "p.json.part").write_text("\n".join(lines))
    return sum(shard["persons"] for shard in index)


def plan_digest(whole: Path) -> str:
    recipe = PackRecipe.model_validate(json.loads((whole.parent.parent / "r.yaml").read_text()))
    return plan(recipe)[0].digest


def test_an_unfinished_build_is_taken_up(large, tmp_path):
    """The second build must keep the shards that are there, not make them again."""
    recipe, whole = large
    kept = unfinished(whole, tmp_path, 8)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.h5")}
    done = subprocess.run(command(recipe, tmp_path / "p.json"), capture_output=True, text=True)
    assert done.returncode == 0 and f"went on after {kept} persons" in done.stdout
    assert content_of(tmp_path) == content_of(whole.parent)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in times} == times

    folder = tmp_path / "stopped before the index was written"
    folder.mkdir()
    unfinished(whole, folder, 99)
    done = subprocess.run(command(recipe, folder / "p.json"), capture_output=True, text=True)
    assert "went on after 144 persons" in done.stdout
    assert content_of(folder) == content_of(whole.parent)

    folder = tmp_path / "of another recipe"
    folder.mkdir()
    unfinished(whole, folder, 8)
    other = command(recipe, folder / "p.json", "--set", "seed=1")
    done = subprocess.run(other, capture_output=True, text=True)
    assert done.returncode == 0 and "went on" not in done.stdout
    pack = Pack(folder / "p.json")
    assert {path.name for path in folder.iterdir()} == {"p.json", *pack.shards}


def test_a_full_disk_is_one_line_and_the_old_pack_stays(large, tmp_path):
    recipe, whole = large
    output = tmp_path / "p.json"
    assert subprocess.run(command(recipe, output, "--set", "seed=1")).returncode == 0
    old = content_of(tmp_path)
    sizes = [(whole.parent / name).stat().st_size for name in Pack(whole).shards]
    assert sizes[0] < max(sizes)

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) - 1, max(sizes) - 1))

    done = subprocess.run(
        command(recipe, output, "--force"), capture_output=True, text=True, preexec_fn=little
    )
    assert done.returncode == 74 and done.stderr.count("\n") == 1, done.stderr
    assert "h5: the disk is full" in done.stderr
    assert old.items() <= content_of(tmp_path).items() and len(Pack(output)) == 144
    done = subprocess.run(command(recipe, output, "--force"), capture_output=True, text=True)
    assert "went on after" in done.stdout
    assert content_of(tmp_path) == content_of(whole.parent)


def test_two_builds_do_not_write_one_pack(large, tmp_path):
    recipe, whole = large
    first = subprocess.Popen(command(recipe, tmp_path / "p.json"), stdout=subprocess.DEVNULL)
    second = subprocess.run(command(recipe, tmp_path / "p.json"), capture_output=True, text=True)
    ends = {first.wait(), second.returncode}
    assert 0 in ends and ends <= {0, 74} and second.stderr.count("\n") <= 1
    assert content_of(tmp_path) == content_of(whole.parent)


def test_errors_are_one_line_each(cli, sets, tmp_path):
    folder = tmp_path / "coco"
    shutil.copytree(sets[0].partition("=")[2], folder)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"data: ['coco={folder}']\n")
    (folder / "images" / "a" / "2.jpg").write_bytes(b"not a picture")
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "p.json", "-q")
    assert code == 2 and "images/a/2.jpg" in err and err.count("\n") == 1
    assert (
        cli("data", "build", recipe, "-o", tmp_path / "p.json", "--set", "leave_out=[2.jpg]")[0]
        == 0
    )
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "p.json")
    assert code == 74 and "--force" in err
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "q.json", "--set", "boks=3")
    assert code == 2 and "boks" in err
    shares = "split={train: 0.5, validation: 0.1}"
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "q.json", "--set", shares)
    assert code == 2 and "sum up to 1" in err
    code, _, err = cli("data", "build", recipe, "-o", tmp_path / "q.h5")
    assert code == 74 and "ends in .json" in err and err.count("\n") == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("q")]


def test_people_without_a_box_or_a_joint_are_left_out(sets, tmp_path):
    entries = json.loads((Path(sets[1].partition("=")[2]) / "annot" / "train.json").read_text())
    entries[0] |= {"joints_vis": [0] * 16, "center": [-1, -1], "scale": -1}
    entries[1] |= {"joints_vis": [0] * 16}  # a box about its centre, as of MPII's test part
    (tmp_path / "train.json").write_text(json.dumps(entries))
    made, left_out = plan(PackRecipe(data=[f"mpii={tmp_path / 'train.json'}"]))
    assert left_out == 2 and len(made.rows) == len(entries) - 2
