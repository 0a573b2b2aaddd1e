"""Writing packs: a file that a killed build goes on with.

The file grows as NAME.part: its HDF5 structure is laid out in memory and written last, over the
place that was left for it. libhdf5, which neither a kill nor a full disk leaves whole, never
writes to the disk itself.
"""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose.data.pack import (
    FORMAT,
    MAGIC,
    USER_BLOCK,
    PackedSample,
    image_of,
    row_hash,
    table_digest,
)
from humanpose.data.pack_plan import Plan
from humanpose.errors import OutputError
from humanpose.files import LOCK_WAIT_S, output_error, part_path, publish, sync, take_lock
from humanpose.geometry import Crop, compose
from humanpose.types import F32, U8

Rows = NDArray[Any]
Row = tuple[np.void, bytes, bytes]  # of the table; its picture; the teacher's maps
# A picture and a box in it -> maps (S, J, h, w), and picture pixel -> cell.
Teacher = Callable[[U8, F32], tuple[NDArray[np.float16], Crop]]

_BATCH = 4 << 20  # bytes of pictures that are written together


def write_pack(
    path: Path,
    plan: Plan,
    *,
    workers: int,
    progress: Callable[[int], None],
    teacher: Teacher | None = None,
) -> dict[str, int]:
    """Build `path` as NAME.part, going on with one that has the same plan, and rename it.

    Constant memory but for the table of rows. The file does not depend on `workers`, nor on
    whether it was built in one go.

    Args:
        path: gets the pack; a file there stays whole until the new one is complete.
        plan: what to write.
        workers: threads that decode and encode.
        progress: called with the number of finished rows.
        teacher: makes the maps that the plan speaks of; called from several threads.

    Returns:
        persons, those of them that an unfinished file held already, and bytes of the pictures.

    Raises:
        InputError: naming a picture that cannot be read.
        OutputError: the disk is full, another build writes the same file ...
    """
    work = partial(_people, plan, teacher)
    try:
        with _Part(part_path(path), plan) as part:
            kept = part.done
            with ThreadPoolExecutor(workers) as pool:
                for people in _in_order(pool, work, plan, kept, ahead=4 * workers):
                    for row in people:
                        part.append(*row)
                    progress(part.done)
            size = part.finish()
        publish(part.path, path)
    except OSError as error:
        raise output_error(path, error) from error
    return {"persons": len(plan.rows), "kept": kept, "bytes": size}


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[int, int], list[Row]],
    plan: Plan,
    start: int,
    *,
    ahead: int,
) -> Iterator[list[Row]]:
    """What `work` makes of one picture after the other, from row `start`; few are kept waiting."""
    waiting: deque[Future[list[Row]]] = deque()
    try:
        while start < len(plan.samples) or waiting:
            while start < len(plan.samples) and len(waiting) < ahead:
                end = start + 1
                while end < len(plan.samples) and (
                    plan.samples[end].picture == plan.samples[start].picture
                ):
                    end += 1
                waiting.append(pool.submit(work, start, end))
                start = end
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _people(plan: Plan, teacher: Teacher | None, start: int, end: int) -> list[Row]:
    """Rows `start` to `end`, who are in one picture, and what is stored with them."""
    image = image_of(plan.samples[start])
    found = []
    for sample, row in zip(plan.samples[start:end], plan.rows[start:end], strict=True):
        crop, part = plan.store.crop(sample.box, (image.shape[1], image.shape[0]))
        row = row.copy()
        factor = crop.matrix[0, 0]
        row["joints"] = crop.to_crop(row["joints"])
        row["centre"] = crop.to_crop(row["centre"])
        row["box"][:2] = crop.to_crop(row["box"][:2])
        row["box"][2:] *= factor
        row["scale"] *= factor
        row["head_size"] *= factor
        row["area"] *= factor**2
        matrix = crop.matrix
        if isinstance(sample, PackedSample):
            matrix = compose(matrix, sample.crop.matrix)
        row["to_picture"] = cv2.invertAffineTransform(matrix)
        row["size"] = crop.size
        cut, maps = plan.store.cut(image, crop, part), b""
        if teacher:
            made, cells = teacher(cut, row["box"])
            row["cells"], maps = cells.matrix, made.tobytes()
        found.append((row, plan.store.content(cut, cut is image, sample), maps))
    return found


