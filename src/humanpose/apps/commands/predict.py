"""humanpose predict SOURCE..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from humanpose.errors import EXIT_SKIPPED


def predict(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Pictures, folders, globs or videos.")
    ],
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="Comma-separated: image, video, json (COCO's shape), jsonl, csv, coco (bare "
            "results). Without it: the annotated picture or video, and json.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")
    ] = Path("humanpose-out"),
    force: Annotated[bool, typer.Option("--force", help="Replace existing results.")] = False,
    model: Annotated[
        str, typer.Option(help="Pose weights: a built-in name or a file.")
    ] = "balanced",
    person: Annotated[
        str,
        typer.Option(
            help="Person weights: a built-in name, a file, or 'none' (one person fills it)."
        ),
    ] = "person",
    runtime: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bf16.")] = "auto",
    device: Annotated[
        str, typer.Option(help="cpu, or what the runtime offers: gpu, npu, cuda.")
    ] = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads of a network call; all cores if not given."),
    ] = None,
    person_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least score of a person; the model's own if not given."),
    ] = None,
    min_score: Annotated[
        float,
        typer.Option(min=0, max=1, help="Draw joints at or above this score; results keep all."),
    ] = 0.3,
    max_people: Annotated[
        int | None,
        typer.Option(min=1, help="Keep at most this many people of a picture, best first."),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Average with the mirrored crop: better, twice the time.")
    ] = False,
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of compiled models; '' turns it off.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Open the first annotated result when done.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Find people and their joints in pictures and videos.

    Results go to humanpose-out/ (change with -o). A file that cannot be read is skipped, listed
    at the end, and makes the exit code 3.
    """
    from humanpose.api import PoseEstimator
    from humanpose.apps import prediction

    jobs = prediction.plan(sources, save, output, min_score=min_score, force=force)
    estimator = PoseEstimator(
        model,
        person=None if person == "none" else person,
        runtime=runtime,
        precision=precision,
        device=device,
        threads=threads,
        cache=cache,
        person_score=person_score,
        max_people=max_people,
        flip=flip,
    )
    outcome = prediction.run(jobs, estimator, quiet=quiet)
    if not quiet:
        typer.echo(outcome.summary())
    for line in outcome.problems:
        typer.echo(line, err=True)
    if show and outcome.drawn:
        typer.launch(str(outcome.drawn[0]))
    if outcome.problems:
        raise typer.Exit(EXIT_SKIPPED)
