"""humanpose bench"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from humanpose.cli.options import FORCE, INTO, comma_list, progress_bar, with_options
from humanpose.errors import InputError
from humanpose.types import option


@with_options()
def bench(
    data: tuple[str, ...] = option(
        (), "Score on it too, boxes given. Repeatable.", metavar="NAME[=PATH]"
    ),
    video: str | None = option(
        None, "A video or a picture; a made-up picture if not given.", metavar="FILE"
    ),
    models: str = option(
        "balanced", "Pose weights: MODEL or MODEL+DETECTOR, comma-separated.", metavar="LIST"
    ),
    detector: str = option("person", "Detector weights of models that name none, or 'none'."),
    sizes: str = option(
        "", "Input heights, as of predict --size; the networks' own if not given.", metavar="LIST"
    ),
    runtimes: str = option("openvino,onnxruntime", "openvino, onnxruntime.", metavar="LIST"),
    precisions: str = option("float32,bf16,int8", "float32, bf16, int8.", metavar="LIST"),
    threads: str = option(
        "", "CPU threads; 1, all physical and all logical cores if not given.", metavar="LIST"
    ),
    device: str = option(
        "", "cpu, gpu, npu, cuda; if not given the CPU, and the GPU if any.", metavar="LIST"
    ),
    frames: int = option(300, "Process the first N frames of the video.", min=1),
    rounds: int = option(5, "Repeat every combination N times.", min=1),
    split: str = option("validation", "Part of --data: validation, train, test or all."),
    output: Path = option(Path("humanpose-bench"), "Folder for the results.", **INTO),
    plots: bool = option(True, "Draw the plots."),
    force: bool = FORCE,
    quiet: bool = option(False, "Print no progress and no table.", flags=("--quiet", "-q")),
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
        comma_list(models),
        detector=detector,
        sizes=_numbers("sizes", sizes),
        runtimes=comma_list(runtimes),
        precisions=comma_list(precisions),
        threads=_numbers("threads", threads),
        devices=comma_list(device),
    )
    names = [data_path(entry)[0] for entry in data]
    bench_report.prepare(output, names, force=force, with_plots=plots)
    protocol = benches.Protocol(video or "", frames, rounds)
    for _ in frames_of(protocol.source, 1):  # what cannot be read ends it here
        pass
    about = benches.describe(protocol)
    with progress_bar(quiet) as bar:
        task = bar.add_task("bench", total=None)

        def tell(line: str) -> None:
            bar.update(task, description=line)

        # Scoring may fail: so it comes first.
        scores = benches.score(wanted, data, split, tell) if data else {}
        rows = [
            replace(row, scores=scores.get(row.options, {}) if not row.why else {})
            for row in benches.measure(wanted, protocol, tell)
        ]
    advice = bench_report.recommend(rows, benches.cores())
    bench_report.write(output, rows, about, advice, names, with_plots=plots)
    if not quiet:
        for line in (*about, "", *bench_report.markdown(rows, names), ""):
            typer.echo(line)
    typer.echo(advice)


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(part) for part in comma_list(text)]
    except ValueError as error:
        raise InputError(f"--{name} {text!r}: write whole numbers with commas between") from error
