"""The reference networks: size, cost, shapes, names and what each option does."""

import pytest
import torch
from torch import nn

from humanpose import nets
from humanpose.errors import InputError
from humanpose.nets.cpm import centre_map

# name, options, parameters, state entries, (width, height), multiply-accumulates
# (published prototxt files, official checkpoints, and counts made from the public code).
TABLE = [
    ("cpm-centermap", {}, 31_219_866, None, (368, 368), 175.4e9),
    ("cpm-vgg", {}, 29_852_058, None, (368, 368), 88.4e9),
    ("cpm-flic", {}, 21_323_816, None, (368, 368), 154.5e9),
    ("cpm-person", {}, 25_714_372, None, (656, 368), 142.0e9),
    ("cpm-hand", {}, 36_832_324, None, (368, 368), 103e9),
    ("cpm-hand", {"stages": 3}, 24_316_162, None, (256, 256), 37e9),
    ("cpm-hand-s4", {}, 24_316_162, None, (128, 128), 32.5e9),
    ("cpm-vgg-slim", {}, 29_852_058, None, (368, 368), 88.4e9),
    ("cpm-hand-slim", {}, 36_832_324, None, (368, 368), 103e9),
    ("hrnet-w32", {"joints": 16}, 28_536_080, 1754, (256, 256), 10.193e9),
    ("hrnet-w32", {}, 28_536_113, 1754, (192, 256), 7.645e9),
    ("hrnet-w48", {"joints": 16}, 63_595_696, 1754, (256, 256), 20.922e9),
    ("hrnet-w48", {}, 63_595_745, 1754, (288, 384), 35.307e9),
    ("resnet50", {"joints": 16}, 33_999_440, 338, (256, 256), 7.234e9),
    ("resnet101", {}, 52_991_825, 644, (192, 256), 9.063e9),
    ("resnet152", {}, 68_635_473, 950, (288, 384), 28.573e9),
    ("hourglass1", {}, 3_586_960, 377, (256, 256), None),
    ("hourglass2", {"blocks": 4}, 24_751_264, 2448, (256, 256), None),
    ("hourglass8", {}, 25_594_624, 2526, (256, 256), None),
]


@pytest.mark.parametrize(
    ("name", "options", "count", "entries", "size", "cost"), TABLE, ids=lambda v: str(v)[:24]
)
def test_size_and_cost_are_the_published_ones(name, options, count, entries, size, cost):
    with torch.device("meta"):
        net = nets.create(name, **options)
    assert sum(p.numel() for p in net.parameters()) == count
    assert entries in (None, len(net.state_dict()))
    if cost is not None:
        digits = 0.5e9 if cost > 30e9 and "cpm-hand" in name else 0.06e9 if cost > 30e9 else 0.6e6
        assert abs(nets.macs(name, size, **options) - cost) < digits


