"""humanpose convert RECORD"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    record: Annotated[
        Path, typer.Argument(metavar="RECORD", help="NAME.jsonl, or NAME.jsonl.part after a kill.")
    ],
    save: Annotated[
        str,
        typer.Option(
            metavar="FORMATS",
            help="Comma-separated: csv, json (COCO's shape), coco (bare results), openpose, trc.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder; the record's if not given."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Write other record formats from a JSON-lines record.

    A record whose writer was killed ends with the last whole frame; a line says so.
    """
    from humanpose.errors import InputError
    from humanpose.media.sinks import FORMATS, prepare_record
    from humanpose.results import read_records

    names = [name.strip() for name in save.split(",") if name.strip()]
    unknown = sorted(set(names) - FORMATS.keys())
    if unknown or not names:
        what = ", ".join(unknown) or "nothing"
        raise InputError(f"--save {what}: choose from {', '.join(FORMATS)}")
    _, frames = read_records(record)
    base = (output or record.parent) / record.name.removesuffix(".part")
    paths = {kind: prepare_record(kind, base, force=force) for kind in names}
    for kind, path in paths.items():
        FORMATS[kind].write(record, path)
        typer.echo(path)
    if not frames.complete:
        typer.echo(f"{record} is partial: its writer was stopped before the end", err=True)
