"""`humanpose import`: names, layouts, counts, refusals, and that the result is one of ours."""

import collections
import re

import numpy as np
import pytest
import torch
import typer
from makers.checkpoints import bundle, field, graph, python2_pickle, tensor, varint
from torch import nn
from typer.testing import CliRunner

from humanpose import nets
from humanpose.checkpoints.mapping import KINDS, Import, to_net
from humanpose.checkpoints.store import load_net
from humanpose.cli.import_ import import_weights
from humanpose.errors import HumanPoseError, InputError, OutputError

SMALL = {"stages": 2}


@pytest.fixture
def run():
    """Runs `import ARGS...`; gives (output, error or None)."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("import")(import_weights)

    def invoke(*args):
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, HumanPoseError):
            raise result.exception
        return result.output, result.exception

    return invoke


@torch.no_grad()
def random_net(name: str, **options) -> nn.Module:
    torch.manual_seed(3)
    net = nets.create(name, **options)
    for tensor_ in net.state_dict().values():
        if tensor_.is_floating_point():
            tensor_.copy_(torch.rand_like(tensor_))
    return net


def hwio(value: torch.Tensor) -> np.ndarray:
    """TensorFlow's layout."""
    return value.permute(2, 3, 1, 0).contiguous().numpy() if value.dim() == 4 else value.numpy()


def psycharo(net: nn.Module, scope: str) -> dict[str, np.ndarray]:
    words = {"weight": "weights", "bias": "biases"}
    return {
        f"{scope}/{name.split('.')[0]}/{words[name.split('.')[1]]}": hwio(value)
        for name, value in net.state_dict().items()
    }


def same(found: Import, net: nn.Module) -> None:
    own = net.state_dict()
    assert list(found.state) == list(own) and found.mapped == tuple(own)
    assert not (found.missing or found.refused)
    assert all(torch.equal(found.state[name], own[name]) for name in own)


# ------------------------------------------------------------------------------------- mapping


@pytest.mark.parametrize(
    ("name", "scope"), [("cpm-vgg", "CPM/PoseNet"), ("cpm-centermap", "CPM/PoseNet"),
                        ("cpm-person", "CPM/PersonNet"), ("cpm-vgg", "else/where")]
)  # fmt: skip
@pytest.mark.parametrize("kind", ["tensorflow", "tensorflow-graph"])
def test_psycharos_names_are_caffes_under_a_scope(name, scope, kind):
    net = random_net(name, **SMALL)
    arrays = psycharo(net, scope)
    first = next(iter(arrays))
    extra = {
        f"{first}/Adam": arrays[first], f"{first}/Adam_1": arrays[first],
        f"{first}/Momentum": arrays[first], "beta1_power": np.zeros(()),
        "global_step": np.zeros((), np.int64), "CPM/PoseNet/other/weights": np.zeros(2),
        f"RMSProp/{first}": arrays[first],
    }  # fmt: skip
    found = to_net({**arrays, **extra}, kind, name, net)
    same(found, net)
    assert found.left_over == tuple(extra)


def test_a_file_with_both_of_psycharos_nets_gives_the_one_asked_for():
    person, pose = random_net("cpm-person", **SMALL), random_net("cpm-vgg", **SMALL)
    with torch.no_grad():
        for value in person.state_dict().values():
            value.add_(1)
    arrays = psycharo(person, "CPM/PersonNet") | psycharo(pose, "CPM/PoseNet")
    same(to_net(arrays, "tensorflow", "cpm-person", person), person)
    same(to_net(arrays, "tensorflow", "cpm-vgg", pose), pose)


TIMCTHO = {
    "cpm-vgg": "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv3_4 conv4_1 conv4_2 "
    "conv4_3_CPM conv4_4_CPM conv4_5_CPM conv4_6_CPM conv4_7_CPM conv5_1_CPM conv5_2_CPM",
    "cpm-hand": "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv3_4 conv4_1 conv4_2 "
    "conv4_3 conv4_4 conv5_1 conv5_2 conv5_3_CPM conv6_1_CPM conv6_2_CPM",
}