@pytest.mark.parametrize(
    "name", ["hrnet-w32", "resnet50", "hourglass1", "cpm-vgg", "cpm-centermap", "cpm-hand-s4"]
)
def test_maps_have_the_stride_and_every_parameter_a_gradient(name):
    torch.manual_seed(0)
    net = nets.create(name, joints=5)
    for part in net.modules():  # the releases' own starts are so small that gradients underflow
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight)
    stride = {"cpm-vgg": 8, "cpm-centermap": 8}.get(name, 4)
    maps = net.outputs(torch.randn(2, 3, 128, 64))["maps"]
    assert maps.shape == (2, 5 + name.startswith("cpm"), 128 // stride, 64 // stride)
    assert torch.isfinite(maps).all()
    (maps * torch.randn_like(maps)).mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_sizes_a_net_cannot_take_are_refused():
    for name, message in (("hrnet-w32", "multiples of 32"), ("hourglass1", "multiples of 64")):
        with pytest.raises(InputError, match=message):
            nets.create(name)(torch.zeros(1, 3, 96, 80))


# ------------------------------------------------------------------------------------------- CPM


def test_cpm_gives_the_maps_of_every_stage_and_needs_its_centre_map():
    net = nets.create("cpm-vgg", stages=3, joints=4)
    image, centre = torch.randn(1, 3, 64, 96), centre_map(96, 64)
    maps = net(image, centre)
    assert [tuple(m.shape) for m in maps] == [(1, 5, 8, 12)] * 3
    with pytest.raises(InputError, match="needs a centre map"):
        net(image)
    person = nets.create("cpm-person", stages=2)
    assert person(image)[-1].shape == (1, 1, 8, 12)


def test_cpm_pools_as_caffe_does_and_as_tensorflow_on_request():
    """Caffe: 368 -> 46 and 100 -> 13; TensorFlow's VALID: 376 -> 46 and 368 -> 45."""
    sides = {}
    for pooling, side in (("ceil", 368), ("ceil", 96), ("floor", 376), ("floor", 368)):
        with torch.device("meta"):
            net = nets.create("cpm-centermap", pooling=pooling, stages=2)
            maps = net(torch.empty(1, 3, side, side), torch.empty(1, 1, side, side))
        sides[pooling, side] = maps[-1].shape[-1]
    assert sides == {("ceil", 368): 46, ("ceil", 96): 12, ("floor", 376): 46, ("floor", 368): 45}
    with pytest.raises(InputError, match="neither ceil nor floor"):
        nets.create("cpm-vgg", pooling="same")


def test_cpm_at_another_width_and_start():
    with torch.device("meta"):
        whole, half = (
            nets.create("cpm-vgg", stages=3, init="kaiming", width=width) for width in (1, 0.5)
        )
    for name, layer in half.named_modules():
        if isinstance(layer, nn.Conv2d):
            widest = whole.get_submodule(name).out_channels
            assert layer.out_channels == (15 if widest == 15 else widest // 2), name
    image, sizes = torch.rand(1, 3, 96, 96) - 0.5, {}
    for init in ("gaussian", "xavier", "kaiming"):
        torch.manual_seed(0)
        net = nets.create("cpm-vgg", stages=2, init=init, width=0.25)
        with torch.no_grad():
            sizes[init] = float(net.outputs(image)["maps_1"].std())
    # Through fifteen layers the others' signal dies.
    assert sizes["gaussian"] < 1e-9 and sizes["xavier"] < 0.01 and 0.1 < sizes["kaiming"] < 10
    for options, message in (
        ({"width": 0}, "width must be above 0, not 0"),
        ({"init": "he"}, "init 'he' is not one of gaussian, kaiming, xavier"),
    ):
        with pytest.raises(InputError, match=message):
            nets.create("cpm-vgg", **options)


def test_only_the_slim_nets_have_no_negative_belief():
    image, centre = torch.randn(1, 3, 32, 32), centre_map(32, 32)
    for name, negative in (("cpm-vgg", True), ("cpm-vgg-slim", False)):
        torch.manual_seed(0)
        net = nets.create(name, stages=2)
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
        assert all(bool((m < 0).any()) == negative for m in net(image, centre))


def test_cpm_layers_have_the_releases_names():
    names = {n.removesuffix(".weight") for n, _ in nets.create("cpm-centermap").named_parameters()}
    assert {
        "conv1_stage1",
        "conv7_stage1",
        "conv4_stage2",
        "conv1_stage3",
        "Mconv5_stage6",
    } <= names
    names = {n.removesuffix(".weight") for n, _ in nets.create("cpm-vgg").named_parameters()}
    assert {"conv4_7_CPM", "conv5_2_CPM", "Mconv7_stage2", "Mconv1_stage6"} <= names


def test_centre_map_may_be_psycharos():
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    net = nets.create("cpm-vgg", stages=2, centre_sigma=25 / 2**0.5).eval()
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    rows = torch.arange(64.0)
    away = (rows[:, None] - 32) ** 2 + (rows[None] - 32) ** 2
    theirs = torch.exp(-away / 25**2).view(1, 1, 64, 64)
    with torch.no_grad():
        expected = net(image, theirs)[-1]
        assert torch.allclose(net.outputs(image)["maps"], expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(net(image, centre_map(64, 64))[-1], expected, rtol=1e-2)


def test_centre_map_is_the_demos():
    assert centre_map(8, 6)[0, 0, 3, 4] == 1
    expected = torch.exp(torch.tensor(-(3**2 + 4**2) / (2 * 21**2)))
    assert torch.isclose(centre_map(8, 6)[0, 0, 0, 0], expected)


# ----------------------------------------------------------------------------------------- HRNet


def test_hrnet_names_are_the_official_ones():
    names = set(nets.create("hrnet-w32").state_dict())
    assert {
        "conv1.weight", "bn2.running_var", "layer1.0.downsample.1.bias", "transition1.0.0.weight",
        "transition1.1.0.1.weight", "transition3.3.0.0.weight",
        "stage2.0.branches.1.3.conv2.weight",
        "stage3.3.fuse_layers.0.2.1.weight", "stage4.0.fuse_layers.3.0.2.0.weight",
        "stage4.2.fuse_layers.0.3.0.weight", "final_layer.bias",
    } <= names  # fmt: skip
    assert not any(n.startswith(("stage4.2.fuse_layers.1", "transition2.0")) for n in names)


@torch.inference_mode()
def test_hrnet_without_normalisation_and_activation_is_linear():
    torch.manual_seed(0)
    for activation, linear in (("identity", True), ("relu", False)):
        net = nets.create(
            "hrnet-w32", joints=3, width=8, norm="none", activation=activation, init="kaiming"
        )
        kinds = {type(part) for part in net.modules()}
        assert nn.BatchNorm2d not in kinds and (nn.ReLU in kinds) != linear
        x, y = torch.randn(2, 1, 3, 32, 32, dtype=torch.float64)
        net = net.double()
        zero = net(torch.zeros_like(x))
        left = net(2 * x - 3 * y) - zero
        right = 2 * (net(x) - zero) - 3 * (net(y) - zero)
        assert (
            bool(torch.allclose(left, right, rtol=1e-6, atol=1e-6 * float(right.abs().max())))
            == linear
        )


@pytest.mark.parametrize("init", ["official", "kaiming", "fixup"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_hrnet_variants_run_and_start_as_they_say(norm, init):
    torch.manual_seed(0)
    net = nets.create("hrnet-w32", joints=3, width=8, norm=norm, init=init)
    kinds = [type(part) for part in net.modules()]
    assert (nn.BatchNorm2d in kinds, nn.GroupNorm in kinds) == (norm == "batch", norm == "group")
    out = net(torch.randn(2, 3, 32, 64))
    assert out.shape == (2, 3, 8, 16) and torch.isfinite(out).all()
    block = net.stage2[0].branches[0][0]
    if init == "official":
        assert 0.0008 < block.conv1.weight.std() < 0.0012
        if norm == "none":  # the signal dies: the reason why a comparison needs a repaired start
            assert out.std() < 1e-6
    if init == "fixup":
        assert not block.conv2.weight.any()


@torch.inference_mode()
def test_fixups_start_keeps_the_signals_size_through_all_stages():
    torch.manual_seed(0)
    image, sizes = torch.randn(2, 3, 64, 64), {}
    for init in ("kaiming", "fixup"):
        net = nets.create("hrnet-w32", joints=3, width=8, norm="none", init=init)
        seen: list[torch.Tensor] = []
        for stage in (net.stage2, net.stage4):
            stage.register_forward_hook(lambda *call, seen=seen: seen.append(call[2][0]))
        out = net(image)
        sizes[init] = float(seen[1].std() / seen[0].std())
    assert sizes["fixup"] == pytest.approx(1, abs=0.01)  # nothing is added yet
    assert 0 < out.std() < 0.01
    assert sizes["kaiming"] > 1e3


def test_hrnet_refuses_what_it_does_not_know():
    with pytest.raises(InputError, match="'layer' is not one of batch, group, none"):
        nets.create("hrnet-w32", norm="layer")
