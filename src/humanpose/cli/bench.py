"""humanpose bench"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from humanpose.cli.progress import progress_bar


def bench(
    video: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A video, or a picture; a made-up picture if not given."),
    ] = None,
    models: Annotated[
        str,
        typer.Option(metavar="LIST", help="Pose weights, MODEL or MODEL+PERSON, comma-separated."),
    ] = "balanced",
    detector: Annotated[
        str, typer.Option(help="Person weights of the models that name none; or 'none'.")
    ] = "person",
    sizes: Annotated[
        str, typer.Option(metavar="LIST", help="As predict --size; the networks' own if not given.")
    ] = "",
    runtimes: Annotated[
        str, typer.Option(metavar="LIST", help="openvino, onnxruntime.")
    ] = "openvino,onnxruntime",
    precisions: Annotated[str, typer.Option(metavar="LIST", help="float32, bf16, int8.")] = (
        "float32,bf16,int8"
    ),
    threads: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="CPU threads; 1, all physical and all logical cores if not given."
        ),
    ] = "",
    device: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="cpu, gpu, npu, cuda; if not given the CPU, and the GPU if any."
        ),
    ] = "",
    frames: Annotated[int, typer.Option(min=1, help="The first so many of the video.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every combination.")] = 5,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=PATH]", help="Score on it too, boxes given. Repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data: validation, train, test or all.")] = (
        "validation"
    ),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")
    ] = Path("humanpose-bench"),
    plots: Annotated[bool, typer.Option(help="Draw the plots.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace existing results.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Measure speed, memory, start-up and scores on this machine, and say what to use.

    Every combination takes its turn once a round, in a process of its own; one that cannot run is
    a row that says why. Results: bench.md, bench.csv and plots.
    """
    from humanpose.data.sets import data_path
    from humanpose.lab.bench import about, plan, report, runs
    from humanpose.lab.bench.child import frames_of

    wanted = plan.combinations(
        plan.Axes(
            _list(models),
            detector,
            _numbers("sizes", sizes),
            _list(runtimes),
            _list(precisions),
            _numbers("threads", threads),
            _list(device),
        )
    )
    names = [data_path(entry)[0] for entry in data or ()]
    report.prepare(output, names, force=force, with_plots=plots)
    protocol = runs.Protocol(video or "", frames, rounds)
    for _ in frames_of(protocol.source, 1):  # what cannot be read ends it here
        pass
    about_lines = about.lines(protocol)
    with progress_bar(quiet) as bar:
        task = bar.add_task("bench", total=None)

        def told(line: str) -> None:
            bar.update(task, description=line)

        scores = runs.scored(wanted, data, split, told) if data else {}  # may fail: so first
        rows = [
            row if row.why else replace(row, scores=scores.get(row.of, {}))
            for row in runs.measured(wanted, protocol, told)
        ]
    advice = report.recommendation(rows, plan.cores())
    report.write(output, rows, about_lines, advice, names, with_plots=plots)
    if not quiet:
        for line in (*about_lines, "", *report.markdown(rows, names), ""):
            typer.echo(line)
    typer.echo(advice)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(name: str, text: str) -> tuple[int, ...]:
    from humanpose.errors import InputError

    try:
        return tuple(int(part) for part in _list(text))
    except ValueError as error:
        raise InputError(f"--{name} {text!r}: write whole numbers with commas between") from error