@pytest.mark.parametrize(
    ("name", "order", "words"),
    [("cpm-vgg", "cpm-vgg", ("kernel", "bias")), ("cpm-vgg-slim", "cpm-vgg", ("weights", "biases")),
     ("cpm-hand", "cpm-hand", ("kernel", "bias")), ("cpm-hand-s4", "cpm-hand", ("kernel", "bias")),
     ("cpm-hand-slim", "cpm-hand", ("weights", "biases"))],
)  # fmt: skip
def test_timcthos_names_find_their_places(name, order, words):
    theirs = [f"sub_stages/sub_conv{i}" for i in range(1, 15)]
    theirs += ["sub_stages/sub_stage_img_feature", "stage_1/conv1", "stage_1/stage_heatmap"]
    names = dict(zip(TIMCTHO[order].split(), theirs, strict=True))
    names |= {f"Mconv{i}_stage{t}": f"stage_{t}/mid_conv{i}" for i in range(1, 8) for t in (2, 3)}
    net = random_net(name, stages=3)
    arrays = {}
    for key, value in net.state_dict().items():
        layer, part = key.split(".")
        arrays[f"{names[layer]}/{words[part == 'bias']}"] = hwio(value)
    found = to_net({**arrays, "sub_stages/sub_conv15/kernel": np.zeros(1)}, "tensorflow", name, net)
    same(found, net)
    assert found.left_over == ("sub_stages/sub_conv15/kernel",)


@pytest.mark.parametrize("kind", KINDS)
def test_nets_that_a_kind_cannot_hold_are_refused(kind):
    with pytest.raises(InputError, match=f"files of kind {kind} hold no 'lite'"):
        to_net({}, kind, "lite", nets.create("lite"))


def test_misfits_are_named_with_both_shapes():
    net = random_net("cpm-hand", **SMALL)
    arrays = {name: value.numpy() for name, value in net.state_dict().items()}
    arrays["conv6_2_CPM.weight"] = np.zeros((15, 512, 1, 1), np.float32)
    arrays["conv1_2.weight"] = np.full((64, 64, 3, 3), np.nan, np.float32)
    found = to_net(arrays, "openpose-pickle", "cpm-hand", net)
    assert found.missing == () and len(found.mapped) == len(arrays) - 2
    assert set(found.refused) == {
        "conv6_2_CPM.weight has shape (15, 512, 1, 1), conv6_2_CPM.weight wants (22, 512, 1, 1)",
        "conv1_2.weight holds values that are not finite",
    }
    twice = {"a/conv1_1/biases": np.zeros(64), "b/conv1_1/biases": np.zeros(64)}
    found = to_net(twice, "tensorflow", "cpm-hand", net)
    assert found.refused == (
        "b/conv1_1/biases and a/conv1_1/biases both fill conv1_1.bias",
    )  # fmt: skip


def test_imagenet_backbones_leave_only_the_final_layer_missing():
    """The published file has a classifier too, and routes that the pose net lacks."""
    net = random_net("hrnet-w32", width=8)
    state = {n: t for n, t in net.state_dict().items() if not n.startswith("final_layer")}
    extra = {
        "final_layer.0.weight": torch.zeros(1), "classifier.weight": torch.zeros(1),
        "incre_modules.0.0.conv1.weight": torch.zeros(1),
        "stage4.2.fuse_layers.1.0.0.0.weight": torch.zeros(1),
    }  # fmt: skip
    found = to_net({**state, **extra}, "hrnet", "hrnet-w32", net)
    assert found.missing == ("final_layer.weight", "final_layer.bias")
    assert found.left_over == tuple(extra) and not found.refused


def test_counters_of_batches_may_be_absent():
    """torch before 0.4.1 did not keep them."""
    net = random_net("resnet50")
    state = {n: t for n, t in net.state_dict().items() if "num_batches" not in n}
    found = to_net(state, "simplebaseline", "resnet50", net)
    assert not found.missing and len(found.mapped) == len(state)
    net.load_state_dict(found.state)


def test_big_endian_float64_becomes_native_float32():
    net = random_net("cpm-vgg", stages=1)
    arrays = {n: t.numpy().astype(">f8") for n, t in net.state_dict().items()}
    same(to_net(arrays, "caffe", "cpm-vgg", net), net)


