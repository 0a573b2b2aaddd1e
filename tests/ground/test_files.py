import errno
import hashlib
import os
from pathlib import Path

import pytest

from humanpose.errors import FormatError, InputError, LimitError, OutputError
from humanpose.files import (
    atomic_write,
    file_size,
    output_error,
    part_path,
    prepare_output,
    read_limited,
    sha256,
)


def test_written_file_appears_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.bin"
    with atomic_write(path) as file:
        file.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    assert list(path.parent.iterdir()) == [path]


def test_text_mode_is_utf8_without_newline_translation(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("é\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"


def test_failure_keeps_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OutputError, match=r"a\.bin: the disk is full .* make room"),
        atomic_write(path) as f,
    ):
        f.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_error_of_another_file_is_not_called_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.bin"):
        (tmp_path / "absent").read_bytes()


def test_folder_or_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="folder is a folder"), atomic_write(tmp_path / "folder"):
        pass
    with pytest.raises(OutputError, match="in the way"), atomic_write(tmp_path / "file" / "a"):
        pass
    with pytest.raises(OutputError, match="too long"), atomic_write(tmp_path / ("x" * 300)):
        pass


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "no permission; choose another folder with -o"),
        (errno.EROFS, "no permission"),
        (errno.EFBIG, "disk is full"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_output_error_says_what_to_do(code: int, words: str) -> None:
    error = output_error("/x/a.json", OSError(code, os.strerror(code)))
    assert "/x/a.json" in str(error) and words in str(error) and "\n" not in str(error)
    assert error.exit_code == 74


def test_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".jsnl")  # 255 bytes
    with atomic_write(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"
    assert len(os.fsencode(part_path(path).name)) <= 255
    assert part_path(Path("d/walk.mp4")) == Path("d/walk.mp4.part")


def test_existing_output_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    prepare_output(path, force=False)
    path.write_bytes(b"x")
    with pytest.raises(OutputError, match=r"a\.json exists; add --force"):
        prepare_output(path, force=False)
    prepare_output(path, force=True)


def test_reading_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    with pytest.raises(InputError, match=r"a\.bin does not exist"):
        read_limited(path, 10)
    with pytest.raises(InputError, match="is a folder"):
        read_limited(tmp_path, 10)
    path.touch()
    with pytest.raises(FormatError, match=r"a.bin is empty \(0 bytes\)"):
        read_limited(path, 10)
    path.write_bytes(b"x" * 11)
    with pytest.raises(LimitError, match=r"a\.bin has 11 bytes, more than the limit of 10"):
        read_limited(path, 10)
    assert read_limited(path, 11) == b"x" * 11 and file_size(path) == 11
    with pytest.raises(InputError, match="not a file name"):
        read_limited("a\0b", 10)
    with pytest.raises(InputError, match="not a regular file"):
        read_limited("/dev/null", 10)

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(InputError, match=r"a\.bin: no permission to read"):
        read_limited(path, 11)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(InputError, match="does not exist"):
        sha256(tmp_path / "b")
