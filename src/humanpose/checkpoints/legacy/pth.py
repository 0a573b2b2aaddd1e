"""HRNet, SimpleBaseline and hourglass checkpoints (.pth, .pth.tar), read without executing them.

Their parameter names are the names of `nets.hrnet`, `nets.resnet` and `nets.hourglass`.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from humanpose.checkpoints.legacy.openpose_pickle import globals_of
from humanpose.errors import FormatError, LimitError, printable
from humanpose.files import file_size, read_limited

_LIMIT_BYTES = 2 << 30
_LARGEST_PICKLE = 64 << 20
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32)


class _Unused:
    """Stands for numpy's scalars and dtypes (`perf` is one): read over, never built."""

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


# numpy's own functions are not called: a hostile dtype or size never reaches them.
_STAND_INS: list[Any] = [
    (_Unused, "numpy.core.multiarray.scalar"),
    (_Unused, "numpy._core.multiarray.scalar"),
    (_Unused, "numpy.dtype"),
]


def read_pth(path: Path) -> dict[str, Tensor]:
    """Tensors by parameter name, on the CPU, in the file's own precision.

    Takes a bare dictionary or a training checkpoint (`state_dict`, else `best_state_dict`);
    a `module.` prefix of all names is removed.

    Raises:
        InputError: if the file is not there.
        LimitError: if it is larger than 2 GiB.
        FormatError: if it is damaged, holds no tensors, or asks for anything to be executed:
            names what it asks for.
    """
    size = file_size(path)
    if size > _LIMIT_BYTES:
        raise LimitError(f"{path} has {size:,} bytes, more than the limit of {_LIMIT_BYTES:,}")
    _check_archive(path, size)
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # torch raises anything from KeyError to RuntimeError on damage
        raise FormatError(f"{path}: {_refusal(path, error)}") from error
    state = _state_dict(path, content)
    held = 0
    for name, tensor in state.items():
        held += tensor.numel() * tensor.element_size()
        # A view may claim more than its storage holds, which torch then makes up.
        if max(held, tensor.untyped_storage().nbytes()) > size:
            raise FormatError(
                f"{path}: {name[:60]!r} claims more than the file holds; damaged or hostile"
            )
    return state


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    for key in ("state_dict", "best_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise FormatError(f"{path}: holds no dictionary of tensors")
    state: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not _is_plain(tensor):
            raise FormatError(f"{path}: entry {str(name)[:60]!r} is not a plain tensor")
        state[name] = tensor.detach()
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _is_plain(value: Any) -> bool:
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in _DTYPES
    )


def _check_archive(path: Path, size: int) -> None:
    """Only a bomb is compressed: torch stores without compression."""
    if not _is_archive(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises anything on damage
        raise FormatError(f"{path}: damaged archive ({printable(str(error))})") from error
    if sum(member.file_size for member in members) > size:
        raise FormatError(f"{path}: unpacks to more than its own size; not written by torch")


def _is_archive(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"  # what torch goes by


def _refusal(path: Path, error: Exception) -> str:
    """One line for what torch said; names the globals that it does not take."""
    said = printable(" ".join(str(error).split()), 2000)
    named = re.search(r"(?:GLOBAL|global:? GLOBAL|class) ([\w.]+\.[\w.]+)", said)
    asked = [named.group(1)] if named else []
    asked += [name for name in _asked(path) if name not in asked and not _is_torchs(name)]
    if asked:
        return f"asks for {', '.join(asked[:5])}, which is refused; nothing in it was executed"
    if "TorchScript" in said:
        return "is a TorchScript program; give the file of weights (nothing in it was executed)"
    short = re.sub(r"^Weights only load failed.*?WeightsUnpickler error:", "", said)[:120].strip()
    return (
        f"damaged or no file of weights ({type(error).__name__}: {short}); nothing in it was "
        "executed"
    )


def _is_torchs(name: str) -> bool:
    """Whether honest checkpoints of tensors ask for `name`."""
    known = ("collections.OrderedDict", "_codecs.encode", *(item[1] for item in _STAND_INS))
    return (
        name in known or re.fullmatch(r"torch\.(_utils\._rebuild_\w+|\w+Storage)", name) is not None
    )


def _asked(path: Path) -> list[str]:
    """Names in the pickles of a torch file, new (zip) or old (several pickles in a row)."""
    try:
        if _is_archive(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.filename.endswith("data.pkl") and member.file_size < _LARGEST_PICKLE:
                        return list(dict.fromkeys(globals_of(archive.read(member))))
            return []
        content = read_limited(path, _LIMIT_BYTES)[:_LARGEST_PICKLE]
    except Exception:  # only a better message is at stake
        return []
    return list(dict.fromkeys(globals_of(content, pickles=5)))
