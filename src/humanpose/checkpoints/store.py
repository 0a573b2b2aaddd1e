"""Read and write safetensors files with tensors and, in the metadata, their ModelSpec."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from humanpose import nets
from humanpose.errors import FormatError, InputError
from humanpose.files import atomic_write
from humanpose.nets.network import Net
from humanpose.spec import METADATA_KEY, ModelSpec


def save_weights(path: Path, state: dict[str, Tensor], spec: ModelSpec) -> None:
    """Write `state` and `spec` to `path` atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_write(path) as file:
        file.write(save(plain, metadata={METADATA_KEY: spec.to_json()}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text metadata of a safetensors file.

    Raises:
        InputError: if the file is not there.
        FormatError: if it is damaged or not safetensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error})") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], ModelSpec]:
    """State and spec of a file that `save_weights` wrote; float16 comes back as float32."""
    state, metadata = load_tensors(path)
    if METADATA_KEY not in metadata:
        raise FormatError(f"{path}: holds no model description; was it made by humanpose?")
    spec = ModelSpec.from_json(metadata[METADATA_KEY], origin=str(path))
    return {name: tensor.float() for name, tensor in state.items()}, spec


def load_net(path: Path) -> tuple[Net, ModelSpec]:
    """The network of `path` with its weights, in evaluation mode.

    Raises:
        FormatError: if the tensors do not fit the network that the spec names.
    """
    state, spec = load_weights(path)
    net = nets.create(spec.net, **spec.options)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise FormatError(f"{path}: weights do not fit network {spec.net!r} ({first})") from error
    return net.eval(), spec


def start_from(net: nn.Module, state: dict[str, Tensor], *, wider: bool = False) -> list[str]:
    """Copy into `net` every tensor of `state` that fits by name and shape.

    A head with more outputs than `state` has takes the rows that exist and keeps its own
    initialisation for the rest, so that a skeleton can grow.

    Args:
        net: changed in place.
        state: tensors by the names of `net.state_dict()`.
        wider: layers of `net` may also take more inputs than those of `state`. Weights of the new
            channels start at 0, so the network's function stays. Not for networks that
            concatenate features: their old inputs would have other indices.

    Returns:
        Names of the net's tensors that `state` did not fill, in whole or in part.
    """
    own = net.state_dict()
    missing = []
    with torch.no_grad():
        for name, tensor in own.items():
            given = state.get(name)
            if given is None or not _fits(given, tensor, wider=wider):
                missing.append(name)
                continue
            if given.shape == tensor.shape:
                tensor.copy_(given)
                continue
            rows = min(len(given), len(tensor))
            tensor[:rows] = 0
            tensor[tuple(slice(most) for most in given[:rows].shape)] = given[:rows]
            missing.append(name)
    return missing


def _fits(given: Tensor, tensor: Tensor, *, wider: bool) -> bool:
    """Whether `given` is `tensor`, or its first rows; if `wider`, of their first channels."""
    theirs, ours = given.shape[1:2], tensor.shape[1:2]  # inputs, if it has two axes or more
    same = given.dim() == tensor.dim() and given.shape[2:] == tensor.shape[2:]
    return same and (theirs == ours or (wider and theirs < ours))
