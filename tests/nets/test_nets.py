import numpy as np
import pytest
import torch

from humanpose import nets
from humanpose.checkpoints.start.movenet import read_movenet
from humanpose.checkpoints.start.onnx_file import read_onnx
from humanpose.checkpoints.store import load_net, load_weights, save_weights, start_from
from humanpose.errors import FormatError, InputError
from humanpose.nets.detector import STRIDES, PersonNet
from humanpose.nets.lite import likelihood
from humanpose.nets.torch_runtime import ExportModule, TorchRuntime
from humanpose.skeleton import BODY19
from humanpose.spec import ModelSpec

POSE = ModelSpec("t", "pose", "lite", {"joints": 5}, BODY19, (64, 96))
PERSON = ModelSpec("t", "person", "person", {}, BODY19, (96, 64), crop="whole", decode="boxes")
CASES = [
    ("lite", {"joints": 5}, 2_302_413, {"maps": 5}),
    ("person", {}, 889_058, {"boxes": 5}),
]


@pytest.mark.parametrize(("name", "options", "count", "channels"), CASES)
def test_shapes_parameters_and_gradients(name, options, count, channels):
    torch.manual_seed(0)
    net = nets.create(name, **options)
    assert sum(p.numel() for p in net.parameters()) == count
    for width, height in ((64, 96), (128, 64)):
        out = net.outputs(torch.randn(2, 3, height, width))
        shapes = {key: tuple(value.shape) for key, value in out.items()}
        cells = sum(height // s * (width // s) for s in STRIDES)
        assert shapes == {
            k: (2, cells, c) if k == "boxes" else (2, c, height // 4, width // 4)
            for k, c in channels.items()
        }
        assert all(torch.isfinite(value).all() for value in out.values())
    # Weighted by noise: the plain sum of soft-max-like maps has no gradient in some places.
    sum((value * torch.randn_like(value)).sum() for value in out.values()).backward()
    missing = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


def test_unknown_net_and_option_are_named():
    with pytest.raises(
        InputError, match=r"unknown network 'resnet51'; there are: cpm-centermap.*person, resnet101"
    ):
        nets.create("resnet51")
    with pytest.raises(InputError, match=r"network 'lite':.*depth"):
        nets.create("lite", depth=3)


def test_the_person_net_takes_either_activation():
    torch.manual_seed(0)
    curved, straight = nets.create("person").eval(), nets.create("person", activation="hardswish")
    straight.load_state_dict(curved.state_dict())
    kinds = {type(part).__name__ for part in straight.modules()}
    assert "Hardswish" in kinds and "SiLU" not in kinds
    image = torch.randn(1, 3, 64, 96)
    a, b = (net.eval().trunk.stem(image) for net in (curved, straight))
    assert 0 < (a - b).abs().max() < 0.2  # of curves that differ by 0.14 where most
    with pytest.raises(InputError, match="activation 'gelu' is not one of silu, hardswish"):
        nets.create("person", activation="gelu")


def test_likelihood_has_the_soft_maxs_shape_and_the_scores_height():
    logits = torch.randn(2, 3, 8, 6)
    maps = likelihood(logits)
    peak = logits.amax((2, 3))
    assert torch.allclose(maps.amax((2, 3)), torch.sigmoid(peak))
    soft = torch.softmax(logits.flatten(2), -1)
    assert torch.allclose(maps.flatten(2) / maps.flatten(2).sum(-1, keepdim=True), soft, atol=1e-6)


def test_pixel_rules_of_the_spec_are_obeyed():
    spec = ModelSpec(
        "t", "pose", "lite", {"joints": 5}, BODY19, (64, 96),
        channels="bgr", mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0),
    )  # fmt: skip
    image = torch.tensor([30, 20, 10], dtype=torch.uint8).expand(1, 96, 64, 3)
    plain = ExportModule(nets.create("lite", joints=5), spec).normalised(image)
    assert plain.shape == (1, 3, 96, 64)
    assert plain[0, :, 0, 0].tolist() == [0, 0, 0]  # R = 30 is the third channel of BGR


def test_weights_and_spec_survive_a_file(tmp_path):
    net = nets.create("lite", joints=5).eval()
    path = tmp_path / "w.safetensors"
    save_weights(path, net.state_dict(), POSE)
    again, spec = load_net(path)
    assert spec == POSE
    crops = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3), np.uint8)
    ours, theirs = TorchRuntime(net, POSE).run(crops), TorchRuntime(again, spec).run(crops)
    assert (ours["maps"] == theirs["maps"]).all()


