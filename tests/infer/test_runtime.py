"""Export and the runtimes: parity with torch, settings, and damaged files."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from humanpose import nets
from humanpose.api import load_model
from humanpose.checkpoints.store import load_net, save_weights
from humanpose.errors import DeviceError, FormatError, InputError
from humanpose.export.onnx import compare, export
from humanpose.infer import runtime
from humanpose.infer.options import InferenceOptions
from humanpose.infer.topdown import TopDown
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.skeleton import BODY19, CPM14
from humanpose.spec import METADATA_KEY, ModelSpec

POSE = ModelSpec("small", "pose", "lite", {"joints": 5}, BODY19, (64, 96), data=("nothing",))
PERSON = ModelSpec("p", "person", "person", {}, BODY19, (96, 64), crop="whole", decode="boxes")
NO_CACHE = InferenceOptions(precision="float32", cache="")
TOLERANCE = 1e-4  # of an output's range


def made(folder: Path, spec: ModelSpec) -> tuple[Path, Path]:
    """(safetensors, onnx) of a net with He weights and random biases, rounded to float16."""
    torch.manual_seed(3)
    net = nets.create(spec.net, **spec.options)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.normal_(0, 0.1)
            p.copy_(p.half().float())
    weights = folder / f"{spec.net}.safetensors"
    save_weights(weights, net.state_dict(), spec)
    reports = export(weights, folder / f"{spec.net}.onnx")
    labels = [report.runtime for report in reports]
    assert labels[1:3] == ["openvino float32", "onnxruntime float32"]
    return weights, folder / f"{spec.net}.onnx"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("export")
    return {spec.net: made(folder, spec) for spec in (POSE, PERSON)}


def crops(spec: ModelSpec, n: int) -> np.ndarray:
    width, height = spec.input
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3), np.uint8)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", ["lite", "person"])
def test_backends_agree_with_torch_at_any_batch(files, name, backend):
    weights, path = files[name]
    net, spec = load_net(weights)
    loaded, read = runtime.load(
        path, InferenceOptions(runtime=backend, precision="float32", cache="")
    )
    assert read == spec and loaded.name == backend and loaded.precision == "float32"
    reference = TorchRuntime(net, spec)
    for n in (1, 3):
        report = compare(reference, loaded, spec, crops(spec, n))
        assert report.largest_value < TOLERANCE
        assert name == "person" or report.largest_pixel < 0.05


def test_cpm_runs_exported_with_its_centre_map_inside_at_any_batch(tmp_path):
    spec = ModelSpec(
        "c", "pose", "cpm-vgg", {"stages": 2}, CPM14, (64, 96), multiple_of=8, channels="bgr",
        mean=(128.0,) * 3, std=(256.0,) * 3, stride=8, background=True, decode="argmax",
    )  # fmt: skip
    torch.manual_seed(0)
    net = nets.create("cpm-vgg", stages=2)
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    weights, path = tmp_path / "c.safetensors", tmp_path / "c.onnx"
    save_weights(weights, {n: p.half().float() for n, p in net.state_dict().items()}, spec)
    export(weights, path)
    reference = TorchRuntime(load_net(weights)[0], spec)
    for backend in ("openvino", "onnxruntime"):
        loaded, _ = runtime.load(
            path, InferenceOptions(runtime=backend, precision="float32", cache="")
        )
        for n in (1, 3):
            assert compare(reference, loaded, spec, crops(spec, n)).largest_value < TOLERANCE
    people = TopDown(loaded, spec).estimate(crops(spec, 1)[0], np.array([[5, 5, 40, 60]], "f4"))
    assert people[0].joints.shape == (14, 2)  # the background map is no joint
    for backend in ("openvino", "onnxruntime"):  # another box size: the centre map moves along
        loaded, sized = runtime.load(
            path, InferenceOptions(runtime=backend, precision="float32", cache=""), 120
        )
        assert sized.input == (80, 120)
        report = compare(reference, loaded, sized, crops(sized, 2))
        assert report.largest_value < TOLERANCE
    with pytest.raises(InputError, match="multiples of 8"):
        runtime.load(path, NO_CACHE, 100)


@pytest.mark.parametrize("place", ["backbone.stem", "backbone.blocks.9.project", "pyramid", "maps"])
def test_a_fault_in_any_stage_shows_a_hundred_times_above_the_tolerance(files, tmp_path, place):
    weights, path = files["lite"]
    model = onnx.load(path)
    faulty = next(
        t
        for t in model.graph.initializer
        if t.name.startswith(f"net.{place}") and "weight" in t.name
    )
    array = numpy_helper.to_array(faulty)
    faulty.CopyFrom(numpy_helper.from_array(array[::-1].copy(), faulty.name))  # channels reversed
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    net, spec = load_net(weights)
    report = compare(
        TorchRuntime(net, spec), runtime.load(broken, NO_CACHE)[0], spec, crops(spec, 2)
    )
    assert report.largest_value > 100 * TOLERANCE


def test_results_are_copies_that_the_next_call_does_not_overwrite(files):
    loaded, spec = runtime.load(files["lite"][1], NO_CACHE)
    first = loaded.run(crops(spec, 1))["maps"]
    before = first.copy()
    loaded.run(crops(spec, 1)[:, ::-1])
    assert (first == before).all()


@pytest.mark.parametrize("count", [1, 2], ids=["memory of its own", "any batch"])
def test_threads_that_share_a_network_get_each_their_own_results(files, count):
    loaded, spec = runtime.load(files["lite"][1], NO_CACHE)
    rng = np.random.default_rng(5)
    width, height = spec.input
    inputs = [rng.integers(0, 256, (count, height, width, 3), np.uint8) for _ in range(8)]
    alone = [loaded.run(each)["maps"] for each in inputs]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: loaded.run(each)["maps"], inputs * 20))
    for i, maps in enumerate(together):
        assert (maps == alone[i % 8]).all()


def test_another_input_size_is_possible_in_openvino(files):
    loaded, _ = runtime.load(files["lite"][1], NO_CACHE, size=(128, 64))
    assert loaded.run(np.zeros((1, 64, 128, 3), np.uint8))["maps"].shape == (1, 5, 16, 32)
    with pytest.raises(InputError, match="must be multiples of 32"):
        runtime.load(files["lite"][1], NO_CACHE, size=(100, 64))


def test_weights_are_stored_as_float16_with_the_description_inside(files):
    weights, path = files["lite"]
    assert path.stat().st_size < 0.55 * weights.stat().st_size
    assert runtime.read_spec(path) == POSE


def test_second_start_uses_the_cache(files, tmp_path):
    settings = InferenceOptions(precision="float32", cache=str(tmp_path / "cache é"))
    runtime.load(files["lite"][1], settings)
    blobs = list((tmp_path / "cache é").iterdir())
    assert blobs
    stamps = [blob.stat().st_mtime_ns for blob in blobs]
    first = runtime.load(files["lite"][1], NO_CACHE)[0].run(crops(POSE, 1))["maps"]
    again = runtime.load(files["lite"][1], settings)[0].run(crops(POSE, 1))["maps"]
    assert np.allclose(first, again, atol=1e-5)
    assert [blob.stat().st_mtime_ns for blob in (tmp_path / "cache é").iterdir()] == stamps


def test_a_cache_that_cannot_be_made_is_no_error(files, tmp_path):
    (tmp_path / "file").write_text("")
    runtime.load(files["lite"][1], InferenceOptions(cache=str(tmp_path / "file" / "below")))


def test_bf16_where_the_cpu_has_it(files):
    import openvino as ov

    has = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    auto, _ = runtime.load(files["lite"][1], InferenceOptions(cache=""))
    assert auto.precision == ("bf16" if has else "float32")
    if not has:
        with pytest.raises(DeviceError, match="bf16: CPU does not compute in it"):
            runtime.load(files["lite"][1], InferenceOptions(precision="bf16", cache=""))


def test_the_int8_form_beside_a_network_is_found(files, tmp_path, monkeypatch):
    """A file that says so of itself; what is computed in is held by the tests of export."""
    path, small = tmp_path / "n.onnx", tmp_path / "n.int8.onnx"
    path.write_bytes(files["lite"][1].read_bytes())
    with pytest.raises(InputError, match=r"n\.onnx is not quantised; .* writes n\.int8\.onnx"):
        load_model(path, InferenceOptions(precision="int8", cache=""))
    model = onnx.load(path)
    entry = next(each for each in model.metadata_props if each.key == METADATA_KEY)
    entry.value = replace(ModelSpec.from_json(entry.value), precision="int8").to_json()
    onnx.save(model, small)
    found, _, used = load_model(path, InferenceOptions(precision="int8", cache=""))
    assert (found.precision, used) == ("int8", small)
    found, _, used = load_model(path, InferenceOptions(precision="float32", cache=""))
    assert (found.precision, used) == ("float32", path)
    for x86, wanted in ((True, small), (False, path)):
        monkeypatch.setattr(runtime, "_X86", x86)
        assert runtime.chosen(path, InferenceOptions()) == wanted
        assert runtime.chosen(path, InferenceOptions(runtime="onnxruntime")) == path
        assert runtime.chosen(path, InferenceOptions(device="gpu")) == path
    weights = tmp_path / "n.safetensors"  # it has no INT8 form, whatever lies beside it
    weights.write_bytes(files["lite"][0].read_bytes())
    found, _, used = load_model(weights, InferenceOptions(cache=""))
    assert (found.name, found.precision, used) == ("torch", "float32", weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtime": "tensorrt"}, "runtime 'tensorrt' is not one of auto"),
        ({"precision": "int4"}, "precision 'int4' is not one of"),
        ({"device": "npu9"}, "device 'npu9' is not here; OpenVINO sees: cpu"),
        ({"runtime": "onnxruntime", "device": "tpu"}, "device 'tpu': ONNX Runtime does not"),
        ({"runtime": "onnxruntime", "precision": "bf16"}, "ONNX Runtime computes in float32"),
    ],
)
def test_wrong_options_are_named(files, changes, message):
    with pytest.raises((InputError, DeviceError), match=message):
        runtime.load(files["lite"][1], InferenceOptions(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int8"}, r"lite\.safetensors has to be quantised"),
        ({"precision": "fp16"}, "precision 'fp16' is not one of"),
        ({"runtime": "onnxruntime"}, r"runtime onnxruntime: torch runs lite\.safetensors"),
        ({"device": "npu"}, r"device 'npu': torch, which runs lite\.safetensors, sees none"),
    ],
)
def test_options_that_torch_cannot_follow_are_named(files, changes, message):
    with pytest.raises((InputError, DeviceError), match=message):
        load_model(files["lite"][0], InferenceOptions(**changes))


def test_torch_runs_on_as_many_threads_as_asked(files):
    before = torch.get_num_threads()
    try:
        load_model(files["lite"][0], InferenceOptions(threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_network_on_a_device_has_its_pixel_rules_there():
    deployed = TorchRuntime(nets.create("lite", joints=19).to("meta"), POSE).deployed
    assert {tensor.device.type for tensor in deployed.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_damaged_and_foreign_files_are_one_clear_error(files, tmp_path, backend):
    settings = InferenceOptions(runtime=backend, cache="")
    whole = files["lite"][1].read_bytes()
    foreign = onnx.load(files["lite"][1])
    del foreign.metadata_props[:]
    contents = [b"", b"hello", whole[:2000], whole[: len(whole) // 2], foreign.SerializeToString()]
    for i, content in enumerate(contents):
        path = tmp_path / f"bad {i}.onnx"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=rf"bad {i}\.onnx: damaged, or not a model made by"):
            runtime.load(path, settings)
    with pytest.raises(InputError, match=r"gone\.onnx: no such model file"):
        runtime.load(tmp_path / "gone.onnx", settings)
