"""An exported graph that averages its maps with those of the mirrored crop by itself."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnx
from onnx import helper, numpy_helper

from humanpose.spec import ModelSpec

_COLUMNS_OF_CROP, _COLUMNS_OF_MAP = 2, 3  # axes


def mirroring(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """`model` between a mirror at its input and a mean at its outputs, as `ExportModule` has them.

    Around the finished graph, so that what is inside is quantised as without a mirror.

    Args:
        model: takes crops (N, H, W, 3), gives maps (N, K, h, w).
        spec: its joints are exchanged; its grid lies even in the crop.
    """
    model = deepcopy(model)
    graph = model.graph
    crops, results = graph.input[0].name, {output.name for output in graph.output}
    inner = {name: f"{name}/both" for name in (crops, *results)}
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    constants = {
        "mirror/last": [-1],
        "mirror/end": [np.iinfo(np.int64).min],
        "mirror/columns_of_crop": [_COLUMNS_OF_CROP],
        "mirror/columns_of_map": [_COLUMNS_OF_MAP],
        "mirror/joints": spec.flip_index,
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), name))
    half = numpy_helper.from_array(np.asarray(0.5, np.float32), "mirror/half")
    graph.initializer.append(half)
    back = ["mirror/last", "mirror/end"]
    before = [
        helper.make_node(
            "Slice", [crops, *back, "mirror/columns_of_crop", "mirror/last"], ["mirror/crops"]
        ),
        helper.make_node("Concat", [crops, "mirror/crops"], [inner[crops]], axis=0),
    ]
    after = []
    for name in sorted(results):
        own, other, turned, swapped, total = (
            f"{name}/{part}" for part in ("own", "other", "turned", "swapped", "total")
        )
        after += [
            helper.make_node("Split", [inner[name]], [own, other], axis=0, num_outputs=2),
            helper.make_node(
                "Slice", [other, *back, "mirror/columns_of_map", "mirror/last"], [turned]
            ),
            helper.make_node("Gather", [turned, "mirror/joints"], [swapped], axis=1),
            helper.make_node("Add", [own, swapped], [total]),
            helper.make_node("Mul", [total, "mirror/half"], [name]),
        ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.value_info[:]  # the shapes of what was in between have changed
    graph.node.extend(nodes)
    return model