def test_damaged_and_foreign_weights_are_one_clear_error(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"w\.safetensors: no such weights file"):
        load_weights(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(FormatError, match=r"w\.safetensors: not a readable safetensors file"):
        load_weights(path)
    save_weights(path, nets.create("person").state_dict(), POSE)
    with pytest.raises(FormatError, match="weights do not fit network 'lite'"):
        load_net(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FormatError, match="not a readable"):
        load_weights(path)


def test_start_from_grows_a_head_and_says_what_is_new():
    small, large = nets.create("lite", joints=3), nets.create("lite", joints=5)
    own = large.state_dict()["maps.out.conv.weight"].clone()
    new = start_from(large, small.state_dict())
    assert new == ["maps.out.conv.weight", "maps.out.conv.bias"]
    grown = large.state_dict()["maps.out.conv.weight"]
    assert torch.equal(grown[:3], small.state_dict()["maps.out.conv.weight"])
    assert torch.equal(grown[3:], own[3:])
    assert torch.equal(large.state_dict()["backbone.stem.conv.weight"],
                       small.state_dict()["backbone.stem.conv.weight"])  # fmt: skip


def test_a_wider_start_computes_what_the_narrow_net_did():
    torch.manual_seed(0)
    narrow = nets.create("lite", joints=3).eval()
    wide = nets.create("lite", joints=3, width=1.25, pyramid=[40, 32, 96]).eval()
    new = start_from(wide, narrow.state_dict(), wider=True)
    assert "pyramid.top.conv.weight" in new and "maps.out.conv.weight" not in new
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(wide(image), narrow(image), rtol=1e-4, atol=1e-4)
    # New channels are not dead: they learn as soon as what they feed has learnt to listen.
    rates = torch.optim.SGD(wide.parameters(), lr=0.01)
    for _ in range(3):
        rates.zero_grad()
        wide(image).square().mean().backward()
        rates.step()
    assert all(p.grad is not None and p.grad.any() for p in wide.parameters())
    assert wide.pyramid.top.conv.weight.grad[64:].any()
    wide = nets.create("lite", joints=3, pyramid=[40, 32, 64])
    name = "pyramid.laterals.2.conv.weight", "maps.separable.pointwise.conv.weight"
    own = [wide.state_dict()[each].clone() for each in name]
    start_from(wide, narrow.state_dict())
    rows, inputs = (wide.state_dict()[each] for each in name)
    assert not torch.equal(rows, own[0])
    assert torch.equal(inputs, own[1])  # not asked for: left as it was
    with pytest.raises(InputError, match=r"pyramid \[24, 32\] is not three counts"):
        nets.create("lite", pyramid=[24, 32])


def test_movenet_is_read_to_the_layer(data, photo):
    """Against the file's own graph run by OpenVINO; its int8 rounding sets the distance."""
    import cv2
    import openvino as ov

    path = data / "weights" / "movenet_single_pose_lightning_ptq.tflite"
    state = read_movenet(path)
    net = nets.create("lite", joints=17).eval()
    assert start_from(net, state) == []
    graph = ov.Core().read_model(path)
    peaks = [op.output(0) for op in graph.get_ordered_ops() if op.get_type_name() == "Sigmoid"]
    # Quantised layers computed in float32: int8 kernels saturate on a CPU without VNNI.
    options = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
    run = ov.compile_model(ov.Model(peaks, graph.get_parameters()), "CPU", options)
    image = cv2.resize(cv2.imread(str(photo))[..., ::-1], (192, 192))[None]
    theirs = run(np.ascontiguousarray(image))[0]
    x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1

    def likeness() -> float:
        with torch.inference_mode():
            ours = torch.sigmoid(net(x)).numpy()
        return float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])

    assert likeness() > 0.9
    with torch.no_grad():  # a deliberate fault in one layer of the middle must show
        net.get_parameter("backbone.blocks.8.project.conv.weight").mul_(-1)
    assert likeness() < 0.6


