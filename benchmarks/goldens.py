"""Record what humanpose computes, and compare two recordings: a guard for refactorings.

    PYTHONPATH=OLD/src python benchmarks/goldens.py record old --data DATA
    PYTHONPATH=NEW/src python benchmarks/goldens.py record new --data DATA [--only videos,training]
    python benchmarks/goldens.py compare old new [--only videos,training]

DATA holds coco/, lspet/, mpii/, mpii_small/ and videos/; PYTHONPATH decides which humanpose is
recorded. Only stable things are used: `PoseEstimator(model, precision=, runtime=, cache=)`,
`nets.create`, the commands with the options written below, and the files they write. A call that
fails is recorded as failed; the others go on. `compare` exits with 1 on a difference.

A part is one file, PART.npz. The end of an array's name says by how much it may differ: words,
exact: not at all; note: a change is told only; px: 1e-3 pixels; score: 1e-5; loss: 1e-5 of it;
figure: 1e-6 plus 1e-6 of it; grey: 0.1 levels, of pictures at an eighth of their size; flat: 0.1
pixels, of networks trained for seconds, whose maps are flat; printed: one number in 1,000 by one
unit of its last decimal (rounding). Recorded twice, only "flat" differs (by 0.005). INT8 depends
on the number of crops that a network is compiled for: if INT8 alone differs, look there first.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from safetensors.numpy import load_file

from humanpose import PoseEstimator, nets

# Names that changed when the command moved.
MOVED = find_spec("humanpose.cli") is not None
COMMAND = f"from humanpose.{'cli.main' if MOVED else 'apps.cli'} import main; main()"
SMOOTHING, PACK = ("--smoothing", "small.json") if MOVED else ("--smooth", "small.h5")
MODELS = ("fast", "balanced", "accurate")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
# (absolute, relative) tolerance of a kind of array
TOLERANCES = {"px": (1e-3, 0), "score": (1e-5, 0), "figure": (1e-6, 1e-6), "loss": (0, 1e-5),
              "grey": (0.1, 0), "flat": (0.1, 0)}  # fmt: skip
SMALL = "mpii=$HUMANPOSE_DATA/mpii_small"
FOREIGN = {"hrnet": "hrnet-w32", "simplebaseline": "resnet50", "hourglass": "hourglass1"}
COMMON = """{data: [mpii=$HUMANPOSE_DATA/mpii_small], persons: 48, batch: 4, seed: 1, lr: 1.e-3,
  warmup: 2, precision: 32-true, workers: 0, threads: 1, log_every: 1, loggers: [csv], augment:
  {scale: [0.7, 1.4], rotation: 60, flip: 0.5, half_body: 0.3, degrade: 0.3, occlude: 0.3}}"""
RECIPES = """
lite: {task: pose, net: lite, skeleton: body19, input: [128, 128], samples: 240, batch: 8,
  backbone_lr: 5.e-4, validate_every: 120, data: [coco, mpii=$HUMANPOSE_DATA/mpii_small]}
person: {task: person, net: person, input: [160, 160], mosaic: 0.5, empty: 0.2, samples: 40}
cpm: {task: pose, net: cpm-vgg-slim, options: {stages: 2}, input: [96, 96], targets: cpm,
  loss: cpm, optimizer: sgd, schedule: step, drops: [16], samples: 32}
hrnet: {task: pose, net: hrnet-w32, options: {width: 8}, input: [64, 96], targets: hrnet,
  loss: mse, sigma: 2.0, hardest: 8, optimizer: adam, samples: 32}
