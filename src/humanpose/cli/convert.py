"""humanpose convert RECORD"""

from __future__ import annotations

from pathlib import Path

import typer

from humanpose.cli.options import FORCE, INTO, names_in, with_options
from humanpose.types import option


@with_options()
def convert(
    record: Path = typer.Argument(
        metavar="RECORD", help="NAME.jsonl, or NAME.jsonl.part after a kill."
    ),
    save: str = option(
        ...,
        "Comma-separated: csv, json (COCO's shape), coco (bare results), openpose, trc.",
        metavar="FORMATS",
    ),
    output: Path | None = option(None, "Folder; the record's if not given.", **INTO),
    force: bool = FORCE,
) -> None:
    """Write other record formats from a JSON-lines record.

    A record whose writer was killed ends with the last whole frame; a line says so.
    """
    from humanpose.media.sinks.record import FORMATS, prepare_record
    from humanpose.results import read_records

    names = names_in("--save", save, FORMATS)
    _, frames = read_records(record)
    base = (output or record.parent) / record.name.removesuffix(".part")
    paths = {kind: prepare_record(kind, base, force=force) for kind in names}
    for kind, path in paths.items():
        FORMATS[kind].write(record, path)
        typer.echo(path)
    if not frames.complete:
        typer.echo(f"{record} is partial: its writer was stopped before the end", err=True)
