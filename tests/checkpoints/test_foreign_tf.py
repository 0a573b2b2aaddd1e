"""TensorFlow checkpoints and frozen graphs, written here byte by byte; and damaged ones."""

import struct
import tracemalloc

import numpy as np
import pytest
from makers.checkpoints import bundle, field, first_format, fuzz, graph, shape, tensor, varint

from humanpose.checkpoints.legacy import leveldb_table, tensorflow
from humanpose.checkpoints.legacy.leveldb_table import masked_crc32c, unsnappy
from humanpose.checkpoints.legacy.tensorflow import (
    checkpoint_file,
    parse_tf_checkpoint,
    parse_tf_graph,
)
from humanpose.checkpoints.mapping import read_foreign
from humanpose.errors import FormatError, InputError, LimitError


def read_tf_checkpoint(path):
    """In this process, where a test can see and change what it likes."""
    return parse_tf_checkpoint(str(checkpoint_file(path)[0]))


def read_tf_graph(path):
    return parse_tf_graph(str(path))


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "CPM/PoseNet/conv1/weights": rng.normal(size=(3, 2, 4, 5)).astype(np.float32),
        "CPM/PoseNet/conv1/biases": np.zeros(5, np.float32),
        "CPM/PoseNet/conv1/weights/Adam": rng.normal(size=(3, 2, 4, 5)).astype(np.float32),
        "beta1_power": np.array(0.9, np.float64),
        "global_step": np.array(-3, np.int64),
        "half": rng.normal(size=7).astype(np.float16),
        "int": np.array([[1, -2, 3]], np.int32),
        "empty": np.zeros((0, 2), np.float32),
    }


def check(found, arrays) -> None:
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype.newbyteorder("=") == array.dtype, name
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("shards", "order"), [(1, "<"), (3, "<"), (2, ">")])
def test_checkpoints_are_read(tmp_path, arrays, packed, shards, order):
    stem = tmp_path / "pose.net.ckpt-12"
    bundle(stem, arrays, shards=shards, order=order, packed=packed)
    for end in ("", ".index", f".data-00000-of-{shards:05}"):
        check(read_tf_checkpoint(tmp_path / f"{stem.name}{end}"), arrays)
    check(read_foreign("tensorflow", stem), arrays)


@pytest.mark.parametrize("packed", [False, True])
def test_the_format_before_is_read(tmp_path, arrays, packed):
    path = tmp_path / "pose_net.ckpt"
    path.write_bytes(first_format(arrays, packed=packed))
    check(read_tf_checkpoint(path), arrays)
    check(read_foreign("tensorflow", path), arrays)


def test_constants_of_a_graph_are_read(tmp_path, arrays):
    path = tmp_path / "frozen.pb"
    weight = arrays["CPM/PoseNet/conv1/weights"]
    nodes = [
        ("image", "Placeholder", None),
        ("conv1/weights", "Const", tensor(weight)),
        ("listed", "Const", tensor(weight, listed=True)),
        ("same", "Const", tensor(np.array([2.5], np.float32), listed=True, sizes=(3, 4))),
        ("zeros", "Const", field(1, 1) + field(2, shape((2,)))),
        ("flag", "Const", field(1, 10) + field(2, b"")),
        ("conv1/weights/read", "Identity", None),
    ]
    path.write_bytes(graph(nodes))
    found = read_tf_graph(path)
    assert list(found) == ["conv1/weights", "listed", "same", "zeros"]
    np.testing.assert_array_equal(found["conv1/weights"], weight)
    np.testing.assert_array_equal(found["listed"], weight)
    np.testing.assert_array_equal(found["same"], np.full((3, 4), 2.5))
    np.testing.assert_array_equal(found["zeros"], np.zeros(2))


def test_checksums_and_packed_blocks_are_those_of_the_formats():
    assert masked_crc32c(b"") == 0xA282EAD8
    assert masked_crc32c(b"123456789") == (
        (0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8 & 0xFFFFFFFF  # RFC 3720, B.4
    )
    noise = np.random.default_rng(0).bytes(70_000)
    # A far copy, by hand: 70,000 bytes as a literal, then 60 of them again.
    packed = varint(70_060) + bytes([62 << 2]) + (69_999).to_bytes(3, "little") + noise
    packed += bytes([59 << 2 | 3]) + struct.pack("<I", 70_000)
    assert unsnappy(packed) == noise + noise[:60]
    assert unsnappy(varint(1000) + b"\0a" + b"\xfe\x01\x00" * 15 + b"\x9a\x01\x00") == b"a" * 1000


# ------------------------------------------------------------------------------------- damaged


def changed(number, value):
    def edit(name, parts):
        if name.endswith("conv1/weights"):
            parts[number] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (changed(2, shape((3, 2, 4, 6))), "bytes for the shape"),
        (changed(2, shape((1 << 31, 1 << 31, 1 << 31, 1 << 31))), "bytes for the shape"),
        (changed(2, shape((-1, 2))), "a tensor of shape"),
        (changed(2, shape((1,) * 99)), "a tensor of shape"),
        (changed(2, field(3, 1)), "unknown shape"),
        (changed(3, 7), "shard 7 of 1"),
        (changed(4, 1 << 62), "lies beyond"),
        (changed(4, 4), "checksum differs"),
        (changed(5, 1 << 63), "bytes for the shape"),
        (changed(6, 0), "checksum differs"),
        (changed(7, field(1, b"")), "partitioned"),
    ],
)
def test_entries_that_lie_are_refused(tmp_path, arrays, edit, message):
    bundle(tmp_path / "net", arrays, edit=edit)
    tracemalloc.start()
    with pytest.raises(FormatError, match=message):
        read_tf_checkpoint(tmp_path / "net")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_tensors_that_lie_on_one_another_do_not_multiply(tmp_path):
    one = np.zeros(1000, np.float32)

    def all_at_the_start(_name, parts):
        parts[4] = 0

    bundle(tmp_path / "net", {f"v{i}": one for i in range(50)}, edit=all_at_the_start)
    path = tmp_path / "net.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(FormatError, match="where another tensor lies"):
        read_tf_checkpoint(tmp_path / "net")


