"""Foreign weights files, honest and hostile, written byte by byte; and a fuzzer of readers."""

import re
import struct
import time
from pathlib import Path

import cramjam
import numpy as np

from humanpose.checkpoints.legacy import leveldb_table
from humanpose.errors import InputError

# ---------------------------------------------------------------------------- Protocol Buffers


def varint(value: int) -> bytes:
    """`value` of [-2^63, 2^64) as the wire has it."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """An integer as a varint, bytes with their length, a float32 or float64 in fixed width."""
    if isinstance(value, np.floating):
        return varint(number << 3 | (5 if value.itemsize == 4 else 1)) + value.tobytes()
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


# --------------------------------------------------------------------------------------- Caffe


def blob(values, shape=None, legacy=None, data=5):
    message = b"".join(field(i + 1, n) for i, n in enumerate(legacy or ()))
    if shape is not None:
        message += field(7, field(1, b"".join(map(varint, shape))))
    return message + field(data, values.tobytes())


def v1(name, *blobs):
    return field(2, field(4, name.encode()) + b"".join(field(6, b) for b in blobs))


def v2(name, *blobs):
    return field(100, field(1, name.encode()) + b"".join(field(7, b) for b in blobs))


# ---------------------------------------------------------------------------------- TensorFlow

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def shape(sizes) -> bytes:
    return b"".join(field(2, field(1, n)) for n in sizes)


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
        body = bytes(cramjam.snappy.compress_raw(body)) if packed else body
        handle = varint(len(out)) + varint(len(body))
        body += bytes([packed])
        out.extend(body + struct.pack("<I", leveldb_table.masked_crc32c(body)))
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
            5: len(raw), 6: leveldb_table.masked_crc32c(raw),
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


# ------------------------------------------------------------------------------------- pickles


def text(value: str | bytes) -> bytes:
    """A Python 2 str: SHORT_BINSTRING or BINSTRING."""
    raw = value.encode() if isinstance(value, str) else value
    return (
        b"U" + bytes([len(raw)]) + raw
        if len(raw) < 256
        else b"T" + struct.pack("<i", len(raw)) + raw
    )


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numpy_array(array: np.ndarray, dtype: bytes | None = None, shape=None) -> bytes:
    """What Python 2's numpy writes for `array` at protocol 2."""
    code = array.dtype.str[1:]
    kind = b"cnumpy\ndtype\n" + text(code) + number(0) + number(1) + b"\x87R("
    kind += number(3) + text("<") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    sizes = b"(" + b"".join(number(n) for n in (array.shape if shape is None else shape)) + b"t"
    begin = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(" + number(0) + b"t"
    begin += text("b") + b"\x87R"
    raw = text(array.tobytes())
    return begin + b"(" + number(1) + sizes + (dtype or kind) + b"\x89" + raw + b"tb"


def python2_pickle(arrays: dict[str, np.ndarray]) -> bytes:
    body = b"".join(text(name) + numpy_array(array) for name, array in arrays.items())
    return b"\x80\x02}(" + body + b"u."


def malicious(canary: Path) -> list[tuple[str, bytes]]:
    """50 pickles that would create `canary` if run, each with the word its refusal must hold."""
    shell = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    calls = [
        ("posix.system", shell), ("os.system", shell), ("nt.system", shell), ("os.popen", shell),
        ("subprocess.call", shell), ("subprocess.Popen", shell), ("subprocess.getoutput", shell),
        ("commands.getoutput", shell), ("builtins.eval", code), ("builtins.exec", code),
        ("__builtin__.eval", code), ("__builtin__.execfile", str(canary)),
        ("builtins.__import__", "os"), ("__builtin__.apply", code), ("pty.spawn", shell),
        ("timeit.timeit", code), ("runpy.run_path", str(canary)), ("code.interact", code),
        ("importlib.import_module", "os"), ("pickle.loads", code), ("_pickle.loads", code),
        ("marshal.loads", code), ("numpy.load", str(canary)),
        ("numpy.testing._private.utils.runstring", code),
        ("numpy.f2py.crackfortran.myeval", code), ("torch.load", str(canary)),
        ("builtins.open", str(canary)),
        ("io.open", str(canary)), ("pathlib.Path.touch", str(canary)), ("webbrowser.open", shell),
        ("functools.partial", code), ("operator.attrgetter", "system"),
        ("types.FunctionType", code),
    ]  # fmt: skip
    found = []
    for name, argument in calls:
        module, attribute = name.rsplit(".", 1)
        asked = f"c{module}\n{attribute}\n".encode()
        found.append((name, b"\x80\x02" + asked + text(argument) + b"\x85R."))
    spell = text(shell)
    inner = b"cposix\nsystem\n" + spell + b"\x85R"
    short = b"\x8c\x05posix\x8c\x06system"
    arrays = b"cnumpy.core.multiarray\n_reconstruct\n"
    found += [
        ("posix.system", b"(S'" + shell.encode() + b"'\niposix\nsystem\n."),  # INST
        ("posix.system", b"(cposix\nsystem\n" + spell + b"o."),  # OBJ
        ("posix.system", b"\x80\x02cposix\nsystem\n" + spell + b"\x85\x81."),  # NEWOBJ
        ("posix.system", b"\x80\x04" + short + b"\x93" + spell + b"\x85R."),  # STACK_GLOBAL
        (
            "posix.system",  # STACK_GLOBAL of remembered words
            b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93" + spell + b"\x85R.",
        ),
        ("posix.system", b"\x80\x04" + short + b"\x93" + spell + b"\x85}\x92."),  # NEWOBJ_EX
        ("extension code", b"\x80\x02\x82\x01" + spell + b"\x85R."),
        ("extension code", b"\x80\x02\x84\x01\x00\x00\x00" + spell + b"\x85R."),
        ("persistent id", b"Pposix.system\n."),
        ("persistent id", b"\x80\x02" + spell + b"Q."),
        ("out-of-band", b"\x80\x05\x97."),
        ("posix.system", b"\x80\x02}U\x01a" + inner + b"s."),  # nested in a dictionary
        ("posix.system", b"\x80\x02](((" + inner + b"ttte."),
        ("posix.system", b"\x80\x02" + arrays + inner + b"\x85R."),  # as the argument of an array
        ("posix.system", b"\x80\x02" + arrays + b")R" + inner + b"b."),  # as its state
        (
            "builtins.getattr",
            b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\nU\x02os\x85RU\x06system\x86R"
            + spell + b"\x85R.",
        ),
        (
            "posix.system",
            b"\x80\x02cnumpy\ndtype\nU\x02f4\x85R(K\x03U\x01<" + inner + b"NNK\x00K\x00K\x00tb.",
        ),
    ]  # fmt: skip
    return found


# -------------------------------------------------------------------------------------- fuzzer


def mutated(content: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(data)))
        match int(rng.integers(5)):
            case 0:
                data[at] = int(rng.integers(256))
            case 1:
                data[at] ^= 1 << int(rng.integers(8))
            case 2:
                del data[at : at + int(rng.integers(1, 20))]
            case 3:
                data[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 4:
                data[at : at + 4] = b"\xff\xff\xff\x7f"
        if not data:
            data = bytearray(b"\x00")
    return bytes(data)


def fuzz(tmp_path, content: bytes, read, count: int, suffix: str) -> int:
    """How many of `count` mutants were refused; anything but our errors fails, and so does a
    mutant that takes long or costs memory."""
    refused = 0
    path = tmp_path / f"mutant{suffix}"
    before = resident(peak=False)
    for seed in range(count):
        path.write_bytes(mutated(content, seed))
        start = time.perf_counter()
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
        assert time.perf_counter() - start < 5, seed
    assert resident(peak=True) - before < 512 << 20
    return refused


def resident(*, peak: bool) -> int:
    """Bytes of this process in memory now, from when on the peak is counted anew, or that peak."""
    try:
        if not peak:
            Path("/proc/self/clear_refs").write_text("5")
        said = Path("/proc/self/status").read_text()
    except OSError:  # another system, or not allowed
        return 0
    return int(re.findall(r"VmHWM:\s+(\d+) kB" if peak else r"VmRSS:\s+(\d+) kB", said)[0]) << 10
