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


def good(path: str) -> sandbox.Arrays:
    return {"size": np.array([Path(path).stat().st_size])}


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    # The child must find this module.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    path = tmp_path / "joints é.mat"
    path.write_bytes(b"12345")
    return path


def test_arrays_come_back(file):
    assert sandbox.parse(good, file)["size"].tolist() == [5]


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
