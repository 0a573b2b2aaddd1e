"""Pickled CPM weights: what is read, and that nothing is executed."""

import os
import pickle
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from humanpose.checkpoints.legacy import openpose_pickle
from humanpose.checkpoints.legacy.openpose_pickle import parse_pickle, read_openpose_pickle
from humanpose.errors import FormatError, InputError, LimitError


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


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv1_1": rng.normal(size=(3, 2, 4, 5)).astype(np.float32),
        "conv1_1_b": rng.normal(size=5).astype(np.float64),
    }


def check(found, arrays) -> None:
    assert list(found) == ["conv1_1.weight", "conv1_1.bias"]
    weight = found["conv1_1.weight"]
    assert weight.shape == (5, 4, 3, 2) and weight.dtype == np.float32
    np.testing.assert_array_equal(weight.transpose(2, 3, 1, 0), arrays["conv1_1"])
    np.testing.assert_array_equal(found["conv1_1.bias"], arrays["conv1_1_b"].astype(np.float32))


def test_python_2_files_are_read_and_transposed(tmp_path, arrays):
    path = tmp_path / "cpm.pkl"
    path.write_bytes(python2_pickle(arrays))
    check(read_openpose_pickle(path), arrays)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("order", "CF")
def test_python_3_writes_the_same(tmp_path, arrays, protocol, order):
    path = tmp_path / "cpm.pkl"
    given = {name: np.array(a, order=order) for name, a in arrays.items()}
    given["conv1_1"] = given["conv1_1"].astype(">f4")
    keys = {name.encode(): a for name, a in given.items()} if protocol == 2 else given
    path.write_bytes(pickle.dumps(keys, protocol))
    check(parse_pickle(str(path)), arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02}.", None),
        (b"\x80\x02K\x01.", "no dictionary of arrays"),
        (b"\x80\x02}U\x01aK\x01s.", "'a' is not an array"),
        (python2_pickle({"a/b": np.zeros((1, 1, 1, 1))}), "not the name of a layer"),
        (python2_pickle({"a": np.zeros((2, 3))}), "no convolution"),
        (python2_pickle({"a_b": np.zeros((2, 3))}), "no bias"),
        (b"\x80\x02}U\x01a" + numpy_array(np.zeros(3), shape=(4,)) + b"s.", "bytes for an array"),
        (b"\x80\x02}U\x01a" + numpy_array(np.zeros(3), shape=(1 << 30,) * 4) + b"s.", "impossible"),
        (pickle.dumps({"a": np.array([{}], object)}, 2), "only numbers"),
        (pickle.dumps({"a": np.zeros(2, "f4,i4")}, 2), "only numbers"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "memo up to"),
        (b"\x80\x02T\xff\xff\xff\x7fabc.", "not a readable pickle"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", "not a readable pickle"),
        (b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".", "no dictionary"),
        (b"not a pickle", "not a readable pickle"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, message):
    path = tmp_path / "cpm.pkl"
    path.write_bytes(content)
    if message is None:
        assert parse_pickle(str(path)) == {}
        return
    with pytest.raises(FormatError, match=message):
        parse_pickle(str(path))


def test_the_same_array_under_many_keys_does_not_multiply(tmp_path):
    array = np.zeros((10, 10, 10, 10), np.float32)
    path = tmp_path / "cpm.pkl"
    path.write_bytes(pickle.dumps({f"conv{i}": array for i in range(1000)}, 2))
    with pytest.raises(FormatError, match="more array bytes than the file"):
        parse_pickle(str(path))


def test_size_and_absence_are_one_line(tmp_path, monkeypatch):
    path = tmp_path / "cpm.pkl"
    with pytest.raises(InputError, match=r"cpm\.pkl does not exist"):
        read_openpose_pickle(path)
    path.write_bytes(b"12345")
    monkeypatch.setattr(openpose_pickle, "_LIMIT_BYTES", 4)
    with pytest.raises(LimitError, match="more than the limit"):
        read_openpose_pickle(path)


# ------------------------------------------------------------------------------------- hostile


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
        ("EXT1", b"\x80\x02\x82\x01" + spell + b"\x85R."),
        ("EXT4", b"\x80\x02\x84\x01\x00\x00\x00" + spell + b"\x85R."),
        ("PERSID", b"Pposix.system\n."),
        ("BINPERSID", b"\x80\x02" + spell + b"Q."),
        ("NEXT_BUFFER", b"\x80\x05\x97."),
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


def test_malicious_pickles_are_refused_by_name_and_execute_nothing(tmp_path):
    canary = tmp_path / "canary"
    evil = malicious(canary)
    assert len(evil) >= 50
    for i, (name, content) in enumerate(evil):
        path = tmp_path / f"{i}.pkl"
        path.write_bytes(content)
        read = read_openpose_pickle if i % 10 == 0 else lambda p: parse_pickle(str(p))
        with pytest.raises(FormatError) as refusal:
            read(path)
        assert name in str(refusal.value) and "nothing was executed" in str(refusal.value), content
        assert not canary.exists()


@pytest.mark.skipif(os.name != "posix", reason="posix.system is called")
def test_the_malicious_pickles_would_have_worked(tmp_path):
    """The canary is not a dud: Python's own unpickler runs the plain ones."""
    canary = tmp_path / "canary"
    plain = next(content for name, content in malicious(canary) if name == "posix.system")
    assert not canary.exists()
    pickle.loads(plain, encoding="latin1")
    assert canary.exists()


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


def test_the_peak_of_memory_is_seen():
    before = resident(peak=False)
    if not before:
        pytest.skip("this system does not tell the peak of a process's memory")
    np.ones(600 << 20, np.uint8).sum()
    assert resident(peak=True) - before > 512 << 20


@pytest.mark.parametrize(
    "count", [200, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_mutants_end_in_our_errors(tmp_path, arrays, count):
    assert (
        fuzz(tmp_path, python2_pickle(arrays), lambda p: parse_pickle(str(p)), count, ".pkl")
        > count / 2
    )


def test_mutants_end_in_our_errors_in_the_child_too(tmp_path, arrays):
    assert fuzz(tmp_path, python2_pickle(arrays), read_openpose_pickle, 8, ".pkl") > 3
