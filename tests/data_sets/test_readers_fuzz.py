"""Damaged .mat and .h5 files: the process lives, and each is refused within 10 s of computing.

Ten thousand child processes would take hours. Here the readers themselves run in one worker,
with `sandbox.parse` calling the parser in place; a file on which the worker dies, hangs or
takes long goes through `read` with its own child, as every file of a user does, and so does a
sample of the others.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from makers.data import (
    hrnet_entry,
    write_detections,
    write_flic,
    write_h5,
    write_hrnet,
    write_lsp,
    write_release,
)
from scipy.io import loadmat, savemat

from humanpose import sandbox
from humanpose.data.readers import read
from humanpose.errors import FormatError, HumanPoseError

LIMIT_S = 10.0
SLOW_S = 4.0


def write_seeds(folder: Path) -> dict[str, tuple[str, Path, Path]]:
    """A small valid file of every kind: name -> (data set, path to read, file to damage)."""
    for name in ("release", "detections", "truth", "lspet/images", "flic", "h5", "chunks"):
        (folder / name).mkdir(parents=True)
    release = write_release(folder / "release")
    write_flic(folder / "flic")
    flic = folder / "flic" / "examples.mat"
    detections = folder / "detections" / "detections.mat"
    write_detections(detections, ((8, 1), (7, 1)))
    annot = write_hrnet(folder / "truth", valid=[hrnet_entry()])
    truth = {"pos_gt_src": np.ones((16, 2, 1)), "jnt_missing": np.zeros((16, 1))}
    savemat(annot / "gt_valid.mat", truth | {"headboxes_src": np.ones((2, 2, 1))})
    write_lsp(folder / "lsp")
    lsp, lspet = folder / "lsp" / "joints.mat", folder / "lspet" / "joints.mat"
    savemat(lspet, {"joints": np.ones((14, 3, 5))})
    plain, chunks = folder / "h5" / "valid.h5", folder / "chunks" / "valid.h5"
    write_h5(plain)
    write_h5(chunks, part=None)
    with h5py.File(chunks, "a") as file:
        part = np.ones((2, 16, 2))
        file.create_dataset("part", data=part, chunks=(1, 16, 2), compression="gzip", shuffle=True)
    crops = folder / "crops" / "mpii_lsp_val.h5"
    write_2018(crops)
    seeds = {
        "2018": ("hdf5_2018", crops, crops),
        "truth": ("mpii", annot / "valid.json", annot / "gt_valid.mat"),
        "release": ("mpii", release, release),
        "detections": ("mpii", detections, detections),
        "lsp": ("lsp", lsp, lsp),
        "lspet": ("lspet", lspet, lspet),
        "flic": ("flic", flic, flic),
        "h5": ("mpii", plain, plain),
        "h5, packed": ("mpii", chunks, chunks),
    }
    for name in ("release", "flic"):  # as they are distributed: compressed
        data_set, file, _ = seeds[name]
        packed = folder / f"{name}-packed" / file.name
        packed.parent.mkdir()
        content = {k: v for k, v in loadmat(file).items() if not k.startswith("__")}
        savemat(packed, content, do_compression=True)
        seeds[f"{name}, packed"] = (data_set, packed, packed)
    return seeds


def write_2018(file: Path) -> None:
    """Two rows in the layout of 2018."""
    fields = [("dataset", "S3"), ("fname", "S13"), ("scale", "f2"), ("center", "u2", 2)]
    labels = np.zeros(2, [*fields, ("joints", "u2", (16, 2)), ("headsize", "f2")])
    labels["dataset"], labels["fname"] = b"mpi", b"a.jpg"
    for name, value in (("scale", 0.5), ("center", 60), ("joints", 80), ("headsize", 40)):
        labels[name] = value
    file.parent.mkdir()
    with h5py.File(file, "w") as out:
        out["labels"], out["images"] = labels, np.zeros((2, 16, 16, 3), np.uint8)


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with bytes changed, a block zeroed, repeated or left out, or its end cut off."""
    data = bytearray(content)
    kind = rng.integers(0, 10)
    start = int(rng.integers(0, len(data)))
    length = int(rng.integers(1, 64))
    if kind == 0:
        del data[start:]
    elif kind == 1:
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif kind == 2:
        data[start:start] = data[start : start + length]
    elif kind == 3:
        del data[start : start + length]
    else:  # most: few bytes, often to an extreme value, as length fields fear it
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            extreme = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
            data[place] = extreme if rng.random() < 0.5 else rng.integers(0, 256)
    return bytes(data)


def work() -> None:
    """Read every file named on stdin; say "read", "refused" or what else came out."""

    def parse(parser, path, *, memory=0, timeout=0.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they end with the child
            try:
                return parser(str(path))
            except BaseException as error:
                raise FormatError(f"{path}: {error}") from error

    sandbox.parse = parse
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    for line in sys.stdin:
        name, path, damaged = line.rstrip("\n").split("\t")
        try:
            read(name, Path(path))
            said = "read"
        except HumanPoseError as error:
            said = "refused" if damaged in str(error) else f"unnamed: {error}"
        except Exception as error:
            said = f"escaped: {type(error).__name__}: {error}"
        sys.stdout.write(said.replace("\n", " ") + "\n")
        sys.stdout.flush()


class Worker:
    """The process of `work`, started again when it dies."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, name: str, path: Path, damaged: Path) -> tuple[str, float]:
        """What came out of reading a set, and the seconds it took."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self.answers: queue.Queue[str] = queue.Queue()
            threading.Thread(
                target=self._listen, args=(self.process, self.answers), daemon=True
            ).start()
        start = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{name}\t{path}\t{damaged.name}\n")
            self.process.stdin.flush()
        try:
            said = self.answers.get(timeout=LIMIT_S + 20)  # a new worker imports SciPy first
        except queue.Empty:
            said = "hung"
        if said in ("died", "hung"):
            self.close()
        return said, time.monotonic() - start

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        for line in process.stdout:
            answers.put(line.rstrip("\n"))
        answers.put("died")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def through_child(name: str, path: Path, damaged: Path) -> tuple[str, float]:
    """What `read` makes of a set, and the seconds of computing that its child took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        read(name, path)
        said = "read"
    except HumanPoseError as error:
        assert damaged.name in str(error) and "\n" not in str(error)
        said = "refused"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "number",
    [50, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])],
)
def test_mutated_files_are_read_or_refused(tmp_path, number):
    seeds = write_seeds(tmp_path)
    contents = {name: file.read_bytes() for name, (_, _, file) in seeds.items()}
    rng = np.random.default_rng(number)
    worker, outcomes, odd, longest = Worker(), Counter(), Counter(), 0.0
    try:
        for name, seed in seeds.items():
            assert worker.ask(*seed)[0] == "read", name
        for i in range(number):
            name = sorted(seeds)[i % len(seeds)]
            seeds[name][2].write_bytes(mutate(contents[name], rng))
            said, seconds = worker.ask(*seeds[name])
            outcomes[name, said.split(":")[0]] += 1
            odd[said] += said.split(":")[0] in ("escaped", "unnamed")
            if said in ("died", "hung") or seconds > SLOW_S or i % 50 == 0:
                said, seconds = through_child(*seeds[name])
                outcomes["through its child", said] += 1
                longest = max(longest, seconds)
    finally:
        worker.close()
    for key, count in sorted(outcomes.items()):
        print(*key, count)
    print(f"longest child: {longest:.1f} s of computing")
    assert not +odd
    assert longest < LIMIT_S


if __name__ == "__main__":
    work()