# ------------------------------------------------------------------------------------- command


def caffemodel(net: nn.Module) -> bytes:
    out = b""
    for name, part in net.named_children():
        blobs = [part.weight, part.bias]
        body = b"".join(
            field(7, field(7, field(1, b"".join(varint(n) for n in b.shape)))
                  + field(5, b.detach().numpy().tobytes()))
            for b in blobs
        )  # fmt: skip
        out += field(100, field(1, name.encode()) + body)
    return out


def write(tmp_path, kind: str, net: nn.Module):
    """A file of `kind` with the weights of `net`."""
    path = tmp_path / f"foreign-{kind}"
    if kind == "caffe":
        path.write_bytes(caffemodel(net))
    elif kind == "tensorflow":
        bundle(path, psycharo(net, "CPM/PoseNet"))
    elif kind == "tensorflow-graph":
        nodes = psycharo(net, "CPM/PoseNet").items()
        path.write_bytes(graph([(name, "Const", tensor(array)) for name, array in nodes]))
    elif kind == "openpose-pickle":
        arrays = {
            name.replace(".weight", "").replace(".bias", "_b"): hwio(value)
            for name, value in net.state_dict().items()
        }
        path.write_bytes(python2_pickle(arrays))
    else:
        state = {f"module.{name}": value for name, value in net.state_dict().items()}
        torch.save({"state_dict": state, "perf": np.float64(0.5)}, path)
    return path


CASES = [
    ("caffe", "cpm-vgg", {"joints": 14}, "bgr", (368, 368), 8),
    ("caffe", "cpm-flic", {"joints": 9}, "bgr", (368, 368), 8),
    ("caffe", "cpm-person", {}, "bgr", (656, 368), 8),
    ("tensorflow", "cpm-vgg", {}, "rgb", (368, 368), 8),
    ("tensorflow", "cpm-centermap", {}, "rgb", (376, 376), 8),
    ("tensorflow-graph", "cpm-vgg", {"pooling": "ceil"}, "rgb", (368, 368), 8),
    ("openpose-pickle", "cpm-hand", {}, "bgr", (368, 368), 8),
    ("openpose-pickle", "cpm-hand-s4", {}, "bgr", (128, 128), 4),
    ("hrnet", "hrnet-w32", {"joints": 16}, "rgb", (256, 256), 4),
    ("hrnet", "hrnet-w32", {}, "rgb", (192, 256), 4),
    ("simplebaseline", "resnet50", {}, "bgr", (192, 256), 4),
    ("hourglass", "hourglass1", {}, "rgb", (256, 256), 4),
]


@pytest.mark.parametrize(
    ("kind", "name", "options", "channels", "size", "stride"), CASES, ids=lambda v: str(v)[:16]
)
def test_every_kind_becomes_a_file_of_ours(
    tmp_path, run, kind, name, options, channels, size, stride
):
    if name.startswith("cpm"):
        options = {**options, "stages": 2}
    net = random_net(name, **options)
    source, output = write(tmp_path, kind, net), tmp_path / "ours.safetensors"
    flags = [part for key, value in options.items() for part in (f"--{key}", value)]
    text, error = run(kind, source, "--net", name, *flags, "-o", output)
    assert error is None, error
    assert re.search(rf"mapped +{len(net.state_dict())} ", text) and "missing     0" in text
    loaded, spec = load_net(output)
    own = net.state_dict()
    assert all(torch.equal(t.float(), own[n].float()) for n, t in loaded.state_dict().items())
    assert (spec.channels, spec.input, spec.stride, spec.net) == (channels, size, stride, name)
    assert spec.decode == (
        "peaks" if name == "cpm-person" else "dark" if name.startswith("cpm") else "quarter"
    )
    assert spec.recipe.startswith(f"imported from {kind} file foreign-{kind} (sha256 ")
    if kind.startswith("tensorflow"):
        assert spec.options["pooling"] == options.get("pooling", "floor")
    _, error = run(kind, source, "--net", name, *flags, "-o", output)
    assert isinstance(error, OutputError) and "exists; add --force" in str(error)


