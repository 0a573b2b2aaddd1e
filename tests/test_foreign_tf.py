"""TensorFlow checkpoints and frozen graphs, written here byte by byte; and damaged ones."""

import struct
import tracemalloc

import numpy as np
import pytest
from test_foreign_pickle import fuzz

from humanpose.checkpoints.legacy import leveldb_table, tensorflow
from humanpose.checkpoints.legacy.leveldb_table import crc32c, masked_crc32c, unsnappy
from humanpose.checkpoints.legacy.tensorflow import read_tf_checkpoint, read_tf_graph
from humanpose.errors import FormatError, InputError, LimitError

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def shape(sizes) -> bytes:
    return b"".join(field(2, field(1, n)) for n in sizes)


# ------------------------------------------------------------------------------------- writers


def snappy(data: bytes) -> bytes:
    """Literals of all sizes, and a copy of each kind where four bytes repeat."""
    out, at, literal = bytearray(varint(len(data))), 0, bytearray()

    def flush() -> None:
        if literal:
            n = len(literal) - 1
            if n < 60:
                out.append(n << 2)
            else:
                extra = (n.bit_length() + 7) // 8
                out.append((59 + extra) << 2)
                out.extend(n.to_bytes(extra, "little"))
            out.extend(literal)
            literal.clear()

    while at < len(data):
        back = at - data.rfind(data[at : at + 4], 0, at + 3)
        if at + 4 > len(data) or not 0 < back <= at:
            literal.append(data[at])
            at += 1
            continue
        size = 4
        while size < 64 and at + size < len(data) and data[at + size] == data[at + size - back]:
            size += 1
        flush()
        if size < 12 and back < 2048:
            out += bytes([(back >> 8) << 5 | (size - 4) << 2 | 1, back & 255])
        elif back < 1 << 16:
            out += bytes([(size - 1) << 2 | 2]) + struct.pack("<H", back)
        else:
            out += bytes([(size - 1) << 2 | 3]) + struct.pack("<I", back)
        at += size
    flush()
    return bytes(out)


def block(entries, every: int = 16) -> bytes:
    out, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(out) + b"".join(struct.pack("<I", n) for n in (*restarts, len(restarts)))


def table(entries, *, packed: bool = False, per_block: int = 3) -> bytes:
    out, index = bytearray(), []

    def add(body: bytes) -> bytes:
        body = snappy(body) if packed else body
        handle = varint(len(out)) + varint(len(body))
        body += bytes([packed])
        out.extend(body + struct.pack("<I", masked_crc32c(body)))
        return handle

    for i in range(0, len(entries), per_block):
        part = entries[i : i + per_block]
        index.append((part[-1][0], add(block(part))))
    footer = add(block([])) + add(block(index, every=1))
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def bundle(stem, arrays, *, shards=1, order="<", packed=False, edit=None) -> None:
    """Write NAME.index and its shards; `edit(name, entry fields)` may change an entry."""
    header = field(1, shards) + (field(2, 1) if order == ">" else b"") + field(3, field(1, 1))
    data = [bytearray() for _ in range(shards)]
    entries = [(b"", header)]
    for i, (name, array) in enumerate(sorted(arrays.items())):
        raw = array.astype(array.dtype.newbyteorder(order)).tobytes()
        shard = data[i % shards]
        parts = {
            1: DTYPES[array.dtype.name], 2: shape(array.shape), 3: i % shards, 4: len(shard),
            5: len(raw), 6: masked_crc32c(raw),
        }  # fmt: skip
        shard += raw
        if edit:
            edit(name, parts)
        crc = parts.pop(6)
        message = b"".join(field(n, v) for n, v in parts.items())
        entries.append((name.encode(), message + varint(6 << 3 | 5) + struct.pack("<I", crc)))
    stem.with_name(f"{stem.name}.index").write_bytes(table(entries, packed=packed))
    for i, shard in enumerate(data):
        stem.with_name(f"{stem.name}.data-{i:05}-of-{shards:05}").write_bytes(shard)


