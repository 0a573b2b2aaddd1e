"""humanpose data build RECIPE -o FILE"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def build(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A YAML file such as recipes/mpii_lsp.yaml.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The pack, an HDF5 file.")
    ],
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Store pixels, not JPEG: fast, ten times larger."),
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS", help="Also store this pose network's maps of every person."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Threads; 0 = as many as there are cores.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value: box=192; repeatable."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Cut the people of data sets out of their pictures into one file to train from.

    A build that was interrupted goes on where it stopped when the same command is given again.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from humanpose.lab import packing
    from humanpose.train.config import load_yaml

    plan = load_yaml(recipe, tuple(changes or ()), packing.PackRecipe)
    if raw:
        plan = plan.model_copy(update={"raw": True})
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None)
        made = packing.build(
            plan,
            output,
            force=force,
            workers=workers,
            teacher=teacher,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
    if quiet:
        return
    if made["kept"]:
        typer.echo(f"went on after {made['kept']:,} persons of an unfinished build")
    if made["left_out"]:
        typer.echo(f"left out {made['left_out']:,} persons without a box or a joint")
    rate = (made["persons"] - made["kept"]) / made["seconds"]
    typer.echo(
        f"{output}: {made['persons']:,} persons, {output.stat().st_size / 1e6:,.1f} MB "
        f"({made['bytes'] / 1e6:,.1f} MB of pictures), {rate:,.0f} persons/s"
    )
    for part, persons in sorted(made["splits"].items()):
        typer.echo(f"  {part:<24}{persons:8,}")