def test_missing_and_foreign_files_are_named(tmp_path, arrays):
    with pytest.raises(InputError, match=r"net\.index does not exist; a checkpoint is"):
        read_tf_checkpoint(tmp_path / "net")
    with pytest.raises(InputError, match=r"net\.pb does not exist"):
        read_tf_graph(tmp_path / "net.pb")
    bundle(tmp_path / "net", arrays, shards=2)
    (tmp_path / "net.data-00001-of-00002").unlink()
    with pytest.raises(InputError, match="data-00001-of-00002 does not exist"):
        read_tf_checkpoint(tmp_path / "net")
    (tmp_path / "text").write_bytes(b"x" * 100)
    with pytest.raises(FormatError, match="text: no TensorFlow checkpoint"):
        read_tf_checkpoint(tmp_path / "text")
    with pytest.raises(FormatError, match="text: holds no constants"):
        read_tf_graph(tmp_path / "text")


def test_limits_hold(tmp_path, arrays, monkeypatch):
    bundle(tmp_path / "net", arrays)
    monkeypatch.setattr(leveldb_table, "_MOST_ENTRIES", 3)
    with pytest.raises(LimitError, match="more than 3 entries"):
        read_tf_checkpoint(tmp_path / "net")
    with pytest.raises(LimitError, match="unpacks to"):
        unsnappy(varint(1 << 40) + b"\0a")
    monkeypatch.setattr(tensorflow, "_FILE_BYTES", 10)
    monkeypatch.setattr(leveldb_table, "_MOST_ENTRIES", 100)
    with pytest.raises(LimitError, match="limit 10"):
        read_tf_checkpoint(tmp_path / "net")


@pytest.mark.parametrize("count", [1 << 31, 1 << 39])
def test_a_graph_cannot_ask_for_more_than_it_holds(tmp_path, count):
    path = tmp_path / "frozen.pb"
    value = tensor(np.array([1], np.float32), listed=True, sizes=(count, 8))
    path.write_bytes(graph([("a", "Const", value)]))
    tracemalloc.start()
    with pytest.raises(FormatError, match="1 values for shape"):
        read_tf_graph(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_depth_of_nesting_does_not_matter(tmp_path):
    inner = b""
    for _ in range(2000):
        inner = field(1, inner)
    path = tmp_path / "deep.pb"
    path.write_bytes(graph([("a", "Const", None)]) + field(1, field(5, inner)) + field(2, inner))
    with pytest.raises(FormatError, match="holds no constants"):
        read_tf_graph(path)
    groups = b"\x0b" * 100_000 + b"\x0c" * 100_000
    path.write_bytes(groups)
    with pytest.raises(FormatError, match="damaged"):
        read_tf_graph(path)


COUNTS = [70, pytest.param(1700, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["index", "first", "graph"])
def test_mutants_end_in_our_errors(tmp_path, arrays, count, kind, monkeypatch):
    # With right checksums almost every mutant would end there.
    monkeypatch.setattr(leveldb_table, "masked_crc32c", lambda data: 0)
    for packed in (False, True) if kind != "graph" else (False,):
        if kind == "index":
            bundle(tmp_path / "mutant", arrays, packed=packed)
            content = (tmp_path / "mutant.index").read_bytes()
        elif kind == "first":
            content = first_format(arrays, packed=packed)
        else:
            nodes = [(n, "Const", tensor(a)) for n, a in arrays.items()]
            content = graph([*nodes, ("l", "Const", tensor(np.ones(3, np.float32), listed=True))])
        read = read_tf_graph if kind == "graph" else read_tf_checkpoint
        tracemalloc.start()
        suffix = ".index" if kind == "index" else ""
        assert fuzz(tmp_path, content, read, count, suffix) > count / 10
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()
