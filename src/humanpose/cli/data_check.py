"""humanpose data check NAME[=PATH]..."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from humanpose.errors import EXIT_USAGE, InputError

if TYPE_CHECKING:
    from humanpose.data.check import Finding

_EXAMPLES = 3


def check(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[=PATH]...",
            help="coco, flic, hdf5_2018, lsp, lspet, mpii, pack or yolo; a name alone looks in "
            "$HUMANPOSE_DATA.",
        ),
    ],
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Decode every picture, not only its header.")
    ] = False,
    compat: Annotated[
        str, typer.Option(help="Read as an old system did: cpm (flic), readme (lsp).")
    ] = "",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write counts and findings, all persons named."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar; errors and warnings only.")
    ] = False,
) -> None:
    """Count what data sets hold; say what is missing and what is odd. Exit code 2 on errors."""
    from humanpose.files import atomic_write, prepare_output

    if json_file is not None:
        prepare_output(json_file, force=force)
    named = [each for entry in sets for each in _each_set(entry)]
    report = [_checked(entry, compat, pictures, quiet) for entry in named]
    if json_file is not None:
        with atomic_write(json_file) as file:
            file.write(json.dumps({"sets": report}, indent=1).encode())
    levels = [finding["level"] for entry in report for finding in entry["findings"]]
    if not quiet:
        typer.echo(f"{levels.count('error')} errors, {levels.count('warning')} warnings")
    if "error" in levels:
        raise typer.Exit(EXIT_USAGE)


def _each_set(entry: str) -> list[str]:
    from humanpose.data.sets import each_set

    try:
        return each_set(entry)
    except InputError:  # reported where it is read
        return [entry]


def _checked(entry: str, compat: str, pictures: bool, quiet: bool) -> dict[str, Any]:
    """The report of one data set, printed and as a JSON value."""
    from humanpose.data.check import Finding, findings, summary
    from humanpose.data.pack import Pack, is_pack
    from humanpose.data.readers import read
    from humanpose.data.sets import data_path

    def progress(items: Sequence[Path]) -> Iterable[Path]:
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        hidden = quiet or not console.is_terminal
        return track(items, "pictures", transient=True, console=console, disable=hidden)

    report: dict[str, Any] = {"set": entry}
    try:
        name, path = data_path(entry)
        samples = read(name, path, compat=compat)
        if not samples:
            raise InputError(f"{path}: nobody is annotated in it")
        report |= {"path": str(path), **summary(samples)}
        if not quiet:
            _print_summary(name, path, report)
        found = findings(samples, pictures=pictures, progress=progress)
        if pictures and is_pack(path) and (rows := Pack(path).damaged()):
            what = "the row or its picture is not what was written"
            found.append(Finding("error", what, tuple(map(str, rows)), len(samples)))
    except InputError as error:  # the other sets are still worth checking
        found = [Finding("error", str(error), (), 0)]
    for finding in found:
        typer.echo(_line(finding) if not quiet else f"{entry.partition('=')[0]}:{_line(finding)}")
    report["findings"] = [
        {"level": f.level, "what": f.what, "count": len(f.where), "of": f.of, "where": f.where}
        for f in found
    ]
    return report


def _print_summary(name: str, path: Path, report: dict[str, Any]) -> None:
    typer.echo(f"{name} ({path}): {len(report['joints'])} joints, {report['skeleton']}")
    for split, part in report["splits"].items():
        mean = part["joints"] / part["persons"]
        typer.echo(
            f"  {split:<11}{part['persons']:7,} persons in {part['pictures']:7,} pictures, "
            f"{mean:.1f} joints a person"
        )


def _line(finding: Finding) -> str:
    if not finding.where:
        return f"  {finding.level}: {finding.what}"
    some = "; ".join(finding.where[:_EXAMPLES])
    more = " ..." if len(finding.where) > _EXAMPLES else ""
    count = f"{len(finding.where):,} of {finding.of:,}"
    return f"  {finding.level}: {finding.what}: {count} ({some}{more})"
