"""humanpose data show NAME[=PATH]|FILE... -o sheet.png|page.html"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from humanpose.errors import InputError, OutputError


def show(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[=PATH]|FILE...",
            help="Data sets, or packs; a name alone looks in $HUMANPOSE_DATA.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="A picture (.png, .jpg) or .html."),
    ],
    data_set: Annotated[
        str, typer.Option("--data-set", metavar="NAME", help="Only of this one, of a pack's.")
    ] = "",
    joints: Annotated[
        str,
        typer.Option(metavar="MIN..MAX", help="Only with so many annotated joints: 10.., 4..13"),
    ] = "0..",
    split: Annotated[str, typer.Option(help="Only train, validation or test.")] = "",
    count: Annotated[
        int, typer.Option(min=0, help="At most so many, evenly spread; 0 = all.")
    ] = 60,
    flip: Annotated[bool, typer.Option("--flip", help="Mirrored, after the turn.")] = False,
    rotate: Annotated[
        float, typer.Option(metavar="DEGREES", help="Turned counter-clockwise.")
    ] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Draw the joints of samples, cropped as a training would crop them."""
    from humanpose.files import prepare_output
    from humanpose.images import SAVE_SUFFIXES
    from humanpose.lab import contact_sheet

    suffix = output.suffix.lower()
    if suffix not in {*SAVE_SUFFIXES, ".html"}:
        raise OutputError(f"cannot write {output}: its name ends in .png, .jpg or .html")
    prepare_output(output, force=force)
    view = contact_sheet.View(data_set, split, _range(joints), count, flip, rotate)
    samples, missing = contact_sheet.chosen(contact_sheet.samples_of(sets), view)
    if suffix == ".html":
        title = f"{len(samples)} persons of {', '.join(Path(entry).name for entry in sets)}"
        contact_sheet.write_page(output, samples, view, title)
    else:
        contact_sheet.write_sheet(output, samples, view)
    typer.echo(f"{output}: {len(samples)} persons")
    if missing:
        typer.echo(f"{missing:,} more have no picture here")


def _range(text: str) -> tuple[int, int]:
    low, dots, high = text.partition("..")
    try:
        least = int(low or 0)
        return least, int(high or 1000) if dots else least
    except ValueError as error:
        raise InputError(f"--joints {text}: write it as 10.., ..4 or 4..13") from error
