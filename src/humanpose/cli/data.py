"""humanpose data build, check and show"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from humanpose.cli.options import Changes, progress, progress_bar, with_options
from humanpose.errors import EXIT_USAGE, InputError, OutputError
from humanpose.types import option

if TYPE_CHECKING:
    from humanpose.data.check import Finding

app = typer.Typer(
    help="Build packs of data sets, check their files, draw samples.",
    no_args_is_help=True,
    add_completion=False,
)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of `humanpose data build`."""

    raw: bool = option(False, "Store pixels, not JPEG: faster, ten times larger.", flags=("--raw",))
    teacher: str | None = option(
        None, "Also store this pose network's maps per person.", metavar="WEIGHTS"
    )
    workers: int = option(0, "Threads; 0 = as many as there are cores.", min=0)
    force: bool = option(False, "Replace FILE.", flags=("--force",))
    quiet: bool = option(False, "Print no progress and no summary.", flags=("--quiet", "-q"))


@app.command()
@with_options()
def build(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A YAML file such as recipes/mpii_lsp.yaml.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="NAME.json; HDF5 files go beside it."),
    ],
    changes: Changes = None,
    options: BuildOptions = BuildOptions(),
) -> None:
    """Cut the people of data sets out of their pictures into a pack for training.

    Run the same command again to continue an interrupted build.
    """
    from humanpose.lab import packing
    from humanpose.train.config import load_yaml

    plan = load_yaml(recipe, tuple(changes or ()), packing.PackRecipe)
    if options.raw:
        plan = plan.model_copy(update={"raw": True})
    with progress_bar(options.quiet) as bar:
        task = bar.add_task("persons", total=None)
        made = packing.build(
            *(plan, output),
            force=options.force,
            workers=options.workers,
            teacher=options.teacher,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
    if options.quiet:
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


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """Options of `humanpose data check`."""

    pictures: bool = option(
        False, "Decode every picture, not only its header.", flags=("--pictures",)
    )
    compat: str = option("", "Read as an old system did: cpm (flic), readme (lsp).")
    json: Path | None = option(None, "Write counts and findings with all persons.", metavar="FILE")
    force: bool = option(False, "Replace FILE.", flags=("--force",))
    quiet: bool = option(False, "Print errors and warnings only.", flags=("--quiet", "-q"))


@app.command()
@with_options()
def check(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[=PATH]...",
            help="coco, flic, hdf5_2018, lsp, lspet, mpii, pack or yolo; a name alone looks in "
            "$HUMANPOSE_DATA.",
        ),
    ],
    options: CheckOptions = CheckOptions(),
) -> None:
    """Count the persons of data sets; report what is missing and odd. Exit code 2 on errors."""
    from humanpose.files import atomic_write, prepare_output

    if options.json is not None:
        prepare_output(options.json, force=options.force)
    report = [_checked(each, options) for entry in sets for each in _each_set(entry)]
    if options.json is not None:
        with atomic_write(options.json) as file:
            file.write(json.dumps({"sets": report}, indent=1).encode())
    levels = [finding["level"] for entry in report for finding in entry["findings"]]
    if not options.quiet:
        typer.echo(f"{levels.count('error')} errors, {levels.count('warning')} warnings")
    if "error" in levels:
        raise typer.Exit(EXIT_USAGE)


def _each_set(entry: str) -> list[str]:
    from humanpose.data.sets import each_set

    try:
        return each_set(entry)
    except InputError:  # reported where it is read
        return [entry]


def _checked(entry: str, options: CheckOptions) -> dict[str, Any]:
    """Check one data set, print the report and return it as a JSON value."""
    from humanpose.data.check import Finding, findings, summary
    from humanpose.data.pack import Pack, is_pack
    from humanpose.data.readers import read
    from humanpose.data.sets import data_path

    report: dict[str, Any] = {"set": entry}
    pictures, quiet = options.pictures, options.quiet
    try:
        name, path = data_path(entry)
        samples = read(name, path, compat=options.compat)
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


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """Options of `humanpose data show`."""

    data_set: str = option("", "Take this data set of a pack only.")
    joints: str = option("0..", "Annotated joints of a person: 10.., 4..13.", metavar="MIN..MAX")
    split: str = option("", "Take train, validation or test only.")
    count: int = option(60, "Draw at most this many, evenly spread; 0 = all.", min=0)
    flip: bool = option(False, "Mirror the crops, after rotation.", flags=("--flip",))
    rotate: float = option(0.0, "Rotate the crops counter-clockwise.", metavar="DEGREES")
    force: bool = option(False, "Replace FILE.", flags=("--force",))


@app.command()
@with_options()
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
        typer.Option("--output", "-o", metavar="FILE", help="A picture: .png, .jpg or .webp."),
    ],
    options: ShowOptions = ShowOptions(),
) -> None:
    """Draw the joints of samples on the crops that training would take."""
    from humanpose.files import prepare_output
    from humanpose.images import SAVE_SUFFIXES
    from humanpose.lab import contact_sheet

    if output.suffix.lower() not in SAVE_SUFFIXES:
        suffixes = ", ".join(sorted(SAVE_SUFFIXES))
        raise OutputError(f"cannot write {output}: its name must end in one of {suffixes}")
    prepare_output(output, force=options.force)
    text, (low, dots, high) = options.joints, options.joints.partition("..")
    try:
        joints = int(low or 0), int(high or 1000) if dots else int(low or 0)
    except ValueError as error:
        raise InputError(f"--joints {text}: write it as 10.., ..4 or 4..13") from error
    view = contact_sheet.View(
        options.data_set, options.split, joints, options.count, options.flip, options.rotate
    )
    samples, missing = contact_sheet.chosen(contact_sheet.samples_of(sets), view)
    contact_sheet.write_sheet(output, samples, view)
    typer.echo(f"{output}: {len(samples)} persons")
    if missing:
        typer.echo(f"{missing:,} more have no picture here")
