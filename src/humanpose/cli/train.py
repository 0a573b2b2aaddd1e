"""humanpose train RECIPE"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from humanpose.cli.options import Changes, needs_extra


def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A YAML file such as recipes/lite.yaml.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the run; runs/NAME if not given."
        ),
    ] = None,
    changes: Changes = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH", help="Use these data sets instead of the recipe's; repeatable."
        ),
    ] = None,
    devices: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, one a device.")
    ] = 1,
    accelerator: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")
    ] = "auto",
    nodes: Annotated[
        int, typer.Option(min=1, help="Machines; torchrun or SLURM starts their processes.")
    ] = 1,
    restart: Annotated[
        bool, typer.Option("--restart", help="Ignore the checkpoint in the folder.")
    ] = False,
) -> None:
    """Train a network from a recipe; continue from the folder's checkpoint if there is one."""
    with needs_extra("train", "torch"):
        from humanpose.lab import training
        from humanpose.train.config import Recipe, load_yaml
        from humanpose.train.distributed import Place

    plan = load_yaml(recipe, tuple(changes or ()), Recipe)
    if data:
        plan = plan.model_copy(update={"data": data})
    folder = output or Path("runs") / recipe.stem
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(devices, accelerator, nodes)
    training.train(plan, folder, place=place, resume=not restart, show=typer.echo)
