"""What several tests share: pictures that are made here, and the real data where it is at hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

# Qt takes over the locale of the environment; in "C", files would be read as ASCII after it.
os.environ.setdefault("LC_ALL", "C.UTF-8")
ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real data; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"real data is not at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def photo(data: Path) -> Path:
    """A photograph of one gymnast, wholly visible."""
    return data / "lspet" / "images" / "im08510.jpg"


@pytest.fixture
def noise_picture(tmp_path: Path) -> Path:
    """A small JPEG without anybody in it."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (160, 120))
    path = tmp_path / "noise.jpg"
    path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    return path


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs `humanpose ARGS...` in this process; gives (exit code, stdout, stderr)."""

    def run(*args: str | Path) -> tuple[int, str, str]:
        from humanpose.cli.main import main

        monkeypatch.setattr(sys, "argv", ["humanpose", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run
