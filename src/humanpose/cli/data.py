"""humanpose data build, check and show"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from humanpose.cli.options import CHANGES, TO_FILE, progress, progress_bar, with_options
from humanpose.errors import EXIT_USAGE, InputError, OutputError
from humanpose.lab.view import View
from humanpose.types import option

if TYPE_CHECKING:
    from humanpose.data.check import Finding

app = typer.Typer(
    help="Build packs of data sets, check their files, draw samples.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
@with_options()
def build(
    recipe: Path = typer.Argument(
        metavar="RECIPE", help="A YAML file such as recipes/mpii_lsp.yaml."
    ),
    output: Path = option(..., "NAME.json; HDF5 files go beside it.", **TO_FILE),
    changes: tuple[str, ...] = CHANGES,
    raw: bool = option(
        False, "Store pixels, not JPEG: faster, ten times larger.", flags=("--raw",)
    ),
    teacher: str | None = option(
        None, "Also store this pose network's maps per person.", metavar="WEIGHTS"
    ),
    workers: int = option(0, "Threads; 0 = as many as there are cores.", min=0),
    force: bool = option(False, "Replace FILE.", flags=("--force",)),
    quiet: bool = option(False, "Print no progress and no summary.", flags=("--quiet", "-q")),
) -> None:
    """Cut the people of data sets out of their pictures into a pack for training.

    Run the same command again to continue an interrupted build.
    """
    from humanpose.lab import packing
    from humanpose.train.config import load_yaml

    plan = load_yaml(recipe, changes, packing.PackRecipe)
    if raw:
        plan = plan.model_copy(update={"raw": True})
    with progress_bar(quiet) as bar:
        task = bar.add_task("persons", total=None)
        made = packing.build(
            *(plan, output), force=force, workers=workers, teacher=teacher,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )  # fmt: skip
    if quiet:
        return
    if made["kept"]:
        typer.echo(f"went on after {made['kept']:,} persons of an unfinished build")
    if made["left_out"]:
        typer.echo(f"left out {made['left_out']:,} persons without a box or a joint")
    rate = (made["persons"] - made["kept"]) / made["seconds"]
    typer.echo(
        f"{output}: {made['persons']:,} persons, {made['bytes'] / 1e6:,.1f} MB, "
        f"{rate:,.0f} persons/s"
    )
    for part, persons in sorted(made["splits"].items()):
        typer.echo(f"  {part:<24}{persons:8,}")


@app.command()
@with_options()
def check(
    sets: list[str] = typer.Argument(
        metavar="NAME[=PATH]...",
        help="coco, flic, hdf5_2018, lsp, lspet, mpii, pack or yolo; a name alone looks in "
        "$HUMANPOSE_DATA.",
    ),
    pictures: bool = option(
        False, "Decode every picture, not only its header.", flags=("--pictures",)
    ),
    compat: str = option("", "Read as an old system did: cpm (flic), readme (lsp)."),
    to_json: Path | None = option(
        None, "Write counts and findings with all persons.", metavar="FILE", flags=("--json",)
    ),
    force: bool = option(False, "Replace FILE.", flags=("--force",)),
    quiet: bool = option(False, "Print errors and warnings only.", flags=("--quiet", "-q")),
) -> None:
    """Count the persons of data sets; report what is missing and odd. Exit code 2 on errors."""
    from humanpose.files import atomic_write, prepare_output

    if to_json is not None:
        prepare_output(to_json, force=force)
    report = [_checked(e, compat, pictures, quiet) for entry in sets for e in _each_set(entry)]
    if to_json is not None:
        with atomic_write(to_json) as file:
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
    """Check one data set, print the report and return it as a JSON value."""
    from humanpose.data.check import Finding, findings, summary
    from humanpose.data.pack import Pack, is_pack
    from humanpose.data.readers import read
    from humanpose.data.sets import data_path

    report: dict[str, Any] = {"set": entry}
    try:
        name, path = data_path(entry)
        samples = read(name, path, compat=compat)
        if not samples:
            raise InputError(f"{path}: it has no annotated person")
        report |= {"path": str(path), **summary(samples)}
        lines = [f"{name} ({path}): {len(report['joints'])} joints, {report['skeleton']}"]
        for split, part in report["splits"].items():
            lines.append(
                f"  {split:<11}{part['persons']:7,} persons in {part['pictures']:7,} pictures, "
                f"{part['joints'] / part['persons']:.1f} joints a person"
            )
        if not quiet:
            typer.echo("\n".join(lines))
        found = findings(
            samples, pictures=pictures, progress=lambda paths: progress(paths, "pictures", quiet)
        )
        if pictures and is_pack(path) and (files := (pack := Pack(path)).damaged()):
            what = "the file of the pack is not what was written"
            found.append(Finding("error", what, tuple(files), len(pack.shards)))
    except InputError as error:  # the other sets are still worth checking
        found = [Finding("error", str(error), (), 0)]
    for finding in found:
        typer.echo(_line(finding) if not quiet else f"{entry.partition('=')[0]}:{_line(finding)}")
    report["findings"] = [
        {"level": f.level, "what": f.what, "count": len(f.where), "of": f.of, "where": f.where}
        for f in found
    ]
    return report


def _line(finding: Finding) -> str:
    text, found = f"  {finding.level}: {finding.what}", len(finding.where)
    some = "; ".join(finding.where[:3]) + " ..." * (found > 3)
    return f"{text}: {found:,} of {finding.of:,} ({some})" if found else text


@app.command()
@with_options()
def show(
    sets: list[str] = typer.Argument(
        metavar="NAME[=PATH]|FILE...",
        help="Data sets, or packs; a name alone looks in $HUMANPOSE_DATA.",
    ),
    output: Path = option(..., "A picture: .png, .jpg or .webp.", **TO_FILE),
    options: View = View(),
    force: bool = option(False, "Replace FILE.", flags=("--force",)),
) -> None:
    """Draw the joints of samples on the crops that training would take."""
    from humanpose.files import prepare_output
    from humanpose.images import SAVE_SUFFIXES
    from humanpose.lab import contact_sheet

    if output.suffix.lower() not in SAVE_SUFFIXES:
        suffixes = ", ".join(sorted(SAVE_SUFFIXES))
        raise OutputError(f"cannot write {output}: its name must end in one of {suffixes}")
    prepare_output(output, force=force)
    samples, missing = contact_sheet.chosen(contact_sheet.samples_of(sets), options)
    contact_sheet.write_sheet(output, samples, options)
    typer.echo(f"{output}: {len(samples)} persons")
    if missing:
        typer.echo(f"{missing:,} more have no picture here")
