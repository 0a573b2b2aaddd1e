"""Write packs shard by shard, so that a killed build continues after the last complete one.

A shard gets its name when it is complete and on the disk. NAME.part, a line for each of them, is
what the next build reads; the index is written last.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose.data.pack import FORMAT, PackedSample, image_of
from humanpose.data.pack_plan import Plan
from humanpose.errors import InputError
from humanpose.files import atomic_write, locked, output_error, part_path, sha256, sync
from humanpose.geometry import Crop, compose
from humanpose.types import F32, U8

Row = tuple[np.void, bytes]  # of the table; its picture and the teacher's maps
Shard = dict[str, Any]  # an entry of the index
# A picture and a box in it -> maps (S, J, h, w), and picture pixel -> cell.
Teacher = Callable[[U8, F32], tuple[NDArray[np.float16], Crop]]

_MAX_BYTES = 128 << 20  # of a shard's pictures; it is laid out in memory


def write_pack(
    path: Path,
    plan: Plan,
    *,
    workers: int,
    progress: Callable[[int], None],
    teacher: Teacher | None = None,
) -> dict[str, int]:
    """Build the pack `path`, keeping the shards of an unfinished build of the same plan.

    Memory for the plan and one shard. The files depend neither on `workers` nor on whether they
    were built in one go. A pack that was there stays whole until the new one is complete.

    Args:
        path: gets the index; shards lie beside it.
        plan: what to write.
        workers: threads that decode and encode.
        progress: called with the number of finished rows.
        teacher: makes the maps that the plan speaks of; called from several threads.

    Returns:
        persons, those of them that an unfinished build left, and bytes of the shards.

    Raises:
        InputError: naming a picture that cannot be read.
        OutputError: the disk is full, another build writes the same pack ...
    """
    try:
        with locked(part_path(path), "build") as journal:
            digest = plan.digest
            shards = _kept(journal, digest, path.parent)
            kept = done = sum(shard["persons"] for shard in shards)
            rows: list[Row] = []
            size = 0
            with ThreadPoolExecutor(workers) as pool:
                work = partial(_people, plan, teacher)
                for people in _in_order(pool, work, plan, done, ahead=4 * workers):
                    rows += people
                    done += len(people)
                    size += sum(len(data) for _, data in people)
                    if len(rows) >= plan.shard or size > _MAX_BYTES or done == len(plan.rows):
                        name = f"{path.stem}-{digest[:8]}-{len(shards):04}.h5"
                        shards.append(_write_shard(path.with_name(name), rows))
                        journal.write(json.dumps(shards[-1]).encode() + b"\n")
                        sync(journal)
                        rows, size = [], 0
                    progress(done)
            with atomic_write(path) as file:
                index = {"format": FORMAT, "about": plan.about, "shards": shards}
                file.write(json.dumps(index).encode())
            total = _clean_up(path, {shard["name"] for shard in shards})
    except OSError as error:
        raise output_error(path, error) from error
    return {"persons": len(plan.rows), "kept": kept, "bytes": total}


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[list[int]], list[Row]],
    plan: Plan,
    start: int,
    *,
    ahead: int,
) -> Iterator[list[Row]]:
    """Yield the rows of one picture after the other, from row `start`; few are kept waiting."""
    waiting: deque[Future[list[Row]]] = deque()
    pictures = groupby(range(start, len(plan.samples)), lambda i: plan.samples[i].picture)
    try:
        for _, people in pictures:
            waiting.append(pool.submit(work, list(people)))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _people(plan: Plan, teacher: Teacher | None, people: list[int]) -> list[Row]:
    """Return the rows of the people of one picture, and what is stored with them."""
    image = image_of(plan.samples[people[0]])
    found = []
    for i in people:
        sample, row = plan.samples[i], plan.rows[i].copy()
        crop, part = plan.store.crop(sample.box, (image.shape[1], image.shape[0]))
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
        cut = plan.store.cut(image, crop, part)
        data = plan.store.content(cut, cut is image, sample)
        row["length"] = len(data)
        if teacher:
            maps, cells = teacher(cut, row["box"])
            row["cells"] = cells.matrix
            data += maps.tobytes()
        found.append((row, data))
    return found


def _kept(journal: IO[bytes], digest: str, folder: Path) -> list[Shard]:
    """Return the whole shards of an unfinished build, and cut `journal` after them.

    Args:
        journal: a line with the digest of the build's plan, then one for each shard.
        digest: of the present plan; shards of another one are not kept.
        folder: of the shards.
    """
    shards: list[Shard] = []
    lines = journal.read().split(b"\n")
    end = len(digest) + 1
    for line in lines[1:] if lines[0] == digest.encode() else ():
        try:
            shard = json.loads(line)
            if sha256(folder / shard["name"]) != shard["sha256"]:
                break
        except (InputError, ValueError, LookupError, TypeError):  # a torn line, a missing file
            break
        shards.append(shard)
        end += len(line) + 1
    journal.seek(0)
    journal.write(digest.encode() + b"\n")
    journal.truncate(end)
    journal.seek(end)
    return shards


def _clean_up(path: Path, names: set[str]) -> int:
    """Remove the journal and what other builds of `path` left; return the bytes of the shards."""
    ours = re.compile(re.escape(path.stem) + r"-[0-9a-f]{8}-\d{4,}\.h5(\.[0-9a-f]{8}\.part)?")
    for file in path.parent.iterdir():
        if ours.fullmatch(file.name) and file.name not in names:
            file.unlink()
    with suppress(PermissionError):  # Windows keeps a file that is open
        part_path(path).unlink()
    return sum((path.parent / name).stat().st_size for name in names)


def _write_shard(path: Path, rows: list[Row]) -> Shard:
    """Write one shard and return its entry in the index."""
    import h5py

    ends = np.cumsum([len(data) for _, data in rows])
    table = np.array([row for row, _ in rows])
    table["offset"][1:] = ends[:-1]
    # In memory: libhdf5 does not survive a disk that is full.
    out = io.BytesIO()
    with h5py.File(out, "w", libver="earliest") as file:
        file["rows"] = table
        pictures = file.create_dataset("pictures", (int(ends[-1]),), np.uint8)
        for start, (_, data) in zip(table["offset"], rows, strict=True):
            pictures[start : start + len(data)] = np.frombuffer(data, np.uint8)
    content = out.getbuffer()
    with atomic_write(path) as target:
        target.write(content)
    return {
        "name": path.name,
        "persons": len(rows),
        "sha256": hashlib.sha256(content).hexdigest(),
        "table": hashlib.sha256(table.tobytes()).hexdigest(),
    }
