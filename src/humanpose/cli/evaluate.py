"""humanpose evaluate PREDICTIONS|WEIGHTS... --against NAME=PATH"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from humanpose.evaluate.run import Candidate, Evaluation
    from humanpose.evaluate.scores import Rules, Truth

T = TypeVar("T")


def evaluate(
    entries: Annotated[
        list[str],
        typer.Argument(
            metavar="PREDICTIONS|WEIGHTS",
            help="Files of predictions (.h5, .mat, .json, .jsonl), or networks: a built-in name, "
            ".onnx, or .safetensors (needs the train extra).",
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--against",
            "--data",
            metavar="NAME[=PATH]",
            help="coco, flic, lsp, lspet, mpii, yolo, pack; a name alone looks in "
            "$HUMANPOSE_DATA. Repeatable.",
        ),
    ],
    split: Annotated[str, typer.Option(help="validation, train, test or all.")] = "validation",
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Besides the set's own: pckh, pck-torso, pck-box, pcp, oks, ap. Repeatable.",
        ),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=10,
            help="Of PCKh, PCK and PCP in place of the usual ones (repeatable, the first is the "
            "headline); of a person network: least score.",
        ),
    ] = None,
    convention: Annotated[
        str, typer.Option(help='Of "Head" and "Mean": mpii, hrnet or pytorch-pose.')
    ] = "mpii",
    compat: Annotated[
        str, typer.Option(help="Quirk of an old scorer: student, hrnet or cpm-flic.")
    ] = "",
    marks: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Places to ignore in detection scores (recipes/mark_people.py)."
        ),
    ] = None,
    runtime: Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32 (the reference of every score), bf16, int8 or auto.")
    ] = "float32",
    tta: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Test-time augmentation, as of predict; none: none."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=8, help="Height of a pose network's input, pixels.")
    ] = None,
    crop: Annotated[
        str, typer.Option(metavar="RULE", help="As of predict: box or picture-height.")
    ] = "",
    decode: Annotated[
        str, typer.Option(metavar="RULE", help="As of predict: argmax, quarter or dark.")
    ] = "",
    net_compat: Annotated[
        str, typer.Option(help="Quirk of an old test procedure: matlab or hrnet.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Write report.html, its plots and scores.json."
        ),
    ] = None,
    plots: Annotated[bool, typer.Option(help="Plots and pictures in the report.")] = True,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="report, or mpii-submission: write the one candidate's pred_keypoints_mpii.mat "
            "to the file -o.",
        ),
    ] = "report",
    force: Annotated[bool, typer.Option("--force", help="Replace existing results.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Score predictions and networks on data sets: joints, or people at IoU 0.5."""
    from humanpose.data.sets import read_marks
    from humanpose.errors import InputError
    from humanpose.evaluate import run
    from humanpose.evaluate.scores import Rules
    from humanpose.infer.options import InferenceOptions

    if form not in ("report", "mpii-submission"):
        raise InputError(f"format {form!r} is neither report nor mpii-submission")
    rules = Rules(tuple(score or ()), tuple(threshold or ()), convention, compat)
    if output is not None and form == "report":
        from humanpose.evaluate import report

        report.prepare(output, force=force, with_plots=plots)
    options = InferenceOptions(
        runtime=runtime,
        precision=precision,
        size=size,
        tta=tta,
        crop=crop,
        decode=decode,
        compat=net_compat,
    )
    sets, candidates = run.read_all(data, entries, split, rules, options)
    for label, candidate in candidates.items():
        typer.echo(_introduced(label, candidate))
    if form == "mpii-submission":
        _submit(candidates, sets, output, force, quiet)
        return
    evaluations: list[Evaluation] = []
    for truth in sets:
        each = run.evaluate(truth, candidates, rules, read_marks(marks), _progress(quiet))
        typer.echo(_as_text(each, rules))
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


def _as_text(found: Evaluation, rules: Rules) -> str:
    """Return the table of one data set, for the terminal."""
    from humanpose.evaluate.report import heading, table, text_table

    rows = table(found, rules)
    return "\n".join(["", *heading(found, rules), text_table(list(found.scores), rows)])


def _progress(quiet: bool) -> Callable[[Sequence[T]], Iterable[T]]:
    def progress(items: Sequence[T]) -> Iterable[T]:
        from rich.progress import track

        return items if quiet else track(items, "scoring", transient=True)

    return progress


def _submit(
    candidates: dict[str, Candidate],
    sets: list[Truth],
    output: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    from humanpose.errors import InputError
    from humanpose.evaluate.run import matched_on
    from humanpose.evaluate.submission import write_submission
    from humanpose.files import prepare_output

    if len(candidates) != 1 or [each.name for each in sets] != ["mpii"] or output is None:
        raise InputError("--format mpii-submission takes one candidate, --against mpii and -o FILE")
    prepare_output(output, force=force)
    (truth,), (candidate,) = sets, candidates.values()
    found = matched_on(truth, candidate, _progress(quiet))
    filled, wanted = write_submission(output, truth.path, truth.samples, found.joints)
    typer.echo(f"{filled} people predicted, {wanted} asked for by the test; written to {output}")
