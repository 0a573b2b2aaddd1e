"""The weights inside the package, by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from humanpose.errors import InputError
from humanpose.spec import ModelSpec

FOLDER = Path(__file__).resolve().parent.parent / "weights"
# Name -> the weights that it applies, and how: `ModelSpec.tta`.
PRESETS = {"accurate": ("balanced", "flip,upright=60")}


def installed() -> dict[str, Path]:
    """Name -> path of every network that came with the package, in float32; presets too."""
    files = (path for path in sorted(FOLDER.glob("*.onnx")) if "." not in path.stem)
    found = {path.stem: path for path in files}
    presets = {name: found[weights] for name, (weights, _) in PRESETS.items() if weights in found}
    return dict(sorted((found | presets).items()))


def weights_path(name: str) -> Path:
    """Path of built-in weights, or of a file of one's own.

    Raises:
        InputError: if `name` is neither.
    """
    here = installed()
    if name in here:
        return here[name]
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(here) or "none"
    raise InputError(f"model {name!r}: neither a file nor one of the built-in weights ({known})")


def with_preset(name: str, spec: ModelSpec) -> ModelSpec:
    """`spec` of the weights at `weights_path(name)`, changed as the preset `name` says, if any."""
    return replace(spec, name=name, tta=PRESETS[name][1]) if name in PRESETS else spec
