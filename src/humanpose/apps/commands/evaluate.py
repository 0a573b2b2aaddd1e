"""humanpose evaluate WEIGHTS --data NAME=PATH"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from humanpose.spec import ModelSpec
    from humanpose.types import Sample, Score

T = TypeVar("T")


def evaluate(
    weights: Annotated[
        str, typer.Argument(help="Built-in name, .onnx, or .safetensors (needs the train extra).")
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--against",
            "--data",
            metavar="NAME[=PATH]",
            help="lspet or coco; a name alone looks in $HUMANPOSE_DATA. Repeatable.",
        ),
    ],
    split: Annotated[str, typer.Option(help="validation, train or all.")] = "validation",
    marks: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Places to ignore in detection scores (recipes/mark_people.py)."
        ),
    ] = None,
    runtime: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32 (the reference of every score), bf16 or auto.")
    ] = "float32",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Person networks: least score; the model's own if not given."
        ),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Flip test: average with the mirrored crop.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write the scores to DIR/scores.json."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Score weights on data sets: joints with the annotated boxes, or people at IoU 0.5."""
    from humanpose.api import load_model
    from humanpose.apps.data_sets import data_path, part_of, read_marks
    from humanpose.data.readers import read
    from humanpose.files import atomic_write
    from humanpose.infer.runtime import Settings

    sets = {name: part_of(read(name, path), split, name) for name, path in map(data_path, data)}
    loaded, spec, _ = load_model(weights, Settings(runtime, precision))
    test = ", flip test" if flip else ""
    typer.echo(f"{spec.name} ({loaded.name}, {loaded.precision}{test})")
    report: dict[str, dict[str, object]] = {}
    for name, samples in sets.items():
        scores = _scores(loaded, spec, samples, read_marks(marks), threshold, flip, quiet)
        report[name] = {score.rule: _print(name, split, score) for score in scores}
    if output is not None:
        content = {
            "model": spec.name,
            "runtime": loaded.name,
            "precision": loaded.precision,
            "flip test": flip,
            "split": split,
            "scores": report,
        }
        with atomic_write(output / "scores.json") as file:
            file.write(json.dumps(content, indent=1).encode())


def _scores(
    loaded: object,
    spec: ModelSpec,
    samples: list[Sample],
    marks: dict[str, list[list[float]]],
    threshold: float | None,
    flip: bool,
    quiet: bool,
) -> list[Score]:
    from humanpose.apps import scoring
    from humanpose.data.people import pictures_of
    from humanpose.infer.detector import Detector
    from humanpose.infer.estimator import Estimator

    def progress(items: Sequence[T]) -> Iterable[T]:
        from rich.progress import track

        return items if quiet else track(items, "scoring", transient=True)

    if spec.task == "person":
        pictures = pictures_of(samples, marks)
        detector = Detector(loaded, spec, threshold=threshold)  # type: ignore[arg-type]
        return scoring.person_scores(detector, pictures, progress=progress)
    return scoring.pose_scores(Estimator(loaded, spec, flip=flip), samples, progress=progress)  # type: ignore[arg-type]


def _print(name: str, split: str, score: Score) -> object:
    """Print a score with its joints; returns its JSON value."""
    typer.echo(f"{name} {split}: {score.rule}: {score.value:.4f}")
    rows = {
        joint: round(float(value), 4)
        for joint, value, count in zip(score.joints, score.per_joint, score.count, strict=True)
        if count
    }
    for joint, count in zip(score.joints, score.count, strict=True):
        if count:
            typer.echo(f"  {joint:<16}{rows[joint]:8.4f}  ({count} joints)")
    return {"value": round(score.value, 4), "per_joint": rows}
