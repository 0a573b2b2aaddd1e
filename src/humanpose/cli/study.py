"""humanpose study STUDY"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from humanpose.errors import MissingExtraError

if TYPE_CHECKING:
    from humanpose.lab.study import Point, Row


def study(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="STUDY", help="A YAML file such as recipes/ablation_hrnet.yaml."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder of rows, plots and page, and of the runs; runs/NAME if not given.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value, e.g. recipe.epochs=30 or seeds=[0]; repeatable.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Run these variants only, compared with the first."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Run so many trainings side by side; they share the cores.")
    ] = 1,
) -> None:
    """Train variants x seeds of a recipe, and write a page that compares them.

    Finished runs are kept: run the same command again to continue.
    """
    try:
        from humanpose.lab import study as runs
        from humanpose.lab import study_page
        from humanpose.lab.study_plan import Study
        from humanpose.train.config import load_yaml
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train") from error

    plan = load_yaml(recipe, tuple(changes or ()), Study)
    if only:
        plan = plan.only(only.split(","))
    folder = output or Path("runs") / plan.name
    folder.mkdir(parents=True, exist_ok=True)

    baselines = runs.baselines_of(plan, folder)

    def finished(rows: list[Row], points: list[Point]) -> None:
        study_page.write(folder, study_page.Findings(plan, rows, points, baselines))

    runs.carry_out(plan, folder, jobs=jobs, show=typer.echo, finished=finished)
    found = study_page.Findings(plan, *runs.ours(plan, folder), baselines)
    names = ["", *study_page.HEADINGS]
    for name, cells in study_page.table(found):
        typer.echo(
            "  ".join([name, *(f"{n} {c}" for n, c in zip(names[1:], cells, strict=True) if c)])
        )
    typer.echo(f"page: {folder / study_page.PAGE}")
