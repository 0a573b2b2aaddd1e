r"""Put a trained network into the package: ONNX and INT8 with scores inside, and a card.

    python recipes/release.py balanced runs/thunder --tta upright=60 --data lspet --data coco \
      --data mpii=$HUMANPOSE_DATA/mpii_small
    python recipes/release.py person runs/person --data coco --data lspet \
      --marks runs/marks.json --threshold 0.16 --input 256 --float32

Scores the exported float32 network on the whole validation parts, then writes
src/humanpose/weights/NAME.onnx, NAME.int8.onnx (calibrated on the training parts; refused if it
loses more than a point of any score; left out with --float32) and NAME.md. A training goes on from
NAME.onnx with `--set start=NAME`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx

from humanpose.api import load_model
from humanpose.checkpoints.store import load_tensors, load_weights, save_weights
from humanpose.data.detection import pictures_of
from humanpose.data.readers import read
from humanpose.data.sets import data_path, part_of, read_marks
from humanpose.evaluate.run import person_scores, pose_score
from humanpose.export.accuracy_check import Examples
from humanpose.export.onnx import Lower, Parity, export
from humanpose.files import atomic_write
from humanpose.infer.detector import Detector
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import FOLDER
from humanpose.infer.topdown import TopDown
from humanpose.lab.training import network_scores
from humanpose.spec import METADATA_KEY, ModelSpec
from humanpose.types import Score

ROOT = Path(__file__).resolve().parent.parent
LIGHTNING = "MoveNet SinglePose Lightning, Google, Apache-2.0"
THUNDER = "MoveNet SinglePose Thunder, Google, Apache-2.0"
YOLOX = "YOLOX-nano, Megvii, Apache-2.0"
PARTS = {
    "lspet": "LSPET 8501-9000",
    "coco": "COCO image ids divisible by 11",
    "mpii": "official validation persons of MPII",
}
WHERE = {"mpii": "mpii=$HUMANPOSE_DATA/mpii_small"}  # of the others their name says it
DATA = {
    "lspet": "LSPET: Flickr photographs, research use, cite Johnson & Everingham 2011",
    "coco": "COCO: annotations CC BY 4.0, images Flickr, terms per image",
    "mpii": "MPII: annotations Simplified BSD, YouTube frames, cite Andriluka et al. 2014",
}


def licences(spec: ModelSpec) -> dict[str, str]:
    """Of its code, data, weights and start."""
    start = YOLOX
    if spec.net == "lite":
        start = LIGHTNING if spec.options.get("width", 1) == 1 else THUNDER
    return {
        "code": "Apache-2.0",
        "data": "; ".join(DATA[name] for name in spec.data),
        "weights": "trained on research data; check the data's terms before commercial use",
        "start": start,
    }


def score(path: Path, entries: list[str], marks: str | None) -> dict[str, list[Score]]:
    """Scores of an exported network on the validation part of each set."""
    runtime, spec, _ = load_model(path, InferenceOptions(precision="float32", cache=""))
    found = {}
    for name, folder in map(data_path, entries):
        samples = part_of(read(name, folder), "validation", name)
        if spec.task == "person":
            pictures = pictures_of(samples, read_marks(marks))
            found[name] = person_scores(Detector(runtime, spec), pictures)
        else:
            found[name] = [pose_score(TopDown(runtime, spec), samples)]
    return found


def flat(scores: dict[str, list[Score]]) -> dict[str, float]:
    """Rule -> value."""
    return {
        f"{name} {each.rule}": round(each.value, 6)
        for name, rows in scores.items()
        for each in rows
    }


def describe(path: Path, spec: ModelSpec) -> None:
    """Exchange the description inside an ONNX file."""
    model = onnx.load(path)
    entry = next(each for each in model.metadata_props if each.key == METADATA_KEY)
    entry.value = spec.to_json()
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


def input_size(text: str) -> tuple[int, int]:
    """(width, height) from "288x384", or from the side of a square."""
    width, _, height = text.partition("x")
    return int(width), int(height or width)


def card(
    spec: ModelSpec,
    scores: dict[str, list[Score]],
    in_int8: dict[str, float],
    parity: list[Parity],
    made: str,
) -> str:
    """The model card, Markdown."""
    path = FOLDER / f"{spec.name}.onnx"
    size = f"{path.stat().st_size / 1e6:.2f} MB of ONNX with float16 weights"
    if in_int8:
        size += f", {path.with_suffix('.int8.onnx').stat().st_size / 1e6:.2f} MB in INT8"
    options = " --marks runs/marks.json" if spec.task == "person" else " --tta none"
    kind = "detector" if spec.task == "person" else "pose network"
    plain = "" if spec.task == "person" else ", without test-time augmentation"
    lines = [
        f"# {spec.name}",
        "",
        f"A {kind}: `{spec.net}`, input {spec.input[0]}x{spec.input[1]}, {size}.",
        "",
        f"- Recipe: {spec.recipe}; {made}",
        f"- Data: the training parts of {', '.join(spec.data)}",
        *(f"- Licence of {part}: {text}" for part, text in spec.licences.items()),
        "",
        f"Scores on the validation parts ({', '.join(PARTS[name] for name in scores)}){plain}:",
        "",
        "| data | rule | float32, % |" + " INT8, % |" * bool(in_int8),
        "|---|---|---|" + "---|" * bool(in_int8),
    ]
    for name, rows in scores.items():
        for each in rows:
            lines.append(f"| {name} | {each.rule} | {100 * each.value:.1f} |")
            if in_int8:
                lines[-1] += f" {100 * in_int8[f'{name} {each.rule}']:.1f} |"
    lines += ["", "The commands that print them:", "", "```sh"]
    lines += [
        f"humanpose evaluate {spec.name} --data {WHERE.get(name, name)}{options}" for name in scores
    ]
    lines += ["```", ""]
    if spec.tta:
        lines += [
            f"By default it runs with `--tta {spec.tta}`: docs/peers.md has those scores.",
            "",
        ]
    tables = [rows[0] for rows in scores.values() if len(rows[0].joints)]
    if tables:
        lines += ["Per joint:", "", "| joint | " + " | ".join(scores) + " |"]
        lines += ["|---|" + "---|" * len(scores)]
        for joint in spec.skeleton.joints:
            cells = [_cell(table, joint) for table in tables]
            lines.append(f"| {joint} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        "Export, on noise (largest difference of an output as a share of its range):",
        "",
        *(f"- {report.runtime}: {report.largest_value:.1e}" for report in parity),
        "",
    ]
    return "\n".join(lines)


def _cell(table: Score, joint: str) -> str:
    if joint not in table.joints:
        return ""
    row = table.joints.index(joint)
    return f"{100 * table.per_joint[row]:.1f}" if table.count[row] else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("run", type=Path, help="folder of `humanpose train`")
    parser.add_argument("--data", action="append", required=True, metavar="NAME[=PATH]")
    parser.add_argument("--marks")
    parser.add_argument("--threshold", type=float, help="least score of a detector")
    parser.add_argument("--input", type=input_size, help="WIDTHxHEIGHT or side, if not as trained")
    parser.add_argument("--tta", default="", help="its test-time augmentation: ModelSpec.tta")
    parser.add_argument("--detector-size", type=int, default=0, help="ModelSpec.detector_size")
    parser.add_argument("--float32", action="store_true", help="without an INT8 form")
    parser.add_argument("--note", help="what the recipe does not say of this run")
    args = parser.parse_args()
    state, spec = load_weights(args.run / "best.safetensors")
    progress = json.loads(load_tensors(args.run / "last.safetensors")[1]["run"])
    spec = replace(spec, name=args.name, licences=licences(spec))
    if args.note:
        spec = replace(spec, recipe=f"{spec.recipe}; {args.note}")
    if args.threshold is not None:
        spec = replace(spec, threshold=args.threshold)
    if args.input is not None:
        spec = replace(spec, input=args.input)
    # Both forms are made aside: a refused INT8 form must not lie beside a new network.
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "w.safetensors"
        path = Path(folder) / f"{args.name}.onnx"
        small = path.with_suffix(".int8.onnx")
        save_weights(weights, state, spec)
        parity = export(weights, path)
        scores = score(path, args.data, args.marks)
        spec = replace(spec, scores=flat(scores))
        # Only now, so that the scores are without augmentation.
        told = replace(spec, tta=args.tta, detector_size=args.detector_size)
        describe(path, told)
        in_int8 = {}
        if not args.float32:
            export(weights, small, lower=Lower("int8", Examples.read(args.data, network_scores)))
            in_int8 = flat(score(small, args.data, args.marks))
            describe(small, replace(told, scores=in_int8, precision="int8"))
        for made_aside in (path, small):
            there = FOLDER / made_aside.name
            there.unlink(missing_ok=True)
            if made_aside.exists():
                shutil.move(made_aside, there)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    made = f"{progress['step']} steps at commit {commit}"
    with atomic_write(FOLDER / f"{spec.name}.md") as file:
        file.write(card(told, scores, in_int8, parity, made).encode())
    for rule, value in spec.scores.items():
        print(f"{rule}: {value:.4f}" + (f", int8 {in_int8[rule]:.4f}" if in_int8 else ""))


if __name__ == "__main__":
    main()
