"""humanpose export WEIGHTS -o OUT.onnx"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from humanpose.cli.options import FORCE, TO_FILE, needs_extra, with_options
from humanpose.errors import InputError
from humanpose.infer.options import PRECISIONS
from humanpose.types import option

if TYPE_CHECKING:
    from humanpose.types import U8


@with_options()
def export(
    weights: Path = typer.Argument(help="A .safetensors file made by `humanpose train`."),
    output: Path | None = option(
        None, "The .onnx to write; if not given beside WEIGHTS, INT8 as NAME.int8.onnx.", **TO_FILE
    ),
    check: tuple[str, ...] = option(
        (), "Compare on these; noise if not given. Repeatable.", metavar="PICTURES"
    ),
    stages: bool = option(
        False, "Also output the maps of every stage (CPM, hourglass).", flags=("--stages",)
    ),
    precision: str = option(
        "float32",
        "float32, bf16 (checked, nothing is quantised) or int8.",
        choices=PRECISIONS[1:],
    ),
    calibrate: tuple[str, ...] = option(
        (),
        "Calibrate and judge int8 and bf16 on a data set or pictures. Repeatable.",
        metavar="NAME[=PATH]|PICTURES",
    ),
    limit: float = option(1.0, "Largest loss of any score, in points (hundredths).", min=0),
    force: bool = FORCE,
) -> None:
    """Write a network as ONNX with its spec inside, and compare it with the original.

    An INT8 or bf16 file that scores worse than float32 by more than --limit is refused.
    """
    if (precision == "float32") == bool(calibrate):
        raise InputError("--calibrate DATA goes with --precision int8 or bf16, and they with it")
    with needs_extra("train", "torch"):
        from humanpose.export import onnx as exporting
        from humanpose.export.accuracy_check import Examples
        from humanpose.lab.training import network_scores
    from humanpose.files import prepare_output

    output = output or weights.with_suffix(".int8.onnx" if precision == "int8" else ".onnx")
    prepare_output(output, force=force)
    crops, lower = _crops(weights, check) if check else None, None
    if calibrate:
        examples = Examples.read(calibrate, network_scores)
        lower = exporting.Lower(precision, examples, limit, typer.echo)
    reports = exporting.export(weights, output, crops, stages=stages, lower=lower)
    on = f"{len(crops)} pictures" if crops is not None else "noise"
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.2f} MB; compared on {on}")
    typer.echo(f"{'':34}{'value':>10}{'joint, px':>12}{'score':>10}")
    for report in reports:
        typer.echo(
            f"{report.runtime:34}{report.largest_value:>10.2e}{report.largest_pixel:>12.4f}"
            f"{report.largest_score:>10.4f}"
        )
    typer.echo("largest differences: of any output as a share of its range, of a joint, of a score")


def _crops(weights: Path, sources: Sequence[str]) -> U8:
    import numpy as np

    from humanpose.checkpoints.store import load_weights
    from humanpose.geometry import crop_of_picture
    from humanpose.images import load_image
    from humanpose.media.sources import find_inputs

    spec = load_weights(weights)[1]
    crops = []
    for item in find_inputs(sources)[:64]:
        image = load_image(item.path)
        crop = crop_of_picture((image.shape[1], image.shape[0]), spec.input)
        crops.append(crop.cut(image, spec.pad))
    return np.stack(crops)
