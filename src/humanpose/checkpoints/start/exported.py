"""Our own ONNX file as a start: its weights keep their names and, in float16, their values."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from humanpose.errors import FormatError
from humanpose.files import read_limited
from humanpose.spec import METADATA_KEY, ModelSpec

_LIMIT_BYTES = 512 << 20
_NET, _HALF = "net.", "_half"  # as `humanpose export` names a network's tensors


def read_exported(path: Path) -> dict[str, Tensor] | None:
    """State of the network in a file of `humanpose export`; None if another program wrote it.

    Raises:
        InputError: if the file is not there.
        FormatError: if it is not an ONNX file, or quantised, or its weights lie in a file that is
            not beside it.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto, numpy_helper
    from onnx.checker import ValidationError

    try:
        model = ModelProto.FromString(read_limited(path, _LIMIT_BYTES))
    except DecodeError as error:
        raise FormatError(f"{path}: not an ONNX file ({error})") from error
    said = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not said:
        return None
    if ModelSpec.from_json(said[0], origin=str(path)).precision != "float32":
        raise FormatError(f"{path}: is quantised; a training starts from the float32 file")
    try:
        return {
            tensor.name.removeprefix(_NET).removesuffix(_HALF): torch.from_numpy(
                numpy_helper.to_array(tensor, str(path.parent)).copy()
            ).float()
            for tensor in model.graph.initializer
            if tensor.name.startswith(_NET)
        }
    except (OSError, ValidationError) as error:
        raise FormatError(f"{path}: the file that holds its weights is not here") from error
