"""humanpose evaluate PREDICTIONS|WEIGHTS... --against NAME=PATH"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from humanpose.cli.options import FORCE, INTO, progress, with_options
from humanpose.errors import InputError
from humanpose.infer.options import InferenceOptions
from humanpose.types import option

if TYPE_CHECKING:
    from humanpose.evaluate.run import Candidate, Evaluation
    from humanpose.evaluate.scores import Truth


@with_options(
    *("model", "detector", "detector_size", "detector_score", "hands", "max_people", "compat")
)
def evaluate(
    entries: list[str] = typer.Argument(
        metavar="PREDICTIONS|WEIGHTS",
        help="Files of predictions (.h5, .mat, .json, .jsonl), or networks: a built-in name, "
        ".onnx, or .safetensors (needs the train extra).",
    ),
    data: tuple[str, ...] = option(
        ...,
        "coco, flic, lsp, lspet, mpii, yolo, pack; a name alone looks in $HUMANPOSE_DATA. "
        "Repeatable.",
        flags=("--against", "--data"),
        metavar="NAME[=PATH]",
    ),
    score: tuple[str, ...] = option(
        (), "Besides the set's own: pckh, pck-torso, pck-box, pcp, oks, ap. Repeatable."
    ),
    threshold: tuple[float, ...] = option(
        (),
        "Of PCKh, PCK and PCP in place of the usual ones (repeatable, the first is the "
        "headline); of a detector: least score.",
        min=0,
        max=10,
    ),
    split: str = option("validation", "Part of the data: validation, train, test or all."),
    convention: str = option("mpii", 'Rule for "Head" and "Mean": mpii, hrnet or pytorch-pose.'),
    score_compat: str = option(
        "", "Score as an old scorer did: student, hrnet or cpm-flic.", flags=("--compat",)
    ),
    marks: str | None = option(
        None, "Ignore these places in detection scores (recipes/mark_people.py).", metavar="FILE"
    ),
    output: Path | None = option(None, "Write report.html, its plots and scores.json.", **INTO),
    plots: bool = option(True, "Put plots and pictures into the report."),
    format: str = option(
        "report",
        "report, or mpii-submission: write pred_keypoints_mpii.mat to FILE -o.",
        choices=("report", "mpii-submission"),
    ),
    force: bool = FORCE,
    quiet: bool = option(False, "Show no progress bar.", flags=("--quiet", "-q")),
    net_compat: str = option("", "Run networks as predict --compat does: matlab or hrnet."),
    inference: InferenceOptions = InferenceOptions(precision="float32"),
) -> None:
    """Score predictions and networks on data sets: joints, or people at IoU 0.5."""
    from humanpose.data.sets import read_marks
    from humanpose.evaluate import report, run
    from humanpose.evaluate.scores import Rules

    rules = Rules(score, threshold, convention, score_compat)
    if output is not None and format == "report":
        report.prepare(output, force=force, with_plots=plots)
    how = replace(inference, compat=net_compat)
    sets, candidates = run.read_all(data, entries, split, rules, how)
    for label, candidate in candidates.items():
        typer.echo(_introduced(label, candidate))
    if format == "mpii-submission":
        _submit(candidates, sets, output, force, quiet)
        return
    evaluations: list[Evaluation] = []
    for truth in sets:
        each = run.evaluate(
            *(truth, candidates, rules, read_marks(marks)),
            lambda items: progress(items, "scoring", quiet),
        )
        rows = report.table(each, rules)
        typer.echo("\n".join(["", *report.heading(each, rules)]))
        typer.echo(report.text_table(list(each.scores), rows))
        evaluations.append(each)
    if output is not None:
        written = report.write(output, evaluations, candidates, rules, with_plots=plots)
        if not quiet:
            typer.echo(f"report in {written}")


def _introduced(label: str, candidate: Candidate) -> str:
    about = candidate.about
    if candidate.network is None:
        return f"{label}: {about['file']}"
    way = f", {about['procedure']}" if about["procedure"] else ""
    return f"{label} ({about['runtime']}, {about['precision']}{way})"


def _submit(
    candidates: dict[str, Candidate],
    sets: list[Truth],
    output: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    from humanpose.evaluate.run import matched_on
    from humanpose.evaluate.submission import write_submission
    from humanpose.files import prepare_output

    if len(candidates) != 1 or [each.name for each in sets] != ["mpii"] or output is None:
        raise InputError("--format mpii-submission takes one candidate, --against mpii and -o FILE")
    prepare_output(output, force=force)
    (truth,), (candidate,) = sets, candidates.values()
    found = matched_on(truth, candidate, lambda items: progress(items, "scoring", quiet))
    filled, wanted = write_submission(output, truth.path, truth.samples, found.joints)
    typer.echo(f"{filled} people predicted, {wanted} asked for by the test; written to {output}")
