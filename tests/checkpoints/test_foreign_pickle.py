"""Pickled CPM weights: what is read, and that nothing is executed."""

import os
import pickle

import numpy as np
import pytest
from makers.checkpoints import fuzz, malicious, numpy_array, python2_pickle, resident

from humanpose.checkpoints.legacy import openpose_pickle
from humanpose.checkpoints.legacy.openpose_pickle import parse_openpose_pickle
from humanpose.checkpoints.mapping import read_foreign
from humanpose.errors import FormatError, InputError, LimitError


def read_openpose_pickle(path):
    """In a child process."""
    return read_foreign("openpose-pickle", path)


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
    check(parse_openpose_pickle(str(path)), arrays)


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
        (b"\x80\x02}r\xff\xff\xff\x7f.", None),  # an index of the memo
        (b"\x80\x02T\xff\xff\xff\x7fabc.", "no readable pickle"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", "no readable pickle"),
        (b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".", "no dictionary"),
        (b"not a pickle", "no readable pickle"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, message):
    path = tmp_path / "cpm.pkl"
    path.write_bytes(content)
    if message is None:
        assert parse_openpose_pickle(str(path)) == {}
        return
    with pytest.raises(FormatError, match=message):
        parse_openpose_pickle(str(path))


def test_the_same_array_under_many_keys_does_not_multiply(tmp_path):
    array = np.zeros((10, 10, 10, 10), np.float32)
    path = tmp_path / "cpm.pkl"
    path.write_bytes(pickle.dumps({f"conv{i}": array for i in range(1000)}, 2))
    with pytest.raises(FormatError, match="more array bytes than the file"):
        parse_openpose_pickle(str(path))


def test_size_and_absence_are_one_line(tmp_path, monkeypatch):
    path = tmp_path / "cpm.pkl"
    with pytest.raises(InputError, match=r"cpm\.pkl does not exist"):
        read_openpose_pickle(path)
    path.write_bytes(b"12345")
    monkeypatch.setattr(openpose_pickle, "_LIMIT_BYTES", 4)
    with pytest.raises(LimitError, match="more than the limit"):
        parse_openpose_pickle(str(path))


# ------------------------------------------------------------------------------------- hostile


def test_malicious_pickles_are_refused_by_name_and_execute_nothing(tmp_path):
    canary = tmp_path / "canary"
    evil = malicious(canary)
    assert len(evil) >= 50
    for i, (name, content) in enumerate(evil):
        path = tmp_path / f"{i}.pkl"
        path.write_bytes(content)
        read = read_openpose_pickle if i % 10 == 0 else lambda p: parse_openpose_pickle(str(p))
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
        fuzz(
            tmp_path, python2_pickle(arrays), lambda p: parse_openpose_pickle(str(p)), count, ".pkl"
        )
        > count / 2
    )


def test_mutants_end_in_our_errors_in_the_child_too(tmp_path, arrays):
    assert fuzz(tmp_path, python2_pickle(arrays), read_openpose_pickle, 8, ".pkl") > 3
