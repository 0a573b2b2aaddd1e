"""`humanpose export`: every stage's maps, bf16's gate, and calls that are refused."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import numpy_helper

from humanpose import nets
from humanpose.checkpoints.store import load_net, save_weights, start_from
from humanpose.errors import FormatError, InputError
from humanpose.export.onnx import compare, export
from humanpose.infer import runtime
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import weights_path
from humanpose.lab.training import start_state
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.skeleton import BODY19, CPM14, MPII16
from humanpose.spec import ModelSpec

SPECS = {
    "cpm-vgg-slim": ModelSpec(
        "c", "pose", "cpm-vgg-slim", {"stages": 3}, CPM14, (64, 64), multiple_of=8,
        mean=(128.0,) * 3, std=(256.0,) * 3, stride=8, background=True, decode="argmax",
    ),
    "hourglass2": ModelSpec(
        "h", "pose", "hourglass2", {}, MPII16, (64, 128), multiple_of=64, grid="corner"
    ),
    "hourglass1": ModelSpec("h", "pose", "hourglass1", {}, MPII16, (64, 64), multiple_of=64),
    "lite": ModelSpec("s", "pose", "lite", {"joints": 5}, BODY19, (64, 96)),
}  # fmt: skip
needs_bf16 = pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this CPU does not compute in bf16",
)
TOLERANCE = 1e-4  # of an output's range
# Batch normalisation is folded into weights that are rounded to float16 after that.
FOLDED = 1e-3


def made(folder: Path, name: str) -> Path:
    """Weights with He start, random biases and statistics, rounded to float16."""
    spec = SPECS[name]
    torch.manual_seed(3)
    net = nets.create(spec.net, **spec.options)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(part.weight)
                if part.bias is not None:
                    part.bias.normal_(0, 0.1)
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.8, 1.2)
                part.weight.fill_(0.3)  # residuals of residuals do not run away
        for parameter in net.parameters():
            parameter.copy_(parameter.half().float())
    weights = folder / f"{name}.safetensors"
    save_weights(weights, net.state_dict(), spec)
    return weights


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> tuple[Path, Path]:
    """(weights, file with the maps of all stages) of a CPM net with three."""
    folder = tmp_path_factory.mktemp("staged")
    weights, path = made(folder, "cpm-vgg-slim"), folder / "s.onnx"
    export(weights, path, stages=True)
    return weights, path


@pytest.fixture
def noise(tmp_path) -> Path:
    """A folder of pictures."""
    folder = tmp_path / "noise"
    folder.mkdir()
    for i in range(3):
        coarse = np.random.default_rng(i).integers(0, 256, (9, 12, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(coarse, (120, 90)))
    return folder


def crops(spec: ModelSpec, n: int) -> np.ndarray:
    width, height = spec.input
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3), np.uint8)


def check_stages(weights: Path, path: Path, tolerance: float) -> None:
    net, spec = load_net(weights)
    reference = TorchRuntime(net, spec, stages=True)
    count = net.stages
    for backend in ("openvino", "onnxruntime"):
        loaded, _ = runtime.load(
            path, InferenceOptions(runtime=backend, precision="float32", cache="")
        )
        found = loaded.run(crops(spec, 2))
        assert list(found) == ["maps", *(f"maps_{i}" for i in range(1, count + 1))]
        assert (found["maps"] == found[f"maps_{count}"]).all()
        assert not np.allclose(found["maps"], found["maps_1"])
        assert compare(reference, loaded, spec, crops(spec, 2)).largest_value < tolerance


def test_every_stage_of_cpm_agrees_with_torch(staged):
    check_stages(*staged, TOLERANCE)


def test_every_stage_of_an_hourglass_agrees_with_torch(tmp_path):
    weights, path = made(tmp_path, "hourglass2"), tmp_path / "s.onnx"
    export(weights, path, stages=True)
    check_stages(weights, path, FOLDED)


@pytest.mark.parametrize("stage", ["conv5_2_CPM", "Mconv7_stage2", "Mconv7_stage3"])
def test_a_fault_in_any_stage_shows_a_hundred_times_above_the_tolerance(staged, tmp_path, stage):
    weights, path = staged
    model = onnx.load(path)
    faulty = next(t for t in model.graph.initializer if t.name.startswith(f"net.{stage}.weight"))
    array = numpy_helper.to_array(faulty)
    faulty.CopyFrom(numpy_helper.from_array(array[::-1].copy(), faulty.name))  # joints reversed
    onnx.save(model, tmp_path / "faulty.onnx")
    loaded, spec = runtime.load(
        tmp_path / "faulty.onnx", InferenceOptions(precision="float32", cache="")
    )
    reference = TorchRuntime(*load_net(weights), stages=True)
    assert compare(reference, loaded, spec, crops(spec, 2)).largest_value > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["lite", "hourglass1"])
def test_stages_of_a_net_without_them_are_one_clear_error(tmp_path, name):
    weights = made(tmp_path, name)
    with pytest.raises(InputError, match=f"network '{name}' has one stage"):
        export(weights, tmp_path / "s.onnx", stages=True)
    assert not (tmp_path / "s.onnx").exists()


@needs_bf16
def test_bf16_is_judged_and_the_file_is_the_float32_one(cli, tmp_path, noise):
    weights = made(tmp_path, "cpm-vgg-slim")
    plain, judged = tmp_path / "plain.onnx", tmp_path / "judged.onnx"
    assert cli("export", weights, "-o", plain)[0] == 0
    call = ("export", weights, "-o", judged, "--precision", "bf16", "--calibrate", noise)
    code, out, _ = cli(*call, "--limit", "100")
    assert code == 0 and "agreement with float32: joints within 2% of the longer side" in out
    assert "float32 100.00, bf16" in out
    assert judged.read_bytes() == plain.read_bytes()


@needs_bf16
def test_a_loss_above_the_limit_writes_nothing_and_keeps_what_was_there(cli, tmp_path, noise):
    """Noise in a random network: some maximum moves, in bf16 as in INT8."""
    weights, path = made(tmp_path, "hourglass2"), tmp_path / "h.onnx"
    path.write_text("kept")
    call = ("export", weights, "-o", path, "--precision", "bf16", "--calibrate", noise)
    code, _, err = cli(*call, "--limit", "0", "--force")
    assert code == 2 and len(err.splitlines()) == 1
    assert "h.onnx not written: bf16 loses" in err and "more than the limit of 0" in err
    assert "float32 100.00, bf16" in err
    assert path.read_text() == "kept"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int4", "--calibrate", "x"], "precision 'int4' is not one of float32"),
        (["--precision", "int8"], "--calibrate DATA goes with --precision int8 or bf16"),
        (["--calibrate", "lspet"], "--calibrate DATA goes with --precision int8 or bf16"),
        (["--precision", "int8", "--calibrate", "nowhere/pictures"], "nowhere/pictures"),
        (["--precision", "int8", "--calibrate", "lspet=nowhere"], "data lspet: nowhere does not"),
    ],
)
def test_wrong_calls_are_one_clear_line(cli, tmp_path, options, message):
    code, _, err = cli("export", made(tmp_path, "lite"), "-o", tmp_path / "s.onnx", *options)
    assert code == 2 and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "s.onnx").exists()


def test_a_training_starts_from_an_exported_network(tmp_path):
    torch.manual_seed(0)
    net = nets.create("lite", joints=19)
    with torch.no_grad():  # of biases that are alike a file holds one
        for parameter in net.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    spec = ModelSpec("t", "pose", "lite", {"joints": 19}, BODY19, (64, 64))
    save_weights(tmp_path / "t.safetensors", net.state_dict(), spec)
    export(tmp_path / "t.safetensors", tmp_path / "t.onnx")
    state = start_state(str(tmp_path / "t.onnx"))
    assert state.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert torch.allclose(state[name], value, rtol=1e-3, atol=1e-7), name  # float16
    assert start_from(net, start_state("fast")) == []  # a built-in network by name
    with pytest.raises(FormatError, match=r"fast\.int8\.onnx: is quantised; .*float32"):
        start_state(str(weights_path("fast").with_name("fast.int8.onnx")))
    (tmp_path / "bad.onnx").write_bytes(b"no network at all")
    with pytest.raises(FormatError, match=r"bad\.onnx: not an ONNX file"):
        start_state(str(tmp_path / "bad.onnx"))


def test_a_training_starts_from_weights_that_lie_in_a_file_beside(tmp_path):
    path = tmp_path / "parted.onnx"
    onnx.save(onnx.load(weights_path("fast")), path, save_as_external_data=True, location="w.bin")
    own, others = start_state(str(path)), start_state("fast")
    assert own.keys() == others.keys()
    assert all(torch.equal(own[name], value) for name, value in others.items())
    (tmp_path / "w.bin").unlink()
    with pytest.raises(FormatError, match=r"parted\.onnx: the file that holds its weights is no"):
        start_state(str(path))