def test_timcthos_colours_are_caffes(tmp_path, run):
    net = random_net("cpm-hand", stages=1)
    names = [f"sub_stages/sub_conv{i}" for i in range(1, 15)]
    names += ["sub_stages/sub_stage_img_feature", "stage_1/conv1", "stage_1/stage_heatmap"]
    layers = dict(zip(TIMCTHO["cpm-hand"].split(), names, strict=True))
    arrays = {
        f"{layers[key.split('.')[0]]}/{'kernel' if key.endswith('weight') else 'bias'}": hwio(value)
        for key, value in net.state_dict().items()
    }
    bundle(tmp_path / "hand.ckpt", arrays)
    output = tmp_path / "hand.safetensors"
    _, error = run("tensorflow", tmp_path / "hand.ckpt", "--net", "cpm-hand", "--stages", 1,
                   "-o", output)  # fmt: skip
    assert error is None
    _, spec = load_net(output)
    assert (spec.channels, spec.mean[0], spec.std[0], spec.task) == ("bgr", 128, 256, "hand")
    assert spec.skeleton.name == "hand21" and "pooling" not in spec.options and spec.background


def test_a_backbone_fills_what_fits_and_the_rest_is_the_same_every_time(tmp_path, run):
    net = random_net("hourglass1")
    state = {n: t for n, t in net.state_dict().items() if not n.startswith("score")}
    torch.save(collections.OrderedDict(state, extra=torch.zeros(2)), tmp_path / "a.pth")
    output = tmp_path / "ours.safetensors"
    command = ["hourglass", tmp_path / "a.pth", "--net", "hourglass1", "-o", output]
    text, error = run(*command)
    assert re.search(r"missing +2  score\.0\.weight, score\.0\.bias", text)
    assert re.search(r"left over +1  extra", text)
    assert isinstance(error, InputError) and error.exit_code == 2 and not output.exists()
    assert "lacks 2 tensors of hourglass1" in str(error) and "--backbone" in str(error)
    contents = set()
    for _ in range(2):
        _, error = run(*command, "--backbone", "--force")
        assert error is None
        contents.add(output.read_bytes())
    assert len(contents) == 1
    assert "started at random: score.0.weight, score.0.bias" in load_net(output)[1].recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--joints", 9], "does not fit cpm-vgg: conv5_2_CPM.* has shape .*--joints"),
        (["--joints", 5], "does not fit|no skeleton of 5 joints"),
        (["--stages", 3], "lacks 14 tensors"),
        (["--net", "cpm-hand"], "does not fit cpm-hand|lacks"),
        (["--net", "resnet50"], "files of kind caffe hold no 'resnet50'"),
        (["--net", "nothing"], "unknown network 'nothing'"),
        (["--pooling", "max"], "neither ceil nor floor"),
        (["-o", "ours.onnx"], "must end in .safetensors"),
    ],
)
def test_mismatches_are_refused_in_one_line_and_nothing_is_written(tmp_path, run, change, message):
    source = write(tmp_path, "caffe", random_net("cpm-vgg", **SMALL))
    output = tmp_path / "ours.safetensors"
    base = {"--net": "cpm-vgg", "--stages": 2, "-o": output}
    base |= {change[0]: change[1]}
    _, error = run("caffe", source, *(part for item in base.items() for part in item))
    assert isinstance(error, InputError) and re.search(message, str(error)), error
    assert "\n" not in str(error) and not output.exists()


def test_kinds_and_files_that_are_not_there_are_named(tmp_path, run):
    output = tmp_path / "a.safetensors"
    _, error = run("keras", tmp_path / "a", "--net", "cpm-vgg", "-o", output)
    assert "unknown kind of weights 'keras'; there are: caffe, tensorflow" in str(error)
    for kind in KINDS:
        net = {"hrnet": "hrnet-w32", "simplebaseline": "resnet50"}.get(kind, "cpm-vgg")
        net = "hourglass1" if kind == "hourglass" else net
        _, error = run(kind, tmp_path / "gone", "--net", net, "-o", output)
        assert isinstance(error, InputError) and "gone" in str(error)
