"""humanpose study STUDY"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from humanpose.cli.options import Changes, needs_extra

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
            "--output", "-o", metavar="DIR", help="Folder of runs and page; runs/NAME if not given."
        ),
    ] = None,
    changes: Changes = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Run these variants only, compared with the first."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Run this many trainings side by side; they share the cores.")
    ] = 1,
) -> None:
    """Train variants x seeds of a recipe, and write a page that compares them.

    Finished runs are kept: run the same command again to continue.
    """
    with needs_extra("train", "torch"):
        from humanpose.lab import study as runs
        from humanpose.lab import study_page
        from humanpose.lab.study_plan import Study
        from humanpose.train.config import load_yaml

    plan = load_yaml(recipe, tuple(changes or ()), Study)
    plan = plan.only(only.split(",")) if only else plan
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
