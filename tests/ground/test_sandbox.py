import os
import time
from pathlib import Path

import numpy as np
import pytest

from humanpose import sandbox
from humanpose.errors import FormatError, InputError, LimitError


def crash(path: str) -> sandbox.Arrays:
    os.abort()


def hang(path: str) -> sandbox.Arrays:
    time.sleep(60)
    return {}


def spin(path: str) -> sandbox.Arrays:
    while True:
        pass


def eat(path: str) -> sandbox.Arrays:
    return {"x": np.ones(1 << 29)}  # 4 GiB


def refuse(path: str) -> sandbox.Arrays:
    raise LimitError(f"{path}: holds too much")


def good(path: str) -> sandbox.Arrays:
    return {"size": np.array([Path(path).stat().st_size]), "file/é": np.ones((2, 0), ">f4")}


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    # The child must find this module.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    path = tmp_path / "joints é.mat"
    path.write_bytes(b"12345")
    return path


def test_arrays_come_back(file):
    found = sandbox.parse(good, file)
    assert list(found) == ["size", "file/é"] and found["size"].tolist() == [5]
    assert found["file/é"].shape == (2, 0) and found["file/é"].dtype == ">f4"


def test_our_errors_come_back_as_they_were(file):
    with pytest.raises(LimitError) as caught:
        sandbox.parse(refuse, file)
    assert str(caught.value) == f"{file}: holds too much"


def test_a_crash_of_the_parser_is_an_error_not_a_crash(file):
    with pytest.raises(FormatError, match=r"joints é\.mat: damaged.*crashed"):
        sandbox.parse(crash, file)


def test_memory_is_limited(file):
    with pytest.raises(FormatError, match="damaged"):
        sandbox.parse(eat, file)


@pytest.mark.parametrize("parser", [hang, spin])
def test_time_is_limited(file, parser):
    with pytest.raises(LimitError, match="within 1 s"):
        sandbox.parse(parser, file, timeout=1)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.mat: no such file"):
        sandbox.parse(good, tmp_path / "gone.mat")
