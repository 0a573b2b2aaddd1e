"""TensorFlow.js graph models: a small one by hand, and MoveNet Thunder's layers under its names."""

import base64
import json

import numpy as np
import pytest
import torch

from humanpose import nets
from humanpose.checkpoints.start.movenet import (
    movenet_layers,
    read_movenet,
    tfjs_convolutions,
)
from humanpose.errors import FormatError, InputError


def _node(name, op, *inputs, fused=()):
    said = [base64.b64encode(each.encode()).decode() for each in fused]
    attr = {"fused_ops": {"list": {"s": said}}} if op.endswith("FusedConv2D") or fused else {}
    return {"name": name, "op": op, "input": list(inputs), "attr": attr}


def _written(folder, nodes, tensors, shards=1):
    """`tensors`: name -> (array as stored, quantisation or None)."""
    entries, content = [], b""
    for name, (array, packed) in tensors.items():
        entry = {"name": name, "shape": list(array.shape), "dtype": "float32"}
        if array.dtype == np.int32:
            entry["dtype"] = "int32"
        if packed is not None:
            entry["quantization"] = {"dtype": str(array.dtype), **packed}
        entries.append(entry)
        content += array.tobytes()
    step = -(-len(content) // shards)
    names = [f"group1-shard{i + 1}of{shards}.bin" for i in range(shards)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(content[i * step : (i + 1) * step])
    model = {
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": names, "weights": entries}],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model))
    return path


@pytest.fixture
def small(tmp_path):
    """x -> first -> add(depthwise(first), side(x)) -> last; nodes in no good order."""
    rng = np.random.default_rng(0)
    arrays = {
        "first/w": (rng.normal(size=(3, 3, 2, 4)).astype(np.float16), {}),
        "first/b": (np.arange(4, dtype=np.float16), {}),
        "depth/w": (rng.normal(size=(3, 3, 4, 1)).astype(np.float32), None),
        "size": (np.array([8, 8], np.int32), None),
        "side/w": (np.arange(8, dtype=np.uint8).reshape(1, 1, 2, 4), {"scale": 0.5, "min": -2.0}),
        "side/b": (np.ones(4, np.float16), {}),
        "last/w": (rng.normal(size=(1, 1, 4, 3)).astype(np.float16), {}),
        "last/b": (np.zeros(3, np.float16), {}),
        "else/w": (np.zeros((1, 1, 4, 1), np.float16), {}),
        "else/b": (np.zeros(1, np.float16), {}),
    }
    nodes = [
        _node("else", "_FusedConv2D", "add", "else/w", "else/b", fused=["BiasAdd"]),
        _node("last", "_FusedConv2D", "add:0", "last/w", "last/b", fused=["BiasAdd", "Relu"]),
        _node("add", "AddV2", "resized", "side"),
        _node("resized", "ResizeBilinear", "depth", "size"),
        _node("side", "_FusedConv2D", "x", "side/w", "side/b", fused=["BiasAdd"]),
        _node("depth", "DepthwiseConv2dNative", "first", "depth/w"),
        _node("first", "_FusedConv2D", "x", "first/w", "first/b", fused=["BiasAdd", "Relu6"]),
        _node("x", "Placeholder"),
        *(_node(name, "Const") for name in arrays),
    ]
    return tmp_path, nodes, arrays


@pytest.mark.parametrize("shards", [1, 3])
def test_convolutions_come_in_their_order_with_their_weights(small, shards):
    folder, nodes, arrays = small
    found = tfjs_convolutions(_written(folder, nodes, arrays, shards), "last/")
    assert [weight.shape for weight, _ in found] == [
        (4, 2, 3, 3),
        (4, 1, 3, 3),
        (4, 2, 1, 1),
        (3, 4, 1, 1),
    ]
    first, depth, side, _ = found
    assert np.array_equal(first[0][1, 0], arrays["first/w"][0][:, :, 0, 1].astype(np.float32))
    assert np.array_equal(first[1], [0, 1, 2, 3])
    assert np.array_equal(depth[0][2, 0], arrays["depth/w"][0][:, :, 2, 0])
    assert np.array_equal(depth[1], np.zeros(4))  # it has no bias
    assert np.allclose(side[0][:, :, 0, 0], (np.arange(8).reshape(2, 4) * 0.5 - 2).T)


def test_what_is_not_such_a_model_is_said(small):
    folder, nodes, arrays = small
    path = _written(folder, nodes, arrays)
    with pytest.raises(FormatError, match=r"model\.json: not a TensorFlow\.js graph model"):
        tfjs_convolutions(path, "nowhere/")
    path.write_text(path.read_text()[:-40])
    with pytest.raises(FormatError, match=r"not a TensorFlow\.js graph model"):
        tfjs_convolutions(path, "last/")
    path = _written(folder, nodes, arrays)
    shard = folder / "group1-shard1of1.bin"
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(FormatError, match=r"not a TensorFlow\.js graph model .*buffer"):
        tfjs_convolutions(path, "last/")
    shard.unlink()
    with pytest.raises(InputError, match=r"group1-shard1of1\.bin"):
        tfjs_convolutions(path, "last/")
    other = [_node("last", "_FusedConv2D", "x", "last/w", fused=["Relu"]), nodes[7], nodes[-4]]
    with pytest.raises(FormatError, match="last is fused with Relu"):
        tfjs_convolutions(_written(folder, other, arrays), "last/")


def test_thunder_starts_a_network_of_its_width(tmp_path):
    """Random weights under the names and in the layout of the published file, in a chain."""
    torch.manual_seed(0)
    parts = dict(nets.create("lite", joints=17, width=1.75).named_modules())
    published = {name: parts[name] for name, _ in movenet_layers(1.75)}
    nodes, arrays, before = [_node("x", "Placeholder")], {}, "x"
    for name, conv in published.items():
        depthwise = conv.groups > 1
        label = "kpt_heatmap_0/conv2d_5/BiasAdd" if name == [*published][-1] else name
        weight = conv.weight.detach().numpy().astype(np.float16)
        order = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
        arrays[f"{label}/w"] = (np.ascontiguousarray(weight.transpose(order)), {})
        arrays[f"{label}/b"] = (conv.bias.detach().numpy().astype(np.float16), {})
        op = "FusedDepthwiseConv2dNative" if depthwise else "_FusedConv2D"
        nodes.append(_node(label, op, before, f"{label}/w", f"{label}/b", fused=["BiasAdd"]))
        before = label
    nodes += [_node(name, "Const") for name in arrays]
    state = read_movenet(_written(tmp_path, nodes, arrays))
    net = nets.create("lite", joints=17, width=1.75)
    net.load_state_dict(state)
    assert sum(value.numel() for value in state.values()) == 6_211_649
    mine = state["backbone.blocks.8.depthwise.conv.weight"]
    theirs = published["backbone.blocks.8.depthwise.conv"].weight
    assert torch.equal(mine, theirs.detach().half().float())
    with pytest.raises(FormatError, match="not MoveNet"):
        arrays["backbone.stem.conv/w"] = (np.zeros((3, 3, 3, 40), np.float16), {})
        read_movenet(_written(tmp_path, nodes, arrays))
