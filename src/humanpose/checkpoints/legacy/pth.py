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

from humanpose.errors import FormatError, LimitError, printable
from humanpose.files import file_size

_LIMIT_BYTES = 2 << 30
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
    try:
        if _unpacked_size(path) > size:  # torch stores without compression
            raise FormatError("unpacks to more than its own size; not written by torch")
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
        state = _state_dict(content)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except Exception as error:  # torch and zipfile raise anything on damage
        raise FormatError(f"{path}: {_refusal(error)}; nothing in it was executed") from error
    held = 0
    for name, tensor in state.items():
        held += tensor.numel() * tensor.element_size()
        # A view may claim more than its storage holds, which torch then makes up.
        if max(held, tensor.untyped_storage().nbytes()) > size:
            raise FormatError(
                f"{path}: {name[:60]!r} claims more than the file holds; damaged or hostile"
            )
    return state


def _unpacked_size(path: Path) -> int:
    """Bytes that the members of a zip file unpack to; 0 for another file."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":  # what torch goes by
            return 0
        with zipfile.ZipFile(file) as archive:
            return sum(member.file_size for member in archive.infolist())


def _state_dict(content: Any) -> dict[str, Tensor]:
    for key in ("state_dict", "best_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise FormatError("holds no dictionary of tensors")
    for name, tensor in content.items():
        if not isinstance(name, str) or not _is_plain(tensor):
            raise FormatError(f"entry {str(name)[:60]!r} is not a plain tensor")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): tensor.detach() for name, tensor in content.items()}


def _is_plain(value: Any) -> bool:
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in _DTYPES
    )


def _refusal(error: Exception) -> str:
    """Shorten torch's error message; name the global that it refuses."""
    said = printable(" ".join(str(error).split()), 2000)
    if named := re.search(r"(?:GLOBAL|class) ([\w.]+)", said):
        return f"asks for {named[1]}, which is refused"
    if "TorchScript" in said:
        return "is a TorchScript program; give the file of weights"
    short = re.sub(r"^Weights only load failed.*?WeightsUnpickler error:", "", said)[:120].strip()
    return f"damaged or no file of weights ({type(error).__name__}: {short})"