"""


class Recorder:
    """The values of one part by name, the real data, and a scratch folder."""

    def __init__(self, data: Path, scratch: Path) -> None:
        self.data, self.scratch, self.values = data, scratch, dict[str, Any]()

    @contextmanager
    def item(self, name: str) -> Iterator[dict[str, Any]]:
        """A dictionary to fill with "NAME.KIND" values; an exception becomes its "failed.words"."""
        found: dict[str, Any] = {}
        try:
            yield found
        except Exception as error:
            found["failed.words"] = f"{type(error).__name__}: {error}".split()
            print(f"  {name} failed: {error}", flush=True)
        self.values |= {f"{name}/{key}": np.asarray(value) for key, value in found.items()}

    def text(self, name: str, text: str, kind: str = "words") -> dict[str, Any]:
        """The numbers of `text` and the words between them, without the names of folders."""
        text = text.replace(str(self.scratch), "").replace(str(self.data), "")
        text = re.sub('"info":.*?"categories"', "", text, flags=re.S)  # header of the COCO form
        numbers = NUMBER.findall(text)
        return {f"{name}.{kind}": NUMBER.sub("#", text).split(), f"{name}.printed": numbers}

    def command(self, *args: object) -> str:
        """Standard output of `humanpose ARGS...`, run in a process of its own."""
        words = [sys.executable, "-c", COMMAND, *map(str, args)]
        places = {"XDG_CACHE_HOME": str(self.scratch), "HUMANPOSE_DATA": str(self.data)}
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | places)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def photos(self, count: int) -> list[Path]:
        """`count` pictures from each of COCO, LSPET and MPII, evenly spread over their names."""
        sets = ("coco", "lspet", "mpii_small")
        names = [sorted(self.data.glob(f"{each}/images/*.jpg")) for each in sets]
        return [each[i * len(each) // count] for each in names for i in range(count)]


def people_of(frames: Iterable[Any], name: str = "") -> dict[str, Any]:
    """Values of the people of frames; `name` is of a network trained for seconds."""
    groups = [frame.people for frame in frames]
    people = [person for group in groups for person in group]
    return {
        f"{name}people.exact": [len(group) for group in groups],
        f"{name}joints.{'flat' if name else 'px'}": np.array([p.joints for p in people]),
        f"{name}boxes.px": np.array([p.box for p in people]),
        f"{name}joints.score": np.array([p.scores for p in people]),
        f"{name}people.score": np.array([p.score for p in people]),
    }


def pictures(r: Recorder) -> None:
    """60 pictures by the API: three models, two precisions; a few by ONNX Runtime."""
    cases = [(m, p, "openvino", 20) for m in MODELS for p in ("float32", "int8")]
    for model, precision, runtime, count in [*cases, ("balanced", "float32", "onnxruntime", 4)]:
        with r.item(f"{model} {precision} {runtime}") as found:
            estimator = PoseEstimator(model, precision=precision, runtime=runtime, cache="")
            found |= people_of(map(estimator, r.photos(count)))


def records(r: Recorder, folder: Path) -> dict[str, Any]:
    """All that `predict` wrote to `folder`: numbers and words, drawn pictures as grey levels."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".jpg":
            found[f"{path.name}.grey"] = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_8)
        elif path.suffix == ".jsonl":
            frames: list[Any] = []  # without header, footer and keys that may be added
            for line in map(json.loads, path.read_text().splitlines()):
                if isinstance(people := line.get("people"), list):
                    frames.append([line[k] for k in ("name", "index", "time", "width", "height")])
                    frames += [[p[k] for k in ("box", "score", "track", "joints")] for p in people]
            found |= r.text(path.name, json.dumps(frames))
        else:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            found |= r.text(path.name, "\n".join(file.read_text() for file in files))
    return found


