"""INT8 files: both back-ends, what stays in float32, the gate, and what is refused."""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import numpy_helper

from humanpose import nets
from humanpose.api import PoseEstimator
from humanpose.checkpoints.start.onnx_file import read_onnx
from humanpose.checkpoints.store import load_net, save_weights
from humanpose.data.sets import evenly
from humanpose.errors import MissingExtraError
from humanpose.export import accuracy_check
from humanpose.export.accuracy_check import Examples
from humanpose.export.onnx import Lower, export, traced
from humanpose.export.quantise import nncf_module, quantised, split_concatenated
from humanpose.infer import runtime
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import weights_path
from humanpose.lab.training import network_scores
from humanpose.nets.torch_runtime import ExportModule, TorchRuntime
from humanpose.skeleton import BODY19, CPM14
from humanpose.spec import ModelSpec

CPM = {
    "multiple_of": 8, "channels": "bgr", "mean": (128.0,) * 3, "std": (256.0,) * 3, "stride": 8,
}  # fmt: skip
POSE = ModelSpec(
    "c", "pose", "cpm-vgg", {"stages": 2}, CPM14, (64, 64), background=True, decode="argmax", **CPM
)
PERSON = ModelSpec(
    "d", "person", "cpm-person", {"stages": 2}, CPM14, (112, 64), crop="picture-height",
    decode="peaks", **CPM,
)  # fmt: skip


def made(folder: Path, spec: ModelSpec) -> Path:
    """Weights with He start and random biases."""
    torch.manual_seed(3)
    net = nets.create(spec.net, **spec.options)
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
            torch.nn.init.normal_(part.bias, 0, 0.1)
    weights = folder / f"{spec.net}.safetensors"
    save_weights(weights, net.state_dict(), spec)
    return weights


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of small pictures with something coarse in them."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        coarse = np.random.default_rng(i).integers(0, 256, (9, 12, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(coarse, (112, 64)))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory, pictures) -> tuple[Path, Path, list[str]]:
    """(weights, INT8 file with all stages, lines shown) of a CPM net with two stages."""
    folder = tmp_path_factory.mktemp("int8")
    weights, path, shown = made(folder, POSE), folder / "c.onnx", []
    lower = Lower("int8", Examples.read([str(pictures)], network_scores), 100.0, shown.append)
    reports = export(weights, path, stages=True, lower=lower)
    assert [report.runtime for report in reports[1:]] == ["openvino int8", "onnxruntime int8"]
    return weights, path, shown


