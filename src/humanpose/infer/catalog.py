"""The weights inside the package, by name."""

from __future__ import annotations

from pathlib import Path

from humanpose.errors import InputError

FOLDER = Path(__file__).resolve().parent.parent / "weights"
# Beside these pose networks the built-in person network works at a side of its own, pixels: a pose
# network that takes 3 ms need not wait 8 for its boxes. What it costs: docs/training-log.md.
PERSON_SIZES = {"fast": 224}
# What their files, which are older than the key, do not say: ModelSpec.second_look. Their scores
# inside are of one look.
SECOND_LOOK = {"accurate": 60.0, "balanced": 60.0, "fast": 60.0}
# Whose files hold the weights of this one; its own say how they are used.
WEIGHTS_OF = {"accurate": "balanced"}


def installed() -> dict[str, Path]:
    """Name -> path of every network that came with the package, in float32."""
    files = (path for path in sorted(FOLDER.glob("*.onnx")) if "." not in path.stem)
    return {path.stem: path for path in files}


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
