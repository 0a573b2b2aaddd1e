"""humanpose import KIND FILE --net NAME -o OUT.safetensors"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from humanpose.errors import InputError, MissingExtraError, printable

if TYPE_CHECKING:
    from humanpose.checkpoints.mapping import Import

_NAMES_SHOWN = 8


def import_weights(
    kind: Annotated[
        str,
        typer.Argument(
            help="caffe, tensorflow, tensorflow-graph, openpose-pickle, hrnet, simplebaseline or "
            "hourglass."
        ),
    ],
    file: Annotated[Path, typer.Argument(help="The foreign weights. Nothing in it is executed.")],
    net: Annotated[str, typer.Option("--net", help="Our network that they are for.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The .safetensors to write.")
    ],
    joints: Annotated[
        int | None, typer.Option(help="Joints, background not counted; the net's if not given.")
    ] = None,
    stages: Annotated[int | None, typer.Option(help="Stages of a CPM net.")] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="ceil (Caffe) or floor (TensorFlow's VALID), for a CPM net."),
    ] = None,
    centre_sigma: Annotated[
        float | None,
        typer.Option(min=1, help="Of a CPM net's centre map, px: 21; psycharo's port had 17.68."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="rgb or bgr, what the weights expect; as their authors had it."),
    ] = None,
    blocks: Annotated[int | None, typer.Option(help="Residuals per group of an hourglass.")] = None,
    backbone: Annotated[
        bool,
        typer.Option(
            "--backbone", help="Take what fits; the rest starts at random and must be trained."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Turn weights of another system into ours, and say what became of every tensor."""
    try:
        import torch

        from humanpose import nets
        from humanpose.checkpoints import mapping, store
        from humanpose.nets.specs import reference_spec
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    from humanpose.files import prepare_output, sha256

    if output.suffix != ".safetensors":
        raise InputError(f"{output}: the name of the result must end in .safetensors")
    if channels not in (None, "rgb", "bgr"):
        raise InputError(f"--channels {channels}: write rgb or bgr")
    prepare_output(output, force=force)
    if net not in nets.NETS:
        raise InputError(f"unknown network {net!r}; there are: {', '.join(sorted(nets.NETS))}")
    mapping.check_kind(kind, net)
    arrays = mapping.read_foreign(kind, file)
    psycharo = kind.startswith("tensorflow") and not mapping.is_timctho(arrays)
    given = {
        "joints": joints,
        "stages": stages,
        "pooling": pooling,
        "centre_sigma": centre_sigma,
        "blocks": blocks,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if psycharo and net.startswith("cpm-"):
        options.setdefault("pooling", "floor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what --backbone leaves to chance is the same every time
        made = nets.create(net, **options)
    found = mapping.to_net(arrays, kind, net, made)
    _print(found)
    _refuse_mismatch(file, net, found, backbone=backbone)
    spec = reference_spec(output.stem, net, options, made, psycharo=psycharo)
    spec = replace(spec, channels=channels or spec.channels)
    recipe = f"imported from {kind} file {file.name} (sha256 {_sha(file, sha256)})"
    if found.missing:
        recipe += f"; not in it, started at random: {', '.join(found.missing)}"
    store.save_weights(output, made.state_dict() | found.state, replace(spec, recipe=recipe))
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, network {net}")


def _sha(file: Path, sha256: Any) -> str:
    """Of the file, or of a checkpoint's index where `file` is only the common beginning."""
    index = file.with_name(f"{file.name}.index")
    return str(sha256(index if not file.is_file() and index.is_file() else file))


def _print(found: Import) -> None:
    for title, names in (
        ("mapped", found.mapped),
        ("missing", found.missing),
        ("left over", found.left_over),
        ("refused", found.refused),
    ):
        shown = [printable(name, 200) for name in names[:_NAMES_SHOWN]]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        between = "; " if title == "refused" else ", "
        typer.echo(f"{title:>9} {len(names):5}  {between.join(shown)}{more}".rstrip())


def _refuse_mismatch(file: Path, net: str, found: Import, *, backbone: bool) -> None:
    """Raises InputError unless the file fits `net`."""
    if found.refused:
        raise InputError(f"{file} does not fit {net}: {found.refused[0]}; see --joints, --stages")
    if not found.mapped:
        raise InputError(f"{file} holds nothing for {net}; is it of another kind or network?")
    if found.missing and not backbone:
        raise InputError(
            f"{file} lacks {len(found.missing)} tensors of {net} ({found.missing[0]} ...); "
            "give --backbone to start them at random"
        )