def crops(pictures: Path, spec: ModelSpec) -> np.ndarray:
    read = (cv2.imread(str(path)) for path in sorted(pictures.iterdir()))
    return np.stack([cv2.resize(image, spec.input) for image in read])


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal over error."""
    return float(10 * np.log10(wanted.var() / ((wanted - found) ** 2).mean()))


def test_both_back_ends_compute_the_same_int8_and_say_so(small, pictures):
    weights, path, _ = small
    wanted = TorchRuntime(*load_net(weights), stages=True).run(crops(pictures, POSE))
    quality = []
    for backend, precision in (
        ("openvino", "float32"),
        ("openvino", "auto"),
        ("onnxruntime", "auto"),
    ):
        options = InferenceOptions(runtime=backend, precision=precision, cache="")
        loaded, spec = runtime.load(path, options)
        assert loaded.precision == spec.precision == "int8"
        found = loaded.run(crops(pictures, POSE))
        assert list(found) == list(wanted) == ["maps", "maps_1", "maps_2"]
        assert (found["maps"] == found["maps_2"]).all()
        quality.append([decibels(wanted[name], found[name]) for name in wanted])
    assert np.min(quality) > 20 and np.ptp(quality, axis=0).max() < 1.5, quality


def test_openvino_runs_all_but_the_ends_of_stages_in_int8(small):
    core = openvino.Core()
    model = core.read_model(small[1])
    model.reshape([1, 64, 64, 3])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    seen = {}
    for node in compiled.get_runtime_model().get_ops():
        about = {key: node.get_rt_info()[key].astype(str) for key in
                 ("layerType", "runtimePrecision", "originalLayersNames")}  # fmt: skip
        if about["layerType"] == "Convolution":
            seen[about["originalLayersNames"].split("/Conv")[0]] = about["runtimePrecision"]
    kept = {name for name, precision in seen.items() if precision == "f32"}
    assert kept == {"/net/conv5_2_CPM", "/net/Mconv7_stage2"} and len(seen) > 20


def test_the_file_is_small_and_tells_what_int8_cost(small):
    weights, path, shown = small
    assert path.stat().st_size < 0.27 * weights.stat().st_size
    spec = runtime.read_spec(path)
    ((rule, value),) = spec.scores.items()
    assert rule == "agreement with float32: joints within 2% of the longer side" and value > 0.5
    assert shown == [
        "int8, the outputs in float32; calibrated on 6 crops",
        f"{rule}: float32 100.00, int8 {100 * value:.2f}",
    ]
    assert PoseEstimator(path, detector=None).header("x")["models"][0]["precision"] == "int8"


@pytest.mark.parametrize("spec", [POSE, PERSON], ids=lambda spec: spec.net)
def test_a_convolution_in_parts_is_the_same_convolution(tmp_path, pictures, spec):
    net, _ = load_net(made(tmp_path, spec))
    whole = traced(ExportModule(net, spec).eval(), spec)
    parts, sums = split_concatenated(whole)
    joined = {name for node in whole.graph.node if node.op_type == "Concat" for name in node.output}
    assert any(node.input[0] in joined for node in whole.graph.node if node.op_type == "Conv")
    assert not any(node.input[:1] and node.input[0] in joined for node in parts.graph.node)
    assert len(sums) == (2 if spec is POSE else 1)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    one, other = (
        onnxruntime.InferenceSession(model.SerializeToString(), options).run(
            ["maps"], {"image": crops(pictures, spec)}
        )[0]
        for model in (whole, parts)
    )
    assert np.abs(one - other).max() < 1e-5 * np.ptp(one)


def test_depthwise_inputs_have_a_range_a_channel_and_a_tail_stays_in_float32():
    spec = ModelSpec("p", "person", "person", {}, BODY19, (96, 64), crop="whole", decode="boxes")
    graph = traced(ExportModule(nets.create("person"), spec).eval(), spec)
    inputs = np.random.default_rng(0).integers(0, 256, (4, 1, 64, 96, 3), np.uint8)
    shares = []
    for kept in (0.0, 0.4):
        model = quantised(graph, list(inputs), in_float=kept)
        maker = {name: node for node in model.graph.node for name in node.output}
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        fed = [maker.get(node.input[0]) for node in convolutions]
        small = [node for node in fed if node is not None and node.op_type == "DequantizeLinear"]
        shares.append(len(small) / len(fed))
        values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        scales = {values[node.input[1]].size for node in small}
        assert min(scales) == 1 < max(scales)
    assert shares[1] < 0.65 and shares[0] > 0.8


def test_crops_are_spread_evenly():
    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert evenly(range(3), 5) == evenly(range(3), None) == [0, 1, 2]


def test_a_score_that_is_no_number_is_the_largest_loss():
    judge = accuracy_check.AccuracyCheck.__new__(accuracy_check.AccuracyCheck)
    judge.before = {"one": 0.9, "other": 0.8}
    lines = []
    lost, line = judge.loss({"one": 0.5, "other": float("nan")}, "int8", lines.append)
    assert np.isnan(lost) and line.startswith("other") and len(lines) == 2
    lost, line = judge.loss({"one": 0.5, "other": 0.9}, "int8", lines.append)
    assert lost == pytest.approx(40) and line.startswith("one")


def test_a_missing_quantiser_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"nncf is not installed; .*humanpose\[int8\]"):
        nncf_module()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_built_in_pose_network_passes_and_a_limit_of_zero_refuses(
    cli, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(accuracy_check, "_CALIBRATION", 100)
    shipped = weights_path("fast")
    weights, path = tmp_path / "fast.safetensors", tmp_path / "b.onnx"
    save_weights(weights, read_onnx(shipped), runtime.read_spec(shipped))
    call = ("export", weights, "-o", path, "--precision", "int8")
    call += ("--calibrate", f"lspet={data / 'lspet'}")
    code, out, _ = cli(*call)
    assert code == 0 and "lspet PCK@0.2 torso" in out and "onnxruntime int8" in out
    model = onnx.load(path)
    stored = [numpy_helper.to_array(tensor).dtype for tensor in model.graph.initializer]
    assert stored.count(np.int8) > 30 and stored.count(np.float16) > 0
    path.write_text("kept")
    code, _, err = cli(*call, "--limit", "0", "--force")
    assert code == 2 and len(err.splitlines()) == 1
    assert "b.onnx not written: int8 loses" in err and "float32 67." in err
    assert path.read_text() == "kept"
