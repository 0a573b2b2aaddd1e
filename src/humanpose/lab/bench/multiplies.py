"""Multiply-accumulates of a network, from its graph."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from humanpose.errors import MissingExtraError

_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_TRANSPOSED = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")


def multiplies(path: Path, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one input of `size` (w, h): convolutions and matrix products.

    Args:
        path: an .onnx file of this package; or .safetensors, whose network `nets` counts.
        size: of the input, pixels.

    Raises:
        MissingExtraError: if torch, which a .safetensors file needs, is not here.
    """
    if path.suffix == ".safetensors":
        return _of_net(path, size)
    import openvino as ov

    model = ov.Core().read_model(path)
    model.reshape([1, size[1], size[0], 3])
    return sum(_of_node(node) for node in model.get_ordered_ops())


def _of_node(node: Any) -> int:
    kind = node.get_type_name()
    if kind in _CONVOLUTIONS:  # once for every weight and cell of the output
        images, _, *cells = node.output(0).get_shape()
    elif kind in _TRANSPOSED:  # of the input
        images, _, *cells = node.input(0).get_shape()
    elif kind == "MatMul":
        shape = list(node.input(0).get_shape())
        inner = shape[-2 if node.get_attributes()["transpose_a"] else -1]
        return int(math.prod(node.output(0).get_shape()) * inner)
    else:
        return 0
    # Two images of one input where the graph looks at the mirrored crop too.
    return int(images * math.prod(node.input(1).get_shape()) * math.prod(cells))


def _of_net(path: Path, size: tuple[int, int]) -> int:
    try:
        from humanpose import nets
        from humanpose.checkpoints.store import load_net
    except ImportError as error:
        raise MissingExtraError("torch", "train") from error
    _, spec = load_net(path)
    return nets.multiplies(spec.net, size, **spec.options) * (1 + spec.flip)
