"""Files written whole or not at all, checked reads, hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from humanpose.errors import FormatError, InputError, LimitError, OutputError

_MAX_NAME_BYTES = 255  # what ext4, APFS and NTFS allow for one name
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
LOCK_WAIT_S = 5.0  # for a process that is about to end
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Yield a file object whose content appears under `path` only if the block ends normally.

    It is written as a `.part` file beside `path`, synced to disk, then renamed; an older file
    stays whole until then. Missing parent folders are made.

    Args:
        path: final name.
        mode: "wb", or "w" for UTF-8 text without newline translation.

    Raises:
        OutputError: the folder is not writable, the disk is full, a folder is in the way.
    """
    path = Path(path)
    part = part_path(path, secrets.token_hex(4))
    try:
        make_parent(path)
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with open(part, mode.replace("w", "x"), **text) as file:
            yield file
            sync(file)
        publish(part, path)
    except OSError as error:
        # An error that names another file comes from what the block reads.
        if error.errno is not None and error.filename in (None, str(part), str(path)):
            raise output_error(path, error) from error
        raise
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _take_lock(handle: int) -> bool:
    """Lock an open file against other processes of this machine; False if another has it."""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, what: str) -> Iterator[IO[bytes]]:
    """Yield the file `path`, made if need be, open to read and write, and locked.

    The end of the process, and of readers that it started, frees the lock.

    Raises:
        OutputError: another `what` holds it, and still does after some seconds.
    """
    make_parent(path)
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise output_error(path, error) from error
        with os.fdopen(handle, "r+b") as file:
            # Its last holder may have removed what was opened here.
            if _take_lock(handle) and path.exists() and os.path.samefile(handle, path):
                yield file
                return
        if time.monotonic() > end:
            raise OutputError(f"{path}: another {what} is writing there; wait for it, or end it")
        time.sleep(0.1)


def part_path(path: Path, token: str = "") -> Path:
    """Return NAME.part or NAME.TOKEN.part beside `path`; NAME is cut if that is too long."""
    tail = f".{token}.part" if token else ".part"
    name = path.name
    while len(os.fsencode(name + tail)) > _MAX_NAME_BYTES:
        name = name[:-1]
    return path.with_name(name + tail)


def make_parent(path: Path) -> None:
    """Make the folder of `path`. Raises OutputError if `path` is a folder, or a file above it."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def prepare_output(path: Path, *, force: bool) -> None:
    """Make the folder of `path`. Raises OutputError if `path` exists, unless with `force`."""
    make_parent(path)
    if not force and os.path.lexists(path):
        raise OutputError(f"{path} exists; add --force to replace it")


def sync(file: IO[Any]) -> None:
    """Hand everything written so far to the disk."""
    file.flush()
    os.fsync(file.fileno())


def publish(part: Path, path: Path) -> None:
    """Rename a complete, synced `part` to `path` beside it, and make that durable.

    Only POSIX can sync a folder, and some network file systems cannot.
    """
    os.replace(part, path)
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def output_error(path: str | Path, error: Exception) -> OutputError:
    """Return the message for a user: writing `path` failed with `error`."""
    path = Path(path)
    code = getattr(error, "errno", None)
    if code in _FULL:
        return OutputError(f"cannot write {path}: the disk is full{_free(path)}; make room")
    if code in _DENIED:
        return OutputError(f"cannot write {path}: no permission; choose another folder with -o")
    if code in (errno.ENOTDIR, errno.EEXIST):
        return OutputError(f"cannot write {path}: a file is in the way of its folder")
    if code == errno.EISDIR:
        return OutputError(f"{path} is a folder; give the name of a file")
    if code == errno.ENAMETOOLONG:
        return OutputError(f"cannot write {path}: the name is too long; choose a shorter one")
    return OutputError(f"cannot write {path}: {reason_of(error)}")


def _free(path: Path) -> str:
    with suppress(OSError):
        return f" ({shutil.disk_usage(path.parent).free / 1e6:.0f} MB free)"
    return ""


def reason_of(error: Exception) -> str:
    """Return the first line of what `error` says, without the file's name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]


def input_error(path: str | Path, error: OSError) -> InputError:
    """Return the message for a user: reading `path` failed with `error`."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} does not exist")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{path} is a folder, not a file")
    if isinstance(error, PermissionError):
        return InputError(f"{path}: no permission to read it")
    return InputError(f"{path} cannot be read: {reason_of(error)}")


def file_size(path: str | Path) -> int:
    """Return the number of bytes in the regular file `path`, at least 1.

    Raises:
        InputError: it is missing, a folder or a device.
        FormatError: it is empty.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise input_error(path, error) from error
    except ValueError as error:  # a NUL character in the name
        raise InputError(f"{str(path)!r} is not a file name") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file")
    if status.st_size == 0:
        raise FormatError(f"{path} is empty (0 bytes)")
    return status.st_size


def read_limited(path: str | Path, limit_bytes: int) -> bytes:
    """Return the content of `path`.

    Raises:
        InputError: missing, a folder, a device or not readable.
        FormatError: empty.
        LimitError: more than `limit_bytes`; it is not read.
    """
    size = file_size(path)
    if size > limit_bytes:
        raise LimitError(f"{path} has {size:,} bytes, more than the limit of {limit_bytes:,}")
    try:
        with open(path, "rb") as file:
            return file.read(size)  # `read` sets aside what it is asked for: not the limit
    except OSError as error:
        raise input_error(path, error) from error


def sha256(path: str | Path) -> str:
    """Return a file's SHA-256, 64 hexadecimal digits. Raises InputError if unreadable."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise input_error(path, error) from error