def first_format(arrays, *, packed=True) -> bytes:
    meta, entries = b"", []
    for name, array in sorted(arrays.items()):
        kind = field(3, DTYPES[array.dtype.name])
        whole = b"".join(field(1, b"") for _ in array.shape)
        meta += field(1, field(1, name.encode()) + field(2, shape(array.shape)) + kind)
        values = {"float32": 5, "float64": 6}.get(array.dtype.name)
        if values:
            tensor = field(values, array.tobytes())
        else:
            number = {"int32": 7, "int64": 10, "float16": 13}[array.dtype.name]
            ints = array.view("u2") if array.dtype.name == "float16" else array
            tensor = field(number, b"".join(varint(int(v)) for v in ints.ravel()))
        one = field(1, name.encode()) + field(2, whole) + field(3, tensor)
        entries.append((b"\0" + name.encode(), field(2, one)))
    return table([(b"", field(1, meta)), *entries], packed=packed)


def tensor(array, *, listed=False, sizes=None) -> bytes:
    head = field(1, DTYPES[array.dtype.name])
    head += field(2, shape(array.shape if sizes is None else sizes))
    return head + field(5 if listed else 4, array.tobytes())


def graph(nodes) -> bytes:
    out = b""
    for name, op, value in nodes:
        attr = field(5, field(1, b"dtype") + field(2, field(6, 1)))
        if value is not None:
            attr += field(5, field(1, b"value") + field(2, field(8, value)))
        out += field(1, field(1, name.encode()) + field(2, op.encode()) + field(3, b"x") + attr)
    return out + field(4, field(1, 26))


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


@pytest.mark.parametrize("packed", [False, True])
def test_the_format_before_is_read(tmp_path, arrays, packed):
    path = tmp_path / "pose_net.ckpt"
    path.write_bytes(first_format(arrays, packed=packed))
    check(read_tf_checkpoint(path), arrays)


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


def test_crc32c_is_the_standards_and_the_quick_way_is_the_slow_one():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert masked_crc32c(b"") == 0xA282EAD8
    data = np.random.default_rng(0).bytes(200_001)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = leveldb_table._WORDS[(crc ^ byte) & 255] ^ crc >> 8
    assert crc32c(data) == crc ^ 0xFFFFFFFF
    assert crc32c(memoryview(data)[1:-1]) == crc32c(data[1:-1])


def test_snappy_knows_every_kind_of_copy():
    rng = np.random.default_rng(0)
    noise = rng.bytes(70_000)
    for data in (
        b"",
        b"a",
        b"a" * 1000,
        b"abcab" * 99,
        noise[:3000],
        noise + noise[:99] + noise[:99],
    ):
        if len(data) < 10_000:
            assert unsnappy(memoryview(snappy(data))) == data
    # A far copy, by hand: 70,000 bytes as a literal, then 60 of them again.
    packed = varint(70_060) + bytes([62 << 2]) + (69_999).to_bytes(3, "little") + noise
    packed += bytes([59 << 2 | 3]) + struct.pack("<I", 70_000)
    assert unsnappy(memoryview(packed)) == noise + noise[:60]


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
        unsnappy(memoryview(varint(1 << 40) + b"\0a"))
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
    with pytest.raises(LimitError, match="a name of"):
        read_tf_graph(path)


COUNTS = [70, pytest.param(1700, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["index", "first", "graph"])
def test_mutants_end_in_our_errors(tmp_path, arrays, count, kind, monkeypatch):
    # With right checksums almost every mutant would end there.
    monkeypatch.setattr(leveldb_table, "masked_crc32c", lambda data: 0)
    for packed in (False, True) if kind != "graph" else (False,):
        monkeypatch.setattr("test_foreign_tf.masked_crc32c", lambda data: 0)
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
