"""humanpose train RECIPE, humanpose study STUDY"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from humanpose.cli.options import CHANGES, INTO, needs_extra, with_options
from humanpose.types import option

if TYPE_CHECKING:
    from humanpose.lab.study import Point, Row


@with_options()
def train(
    recipe: Path = typer.Argument(metavar="RECIPE", help="A YAML file such as recipes/lite.yaml."),
    output: Path | None = option(None, "Folder of the run; runs/NAME if not given.", **INTO),
    changes: tuple[str, ...] = CHANGES,
    data: tuple[str, ...] = option(
        (), "Use these data sets instead of the recipe's; repeatable.", metavar="NAME=PATH"
    ),
    devices: int = option(1, "Processes on this machine, one a device.", min=1),
    accelerator: str = option("auto", "auto, cpu, cuda or mps."),
    nodes: int = option(1, "Machines; torchrun or SLURM starts their processes.", min=1),
    restart: bool = option(False, "Ignore the checkpoint in the folder.", flags=("--restart",)),
) -> None:
    """Train a network from a recipe; continue from the folder's checkpoint if there is one."""
    with needs_extra("train", "torch"):
        from humanpose.lab import training
        from humanpose.train.config import Recipe, load_yaml
        from humanpose.train.distributed import Place

    plan = load_yaml(recipe, changes, Recipe)
    if data:
        plan = plan.model_copy(update={"data": list(data)})
    folder = output or Path("runs") / recipe.stem
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(devices, accelerator, nodes)
    training.train(plan, folder, place=place, resume=not restart, show=typer.echo)


@with_options()
def study(
    recipe: Path = typer.Argument(
        metavar="STUDY", help="A YAML file such as recipes/ablation_hrnet.yaml."
    ),
    output: Path | None = option(None, "Folder of runs and page; runs/NAME if not given.", **INTO),
    changes: tuple[str, ...] = CHANGES,
    only: str | None = option(
        None, "Run these variants only, compared with the first.", metavar="A,B"
    ),
    jobs: int = option(1, "Run this many trainings side by side; they share the cores.", min=1),
) -> None:
    """Train variants x seeds of a recipe, and write a page that compares them.

    Finished runs are kept: run the same command again to continue.
    """
    with needs_extra("train", "torch"):
        from humanpose.lab import study as runs
        from humanpose.lab import study_page
        from humanpose.lab.study_plan import Study
        from humanpose.train.config import load_yaml

    plan = load_yaml(recipe, changes, Study)
    plan = plan.only(only.split(",")) if only else plan
    folder = output or Path("runs") / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    baselines = runs.baselines_of(plan, folder)

    def finished(rows: list[Row], points: list[Point]) -> None:
        study_page.write(folder, study_page.Findings(plan, rows, points, baselines))

    runs.carry_out(plan, folder, jobs=jobs, show=typer.echo, finished=finished)
    found = study_page.Findings(plan, *runs.ours(plan, folder), baselines)
    for name, cells in study_page.table(found):
        told = (f"{n} {c}" for n, c in zip(study_page.HEADINGS, cells, strict=True) if c)
        typer.echo("  ".join([name, *told]))
    typer.echo(f"page: {folder / study_page.PAGE}")
