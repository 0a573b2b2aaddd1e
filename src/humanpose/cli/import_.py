"""humanpose import KIND FILE --net NAME -o OUT.safetensors"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from humanpose.cli.options import FORCE, TO_FILE, needs_extra, with_options
from humanpose.errors import InputError, printable
from humanpose.types import option

if TYPE_CHECKING:
    from humanpose.checkpoints.mapping import Import

_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class NetOptions:
    """Options of `nets.create`; None = the net's own."""

    joints: int | None = option(None, "Joints, background not counted; the net's if not given.")
    stages: int | None = option(None, "Stages of a CPM net.")
    pooling: str | None = option(None, "ceil (Caffe) or floor (TensorFlow's VALID), for a CPM net.")
    centre_sigma: float | None = option(
        None, "Sigma of a CPM net's centre map, px: 21; psycharo's port had 17.68.", min=1
    )
    blocks: int | None = option(None, "Residuals per group of an hourglass.")


@with_options()
def import_weights(
    kind: str = typer.Argument(
        metavar="KIND",
        help="caffe, tensorflow, tensorflow-graph, openpose-pickle, hrnet, simplebaseline or "
        "hourglass.",
    ),
    file: Path = typer.Argument(
        metavar="FILE", help="The foreign weights. Nothing in it is executed."
    ),
    net: str = option(..., "Our network that they are for."),
    output: Path = option(..., "The .safetensors to write.", **TO_FILE),
    backbone: bool = option(
        False, "Take what fits; start the rest at random.", flags=("--backbone",)
    ),
    force: bool = FORCE,
    channels: str | None = option(
        None, "rgb or bgr; what the authors used if not given.", choices=(None, "rgb", "bgr")
    ),
    options: NetOptions = NetOptions(),
) -> None:
    """Convert weights of another system to a .safetensors file; report every tensor."""
    with needs_extra("train", "torch"):
        import torch

        from humanpose import nets
        from humanpose.checkpoints import mapping, store
        from humanpose.nets.cpm import PSYCHARO
    from humanpose.files import prepare_output, sha256

    if output.suffix != ".safetensors":
        raise InputError(f"{output}: the name of the result must end in .safetensors")
    prepare_output(output, force=force)
    with torch.device("meta"):  # only its kinds are needed
        mapping.check_kind(kind, net, nets.create(net))
    arrays = mapping.read_foreign(kind, file)
    psycharo = kind.startswith("tensorflow") and not mapping.is_timctho(arrays)
    given = {name: value for name, value in asdict(options).items() if value is not None}
    if psycharo:
        given.setdefault("pooling", "floor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what --backbone leaves to chance is the same every time
        made = nets.create(net, **given)
    found = mapping.to_net(arrays, kind, net, made)
    _print(found)
    _refuse_mismatch(file, net, found, backbone=backbone)
    spec = replace(made.spec(output.stem, net, given, None), **(PSYCHARO if psycharo else {}))
    spec = replace(spec, channels=channels or spec.channels)
    index = file.with_name(f"{file.name}.index")  # of a checkpoint named by its common beginning
    hashed = sha256(index if not file.is_file() and index.is_file() else file)
    recipe = f"imported from {kind} file {file.name} (sha256 {hashed})"
    if found.missing:
        recipe += f"; not in it, started at random: {', '.join(found.missing)}"
    store.save_weights(output, made.state_dict() | found.state, replace(spec, recipe=recipe))
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, network {net}")


def _print(found: Import) -> None:
    for title in ("mapped", "missing", "left over", "refused"):
        names = getattr(found, title.replace(" ", "_"))
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