def videos(r: Recorder) -> None:
    """The command on two videos and on pictures, in every record format; one stream by the API."""
    dance, walkers = r.data / "videos" / "dance.mp4", r.data / "videos" / "walkers.mp4"
    both, texts = (dance, walkers, "--frames", 200), "jsonl,csv,json,coco,openpose,trc"
    cases: dict[str, tuple[str, tuple[object, ...]]] = {
        "dance": (texts, (dance, "--precision", "float32")),
        "walkers": (texts, (walkers, "--frames", 200, "--precision", "float32")),
        "int8": ("jsonl", (*both, "--precision", "int8")),
        "rts": ("jsonl,csv,trc", (*both, "--precision", "float32", SMOOTHING, "rts")),
        "detect-every": ("jsonl", (*both, "--precision", "float32", "--detect-every", 5)),
        "pictures": (f"image,{texts.removesuffix(',trc')}", (*r.photos(4), "--precision", "int8")),
    }
    for name, (save, args) in cases.items():
        with r.item(name) as found:
            r.command("predict", *args, "--save", save, "-q", "-o", r.scratch / name)
            found |= records(r, r.scratch / name)
    with r.item("stream") as found:  # not rounded
        estimator = PoseEstimator("fast", precision="float32", runtime="openvino", cache="")
        found |= people_of(estimator.stream(dance))


def evaluate(r: Recorder) -> None:
    """Scores of published predictions and of networks on whole validation parts."""
    names = ("newell.h5", "tompson.h5", "bearpaw-hg_s2_b1.mat")
    published = [r.data / "mpii" / name for name in names]
    scores = [a for s in ("pckh", "pck-torso", "pck-box", "pcp", "oks") for a in ("--score", s)]
    own, plan, pack = r.scratch / "own", r.scratch / "pack.yaml", r.scratch / PACK
    plan.write_text(yaml.safe_dump({"data": [SMALL], "box": [192, 256]}))
    held = [p for p in sorted((r.data / "coco" / "images").iterdir()) if int(p.stem) % 11 == 0]
    with r.item("made here"):
        r.command("predict", *held, "--precision", "float32", "--save", "jsonl,coco", "-o", own)
        r.command("data", "build", plan, "-q", "-o", pack)
    cases: dict[str, tuple[object, ...]] = {
        "published": (*published, "--against", "mpii", *scores),
        "hrnet": (*published, "--against", "mpii", "--convention", "hrnet"),
        "pytorch-pose": (*published, "--against", "mpii", "--convention", "pytorch-pose"),
        "networks": (*MODELS, "--against", SMALL),
        "int8": ("balanced", "--against", SMALL, "--precision", "int8"),
        "balanced": ("balanced", "--against", "coco", "--against", "lspet"),
        "person": ("person", "--against", "coco"),
        "own jsonl": (own / "pictures.jsonl", "--against", "coco", "--score", "ap"),
        "own coco": (own / "pictures.coco.json", "--against", "coco", "--score", "ap"),
        "pack": ("fast", "--against", f"pack={pack}"),
    }
    for name, args in cases.items():
        with r.item(name) as found:
            report = r.scratch / f"report {name}"
            found |= r.text("stdout", r.command("evaluate", *args, "-q", "-o", report), "note")
            content = json.loads((report / "scores.json").read_text())
            figures = json.dumps([content["scores"], content["details"]]).replace("null", "-1e9")
            found["json.figure"] = np.array(NUMBER.findall(figures), float)


def training(r: Recorder) -> None:
    """Losses and scores of short trainings; the pose networks by torch, and exported."""
    for name, recipe in yaml.safe_load(RECIPES).items():
        with r.item(name) as found:
            file, folder = r.scratch / f"{name}.yaml", r.scratch / name
            file.write_text(yaml.safe_dump({"name": name} | yaml.safe_load(COMMON) | recipe))
            r.command("train", file, "-o", folder, "--accelerator", "cpu")
            (log,) = folder.glob("*.csv")
            rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
            for key in sorted({row[1] for row in rows} - {"samples_per_s", "data_wait"}):
                found[f"{key}.loss"] = [float(row[2]) for row in rows if row[1] == key]
            paths = folder / "best.safetensors", folder / "best.onnx"
            r.command("export", paths[0], "-o", paths[1])
            for path in paths if recipe["task"] == "pose" else ():
                estimator = PoseEstimator(path, precision="float32", cache="")
                found |= people_of(map(estimator, r.photos(2)), f"{path.suffix[1:]} ")


