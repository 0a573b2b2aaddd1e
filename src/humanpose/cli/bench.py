"""humanpose bench"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from humanpose.cli.options import INTO, comma_list, progress_bar, with_options
from humanpose.errors import InputError
from humanpose.types import option


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of `humanpose bench`; a LIST has commas between its items."""

    video: str | None = option(
        None, "A video or a picture; a made-up picture if not given.", metavar="FILE"
    )
    models: str = option(
        "balanced", "Pose weights: MODEL or MODEL+DETECTOR, comma-separated.", metavar="LIST"
    )
    detector: str = option("person", "Detector weights of models that name none, or 'none'.")
    sizes: str = option(
        "", "Input heights, as of predict --size; the networks' own if not given.", metavar="LIST"
    )
    runtimes: str = option("openvino,onnxruntime", "openvino, onnxruntime.", metavar="LIST")
    precisions: str = option("float32,bf16,int8", "float32, bf16, int8.", metavar="LIST")
    threads: str = option(
        "", "CPU threads; 1, all physical and all logical cores if not given.", metavar="LIST"
    )
    device: str = option(
        "", "cpu, gpu, npu, cuda; if not given the CPU, and the GPU if any.", metavar="LIST"
    )
    frames: int = option(300, "Process the first N frames of the video.", min=1)
    rounds: int = option(5, "Repeat every combination N times.", min=1)
    split: str = option("validation", "Part of --data: validation, train, test or all.")
    output: Path = option(Path("humanpose-bench"), "Folder for the results.", **INTO)
    plots: bool = option(True, "Draw the plots.")
    force: bool = option(False, "Replace existing results.", flags=("--force",))
    quiet: bool = option(False, "Print no progress and no table.", flags=("--quiet", "-q"))


@with_options()
def bench(
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=PATH]", help="Score on it too, boxes given. Repeatable."),
    ] = None,
    options: BenchOptions = BenchOptions(),
) -> None:
    """Measure speed, memory, start-up and scores on this machine, and say what to use.

    Every combination takes its turn once a round, in a process of its own; one that cannot run is
    a row that says why. Results: bench.md, bench.csv and plots.
    """
    from humanpose.data.sets import data_path
    from humanpose.lab import bench as benches
    from humanpose.lab import bench_report
    from humanpose.lab.bench_child import frames_of

    wanted = benches.combinations(
        comma_list(options.models),
        detector=options.detector,
        sizes=_numbers("sizes", options.sizes),
        runtimes=comma_list(options.runtimes),
        precisions=comma_list(options.precisions),
        threads=_numbers("threads", options.threads),
        devices=comma_list(options.device),
    )
    names = [data_path(entry)[0] for entry in data or ()]
    bench_report.prepare(options.output, names, force=options.force, with_plots=options.plots)
    protocol = benches.Protocol(options.video or "", options.frames, options.rounds)
    for _ in frames_of(protocol.source, 1):  # what cannot be read ends it here
        pass
    about = benches.describe(protocol)
    with progress_bar(options.quiet) as bar:
        task = bar.add_task("bench", total=None)

        def tell(line: str) -> None:
            bar.update(task, description=line)

        # Scoring may fail: so it comes first.
        scores = benches.score(wanted, data, options.split, tell) if data else {}
        rows = [
            replace(row, scores=scores.get(row.options, {}) if not row.why else {})
            for row in benches.measure(wanted, protocol, tell)
        ]
    advice = bench_report.recommend(rows, benches.cores())
    bench_report.write(options.output, rows, about, advice, names, with_plots=options.plots)
    if not options.quiet:
        for line in (*about, "", *bench_report.markdown(rows, names), ""):
            typer.echo(line)
    typer.echo(advice)


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(part) for part in comma_list(text)]
    except ValueError as error:
        raise InputError(f"--{name} {text!r}: write whole numbers with commas between") from error
