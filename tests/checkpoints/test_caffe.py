"""Caffe's weights: every form of blob, the nets' maps as OpenCV has them, hostile files."""

import time
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import ROOT
from makers.checkpoints import blob, field, v1, v2, varint

from humanpose import nets
from humanpose.checkpoints.legacy.caffe import parse_caffemodel
from humanpose.errors import FormatError, InputError, LimitError
from humanpose.nets.cpm import centre_map
from humanpose.sandbox import parse

FIXTURES = ROOT / "tests" / "data" / "caffe"


def floats(count, dtype=np.float32):
    return np.arange(1, count + 1, dtype=dtype) / 8


def read(tmp_path, data):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    return parse_caffemodel(str(path))


def a_net(layer=v2):
    """A small honest file: names, two shapes and all kinds of fields that do not matter."""
    return (
        field(1, b"net") + field(3, b"data") + field(4, 1) + field(5, 0)
        + layer("data") + layer("conv1", blob(floats(24), (2, 3, 2, 2)), blob(floats(2), (2,)))
        + layer("conv1_split") + layer("fc", blob(floats(6), legacy=(1, 1, 2, 3)),
                                       blob(floats(2), legacy=(1, 1, 1, 2)))
    )  # fmt: skip


@pytest.mark.parametrize("layer", [v1, v2])
def test_names_shapes_and_values(tmp_path, layer):
    state = read(tmp_path, a_net(layer))
    assert list(state) == ["conv1.weight", "conv1.bias", "fc.weight", "fc.bias"]
    assert [v.shape for v in state.values()] == [(2, 3, 2, 2), (2,), (1, 1, 2, 3), (2,)]
    assert all(v.dtype == np.float32 and v.flags.writeable for v in state.values())
    assert state["conv1.weight"][1, 2, 0, 1] == 22 / 8
    assert state["fc.weight"].tolist() == [[[[0.125, 0.25, 0.375], [0.5, 0.625, 0.75]]]]


def test_every_form_of_a_blob(tmp_path):
    doubles, diff = floats(6, np.float64), field(6, floats(9).tobytes())
    unpacked = field(7, field(1, 2) + field(1, 3)) + b"".join(field(5, v) for v in floats(6))
    halves = field(5, floats(2).tobytes()) + field(7, field(1, 2)) + field(7, field(1, 3))
    halves += field(5, floats(6)[2:].tobytes())
    data = v2(
        "all", blob(doubles, (2, 3), data=8), unpacked, halves, diff + blob(floats(6), (2, 3)),
        blob(floats(1), ()), b"".join([field(7, field(1, 2)), *(field(8, v) for v in doubles[:2])]),
    )  # fmt: skip
    state = read(tmp_path, data)
    assert list(state) == ["all.weight", "all.bias", "all.2", "all.3", "all.4", "all.5"]
    for name in ("all.weight", "all.bias", "all.2", "all.3"):
        assert state[name].dtype == np.float32
        assert state[name].tolist() == (np.arange(1, 7).reshape(2, 3) / 8).tolist()
    assert state["all.4"].shape == () and state["all.5"].tolist() == [0.125, 0.25]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"layer {\n  name: 'x'\n}\n", "damaged"),
        (b"<!DOCTYPE html><html>", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "damaged"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (field(1, b"net") + v2("data"), "no layer with weights"),
        (v2("a", blob(floats(2), (2,))) + v1("a", blob(floats(2), (2,))), "'a'"),
        (v2("", blob(floats(2), (2,))), "has no name"),
        (v2("a" * 1001, blob(floats(2), (2,))), "1,001 bytes"),
        (field(100, field(1, b"\xff\xfe") + field(7, b"")), "not UTF-8"),
        (field(2, field(1, field(1, b"old"))), "2013"),
        (field(100, 7), "no layer with weights"),
        (v2("a", blob(floats(6), (2, 2))), r"layer 'a': a blob of shape 2 x 2 with 6 values"),
        (v2("a", blob(floats(6))), "shape \\(\\) with 6 values"),
        (v2("a", blob(floats(0), (0, 1 << 62))), "0 x 4611686018427387904"),
        (v2("a", blob(floats(6), (-2 % 2**64, -3 % 2**64))), "shape -2 x -3"),
        (v2("a", blob(floats(4), (1 << 32, 1 << 32, 4))), "with 4 values"),
        (v2("a", blob(floats(4), (1 << 63, 2, 4))), "with 4 values"),
        (v2("a", blob(floats(1), [1] * 33)), "32 axes"),
        (v2("a", blob(floats(1), [1] * 10**6)), "32 axes"),
        (v2("a", blob(floats(3), legacy=(3,))), "shape 3 x 0 x 0 x 0"),
        (v2("a", field(5, b"12345")), "damaged"),
        (v2("a", field(5, np.float64(1))), "with 0 values"),
        (v2("a", field(1, b"x")), "with 0 values"),
        (b"".join(v2(f"{i}", blob(floats(1), (1,))) for i in range(20_001)), "20,000 blobs"),
        (v2("a", *[b""] * 20_001), "20,000 blobs"),
    ], ids=lambda part: part if isinstance(part, str) else "",
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path, data, message):
    with pytest.raises((FormatError, LimitError), match=message) as caught:
        read(tmp_path, data)
    said = str(caught.value)
    assert "net.caffemodel" in said and "\n" not in said and len(said) < 2000