def test_another_tflite_is_refused(data):
    path = data / "weights" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    with pytest.raises(FormatError, match="not MoveNet"):
        read_movenet(path)
    with pytest.raises(InputError, match=r"gone\.tflite: no such file"):
        read_movenet(path.with_name("gone.tflite"))


def test_yolox_nano_is_read_to_the_layer(data):
    """Ours and ONNX Runtime on the published file, one guess at a time."""
    ort = pytest.importorskip("onnxruntime")
    path = data / "weights" / "yolox_nano_bigisland.onnx"
    net = PersonNet().eval()
    net.load_state_dict(read_onnx(path))
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)
    (theirs,) = ort.InferenceSession(path).run(None, {"images": image})
    with torch.no_grad():
        found = net(torch.from_numpy(image / 255))
    ours = {name: value[0].numpy() for name, value in found.items()}
    grid, stride = [], []
    for s in STRIDES:
        rows, columns = np.divmod(np.arange((416 // s) ** 2), 416 // s)
        grid.append(np.stack([columns, rows], 1))
        stride.append(np.full((len(rows), 1), s))
    scale = np.concatenate(stride)
    middle = (theirs[0, :, :2] + np.concatenate(grid)) * scale - 0.5
    assert np.allclose(ours["box"][:, :2], middle, atol=0.01)
    assert np.allclose(ours["box"][:, 2:], np.exp(theirs[0, :, 2:4]) * scale, rtol=1e-4)
    for name, column in (("object", 4), ("kind", 5)):
        assert np.allclose(1 / (1 + np.exp(-ours[name])), theirs[0, :, column], atol=1e-5)


def test_what_is_not_yolox_is_refused(tmp_path, data):
    for name, content in (("a.onnx", b"nothing"), ("b.onnx", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=name):
            read_onnx(tmp_path / name)
    with pytest.raises(FormatError, match="YOLOX-nano has"):
        read_onnx(data / "weights" / "ultralight_nano_simplepose_192x256.onnx")
    with pytest.raises(InputError, match=r"gone\.onnx"):
        read_onnx(tmp_path / "gone.onnx")


@pytest.mark.parametrize("width", [1.0, 1.75])
def test_evener_weights_are_the_same_function(width):
    from humanpose.nets.lite import equalize

    torch.manual_seed(0)
    net = nets.create("lite", joints=5, width=width).eval()
    with torch.no_grad():  # sizes as folded normalisation leaves them
        for i, parameter in enumerate(net.parameters()):
            parameter.mul_(20.0 ** ((i * 7) % 3 - 1)).add_(0.01 * torch.randn_like(parameter))
    net, image = net.double(), torch.rand(1, 3, 64, 64).double() * 2 - 1
    with torch.inference_mode():
        before = net(image)

    def sizes():
        return [
            part.conv.weight.detach().square().mean().mul(part.conv.weight[0].numel()).item()
            for part in (*net.pyramid.laterals, *(each.pointwise for each in net.pyramid.smooths))
        ]

    uneven = sizes()
    equalize(net)
    with torch.inference_mode():
        after = net(image)
    assert before.std() > 0 and torch.allclose(before, after, rtol=1e-9, atol=1e-9)
    assert max(sizes()) / min(sizes()) < 0.2 * max(uneven) / min(uneven)


def test_lite_may_have_batch_normalisation():
    net = nets.create("lite", joints=5, norm="batch")
    plain = nets.create("lite", joints=5)
    kinds = [type(part) for part in net.modules()]
    assert kinds.count(torch.nn.BatchNorm2d) == kinds.count(torch.nn.Conv2d) - 1  # not the maps
    assert torch.nn.BatchNorm2d not in [type(part) for part in plain.modules()]
    biased = [name for name in net.state_dict() if name.endswith("conv.bias")]
    assert biased == ["maps.out.conv.bias"]
    assert plain.state_dict().keys() >= {name for name in net.state_dict() if ".norm." not in name}
    maps = net(torch.randn(2, 3, 64, 64))
    maps.square().mean().backward()
    assert maps.shape == (2, 5, 16, 16)
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    with pytest.raises(InputError, match="norm 'group' is not one of none, batch"):
        nets.create("lite", norm="group")