def imports(r: Recorder) -> None:
    """Tensors of files of other projects, made here with weights that their names decide."""
    for kind, net in FOREIGN.items():
        with r.item(kind) as found:
            source, weights = r.scratch / f"{kind}.pth", r.scratch / f"{kind}.safetensors"
            state = {}
            for key, own in nets.create(net).state_dict().items():
                values = np.random.default_rng(list(key.encode())).random(tuple(own.shape))
                state[f"module.{key}"] = torch.tensor(values, dtype=own.dtype)
            torch.save({"state_dict": state}, source)
            r.command("import", kind, source, "--net", net, "-o", weights)
            tensors = sorted(load_file(weights).items())
            found["tensors.words"] = [f"{n} {zlib.crc32(v.tobytes())}" for n, v in tensors]


PARTS = {part.__name__: part for part in (pictures, videos, evaluate, training, imports)}


def difference(kind: str, a: Any, b: Any) -> str:
    """What is wrong with the array `b` that once was `a`; "" if nothing is."""
    was, now = (getattr(each, "shape", "absent") for each in (a, b))
    if was != now:
        return f"shape was {was}, is {now}: {b}"
    if kind in ("words", "note"):
        bad, largest = a != b, ""
    else:
        x, y = a.astype(float), b.astype(float)
        gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0, abs(x - y))
        absolute, relative = TOLERANCES.get(kind, (0, 0))
        allowed = absolute + relative * np.abs(np.nan_to_num(x))
        if kind == "printed" and np.count_nonzero(gap) <= len(a) / 1000:
            ends = [max(len(n.partition(".")[2]) for n in pair) for pair in zip(a, b, strict=True)]
            allowed = np.array([1.01 * 0.1**n if n else 0 for n in ends])
        bad, largest = ~(gap <= allowed), f"by up to {gap.max(initial=0):.2g}, "
    if not (where := [tuple(row) for row in np.argwhere(bad).tolist()]):
        return ""
    was, now = (str(each[where[0]])[:100] for each in (a, b))
    return f"{len(where)} of {a.size}, {largest}first {where[0]}: was {was}, is {now}"


def compare(old: Path, new: Path, only: list[str]) -> int:
    """Print a line for each difference and each part; how many differences there are."""
    wrong = dict.fromkeys(only, 0)
    for part in only:
        before, after = (dict(np.load(folder / f"{part}.npz")) for folder in (old, new))
        for key in before | after:
            kind = key.rpartition(".")[2]
            if problem := difference(kind, before.get(key), after.get(key)):
                wrong[part] += kind != "note"
                word = "reworded" if kind == "note" else "DIFFERS"
                print(f"  {word:8} {part}/{key}: {problem[:600]}")
        print(f"{part:10}{len(before):5} arrays {wrong[part]:5} differ")
    return sum(wrong.values())


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("record", "compare"))
    parser.add_argument("folders", type=Path, nargs="+", help="OUT, or OLD and NEW")
    parser.add_argument("--data", type=Path, help="folder of the real data")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, comma-separated")
    args = parser.parse_args()
    only, (out, *others) = args.only.split(","), args.folders
    if set(only) - set(PARTS) or len(others) != (args.verb == "compare"):
        parser.error(f"record OUT --data DATA, or compare OLD NEW; parts: {', '.join(PARTS)}")
    if others:
        sys.exit(1 if compare(out, *others, only) else 0)
    out.mkdir(parents=True, exist_ok=True)
    for name in only:
        start = os.times()
        with tempfile.TemporaryDirectory() as scratch:
            r = Recorder(args.data.resolve(), Path(scratch))
            PARTS[name](r)
        np.savez_compressed(out / f"{name}.npz", **r.values)
        *cpu, wall = np.subtract(os.times(), start)
        print(f"{name}: {len(r.values)} arrays, {wall:.0f} s, CPU {sum(cpu):.0f} s", flush=True)


if __name__ == "__main__":
    main()