def _structure(rows: Rows, size: int, about: str, digest: str) -> tuple[bytes, int, int]:
    """The HDF5 structure of a pack, without what `rows` and `pictures` hold, and where they lie."""
    import h5py

    def table(name: str, dtype: np.dtype[Any], length: int) -> int:
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_layout(h5py.h5d.CONTIGUOUS)
        kind.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        kind.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kind.set_obj_track_times(False)
        space = h5py.h5s.create_simple((length,))
        made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, kind)
        return int(made.get_offset())

    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=USER_BLOCK, libver="earliest") as file:
        for key, value in (("format", FORMAT), ("about", about), ("digest", digest)):
            file.attrs[key] = np.bytes_(value.encode())
        file.attrs["complete"] = np.uint8(1)
        rows_at = table("rows", rows.dtype, len(rows))
        pictures_at = table("pictures", np.dtype(np.uint8), size)
    if len(out.getvalue()) > pictures_at:
        raise OSError("HDF5 laid the file out in an order that cannot be written")
    return out.getvalue(), rows_at, pictures_at


class _Part:
    """An unfinished pack, from its beginning or from where an earlier build stopped."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self.rows = np.zeros_like(plan.rows)
        self.done = 0
        self._mark = (MAGIC + plan.digest.encode()).ljust(USER_BLOCK, b"\0")
        _, self._rows_at, self._start = _structure(self.rows, 1, plan.about, "0" * 32)
        self._end = self._start
        self._waiting: list[bytes] = []
        self._waiting_bytes = self._written = 0

    def __enter__(self) -> _Part:
        self._file = _open_alone(self.path)
        if self._file.read(USER_BLOCK) == self._mark:
            self._keep()
        self._file.truncate(self._end if self.done else 0)
        self._file.seek(0)
        self._file.write(self._mark)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            with suppress(OSError):  # what can still be written need not be made again
                self._flush()
        finally:
            self._file.close()

    def _keep(self) -> None:
        """Take over the rows that are whole."""
        self._file.seek(self._rows_at)
        stored = self._file.read(self.rows.nbytes)
        whole = len(stored) // self.rows.itemsize
        rows = np.frombuffer(stored, self.rows.dtype, whole)
        self._file.seek(self._end)
        size = os.fstat(self._file.fileno()).st_size
        more = 2 * int(np.prod(self.plan.maps)) if self.plan.maps else 0
        for row in rows:
            length = int(row["length"]) + more
            if row["offset"] != self._end or not more < length <= size - self._end:
                break
            data = self._file.read(length)
            if row_hash(row, data) != row["hash"].tobytes():
                break
            self.rows[self.done] = row
            self.done += 1
            self._end += len(data)
        self._written = self.done

    def append(self, row: np.void, picture: bytes, maps: bytes) -> None:
        """The next row, and what is stored with it."""
        row["offset"], row["length"] = self._end, len(picture)
        data = picture + maps
        row["hash"] = np.frombuffer(row_hash(row, data), np.uint8)
        self.rows[self.done] = row
        self.done += 1
        self._end += len(data)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._file.seek(self._end - self._waiting_bytes)
        self._file.write(b"".join(self._waiting))
        self._file.seek(self._rows_at + self._written * self.rows.itemsize)
        self._file.write(self.rows[self._written : self.done].tobytes())
        self._file.flush()
        self._waiting, self._waiting_bytes, self._written = [], 0, self.done

    def finish(self) -> int:
        """Write what makes it an HDF5 file; returns the bytes of all pictures."""
        self._flush()
        size = self._end - self._start
        digest = table_digest(self.plan.about, self.rows)
        head, rows_at, start = _structure(self.rows, size, self.plan.about, digest)
        if (rows_at, start) != (self._rows_at, self._start):
            raise OSError("HDF5 laid the file out differently than before")
        for low, high in ((USER_BLOCK, rows_at), (rows_at + self.rows.nbytes, start)):
            self._file.seek(low)
            self._file.write(head[low:high])
        sync(self._file)
        return size


def _open_alone(path: Path) -> BinaryIO:
    """`path` to read and write, made if need be, locked against another build.

    Raises:
        OutputError: if another build still writes it after some seconds.
    """
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        file = os.fdopen(handle, "r+b")
        # A build that has just ended may have renamed what we opened.
        if take_lock(handle) and path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return file
        file.close()
        if time.monotonic() > end:
            raise OutputError(f"{path}: another build is writing it; wait for it, or end it")
        time.sleep(0.1)