def test_a_file_that_is_not_there_or_too_large(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        parse_caffemodel(str(tmp_path / "none.caffemodel"))
    path = tmp_path / "huge.caffemodel"
    with open(path, "wb") as file:
        file.truncate(2_000_000_001)  # a hole: nothing is on the disk
    with pytest.raises(LimitError, match="more than the limit"):
        parse_caffemodel(str(path))


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_blobs_are_those_that_opencv_reads(form):
    """forms.npz holds the blobs of OpenCV 4.10, by form, layer and number."""
    state = parse_caffemodel(str(FIXTURES / f"forms_{form}.caffemodel"))
    shapes = {"conv.weight": (3, 2, 3, 3), "bare.weight": (4, 3, 1, 2), "conv.bias": (3,)}
    shapes |= {"fc.bias": (5,), "fc.weight": (1, 1, 5, 96) if form == "v1" else (5, 96)}
    if form == "v2":
        shapes |= {"norm.weight": (3,), "norm.bias": (3,), "norm.2": (1,), "slope.weight": (3,)}
    assert {name: values.shape for name, values in state.items()} == shapes
    with np.load(FIXTURES / "forms.npz") as judge:
        theirs = {n: judge[n] for n in judge.files if n.startswith(form)}
    assert len(theirs) == len(state)
    for name, values in state.items():
        layer, _, part = name.rpartition(".")
        number = {"weight": "0", "bias": "1"}.get(part, part)
        assert values.ravel().tolist() == theirs[f"{form}.{layer}.{number}"].ravel().tolist()


def uniform(count, seed):
    """(count,) float32 in [-1, 1), as benchmarks/parity/caffe.py makes it."""
    bits = (np.random.PCG64(seed).random_raw(count) >> np.uint64(40)).astype(np.float64)
    return (bits / (1 << 23) - 1).astype(np.float32)


def he_state(net, seed):
    state = {}
    for i, (name, own) in enumerate(net.state_dict().items()):
        bound = (6 / np.prod(own.shape[1:])) ** 0.5 if name.endswith("weight") else 0.1
        state[name] = np.float32(bound) * uniform(own.numel(), 1000 * seed + i).reshape(own.shape)
    return state


@torch.inference_mode()
@pytest.mark.parametrize("name", ["cpm-centermap", "cpm-vgg", "cpm-flic", "cpm-person"])
def test_maps_of_every_stage_are_those_of_opencv(name, tmp_path):
    """And a fault in any stage, of the layer that sees the concatenation, is seen."""
    with np.load(FIXTURES / "maps.npz") as judge:
        (key,) = (k for k in judge.files if k.startswith(f"{name}/"))
        theirs = judge[key]
    height, width, seed = map(int, key.split("/")[1:])
    net = nets.create(name)
    arrays = he_state(net, seed)
    if name == "cpm-person":  # through a file, once
        blobs = [blob(values, values.shape) for values in arrays.values()]
        layers = [n.removesuffix(".weight") for n in arrays if n.endswith("weight")]
        arrays = read(tmp_path, b"".join(map(v2, layers, blobs[::2], blobs[1::2])))
    net.load_state_dict({n: torch.from_numpy(values) for n, values in arrays.items()})
    image = torch.from_numpy(0.5 * uniform(3 * height * width, seed)).view(1, 3, height, width)

    def differences():
        maps = torch.cat(net(image, centre_map(width, height))).numpy()
        assert maps.shape == theirs.shape
        return np.abs(maps - theirs).max((1, 2, 3)) / np.ptp(theirs, (1, 2, 3))

    assert differences().max() < 1e-4
    first = net.variant.first[0].split()[0]
    for stage in range(net.stages):
        layer = net.get_submodule(f"Mconv1_stage{stage + 1}" if stage else first)
        kept = layer.weight.clone()
        layer.weight.copy_(kept.flip(1))
        assert differences()[stage] > 1e-2
        layer.weight.copy_(kept)


def mutant(data, rng):
    """`data` with up to four damages: flips, cuts, repeats, and lengths of 2^31 or 2^63."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at, to = sorted(rng.integers(0, len(data) + 1, 2))
        length = varint(2 ** int(rng.choice([7, 31, 32, 63])))
        start, stop, new = [
            (at, at + 1, rng.bytes(1)), (at, to, b""), (at, at, data[at:to]),
            (at, at + 1, length), (at, at, rng.bytes(int(rng.integers(1, 20)))), (to, None, b""),
        ][rng.integers(0, 6)]  # fmt: skip
        data[start:stop] = new
    return bytes(data) or b"\x00"


def survives(tmp_path, count, seed):
    rng = np.random.default_rng(seed)
    honest, read_well = [a_net(v1), a_net(v2), v2("fc") + a_net(v2)], 0
    for i in range(count):
        data = mutant(honest[i % 3], rng)
        start = time.monotonic()
        try:
            state = read(tmp_path, data)
        except (FormatError, LimitError, InputError) as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)
        else:
            read_well += 1
            assert sum(values.nbytes for values in state.values()) <= len(data)
        assert time.monotonic() - start < 5
    return read_well


def test_200_mutants(tmp_path):
    assert 0 < survives(tmp_path, 200, seed=1) < 150


@pytest.mark.slow
def test_5000_mutants(tmp_path):
    assert 0 < survives(tmp_path, 5000, seed=2) < 3750


@pytest.mark.parametrize("layer", [v1, v2])
def test_cut_short_anywhere_gives_an_error_or_the_whole_layers_before(tmp_path, layer):
    data = a_net(layer)
    whole = {name: values.tolist() for name, values in read(tmp_path, data).items()}
    read_well = set()
    for size in range(1, len(data)):
        try:
            state = read(tmp_path, data[:size])
        except FormatError:
            continue
        read_well.add(tuple(state))
        assert all(values.tolist() == whole[name] for name, values in state.items())
    assert read_well == {("conv1.weight", "conv1.bias")}


def bombs():
    """Files whose parts are far larger in memory than on the disk, if one is careless."""
    headers, size = [], 0
    for _ in range(100_000):  # from the inside out
        headers.append(b"\x3a" + varint(size))
        size += len(headers[-1])
    deep = b"".join(reversed(headers))
    many = 50_000
    return {
        "deep": deep,
        "deep layer": field(100, deep),
        "deep blob": v2("a", deep),
        "deep groups": b"\x0b" * 100_000 + b"\x0c" * 100_000,
        "empty pieces": v2("a", field(5, b"") * many),
        "single floats": v2("a", field(5, np.float32(1)) * many),
        "axes": v2("a", field(7, field(1, 1) * many)),
        "packed axes": v2("a", field(7, field(1, b"\x01" * many))),
        "empty layers": field(100, b"") * many,
        "names": field(100, field(1, b"n" * 900) * 200) * 10,
        "blobs": v2("a", *[b""] * many),
        "values": v2("a", field(5, b"\x00" * 4_000_000)),
        "doubles": v2("a", field(8, b"\x00" * 4_000_000)),
        "half of it promised": v2("a", blob(floats(10**6), (2, 10**6))),
        "length": field(100, field(7, b"\x2a" + varint(2**31) + b"\x00" * 1000)),
        "lengths": b"\xa2\x06" + varint(2**63) + b"\x00" * 1000,
    }


@pytest.mark.parametrize("name", sorted(bombs()))
def test_memory_and_time_stay_those_of_the_file(tmp_path, name):
    data = bombs()[name]
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises((FormatError, LimitError)):
        read(tmp_path, data)
    assert time.monotonic() - start < 5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(data) + 4e6  # up to 20,000 small blobs have a price of their own


@pytest.mark.parametrize("name", ["blobs", "doubles", "half of it promised", "length"])
def test_a_process_of_1_gb_is_enough(tmp_path, name):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(bombs()[name] * 5)
    with pytest.raises((FormatError, LimitError), match=r"blob|damaged, cut short"):
        parse(parse_caffemodel, path, memory=1 << 30, timeout=30)
