"""Write packs: a plan of all rows, then the shards; a killed build continues after the last one.

A shard gets its name when it is complete and on the disk. NAME.part, a line for each of them, is
what the next build reads; the index is written last.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose.data.pack import FORMAT, SPLITS, TEXTS, PackedSample, image_of, row_type
from humanpose.errors import InputError
from humanpose.files import atomic_write, locked, output_error, part_path, sha256, sync
from humanpose.geometry import Crop, compose, crop_of_box
from humanpose.skeleton import Skeleton, joint_map
from humanpose.types import F32, U8, Sample

Row = tuple[np.void, bytes]  # of the table; its picture and the teacher's maps
# A picture and a box in it -> maps (S, J, h, w), and picture pixel -> cell.
Teacher = Callable[[U8, F32], tuple[NDArray[np.float16], Crop]]

_MAX_SHARD = 128 << 20  # bytes of its pictures; it is laid out in memory


@dataclass(frozen=True, slots=True)
class Store:
    """Rules for the stored part of a person's picture.

    `box` is (width, height) of the crop that a network would be given, pixels. Larger people are
    shrunk until they fit it; no person is enlarged. With a `reach` of 1.75 a zoom from 0.7, turns
    to 60 degrees and shifts of 8 % leave 95 % of the crops complete; the rest lacks, over all
    crops, 0.1 % of the pixels.
    """

    box: tuple[int, int] = (256, 256)
    context: float = 1.25  # growth of the person's box in that crop
    reach: float = 1.75  # side of the stored square over the longer side of that crop
    quality: int = 92  # of JPEG; a whole picture at its own resolution keeps the file it came in
    raw: bool = False  # RGB pixels in place of JPEG

    def crop(self, box: F32, picture: tuple[int, int]) -> tuple[Crop, tuple[slice, slice]]:
        """Return where the stored part of a `picture` (width, height) lies; its rows, columns."""
        scale = float(crop_of_box(box, self.box, context=self.context).matrix[0, 0])
        middle = np.asarray(box[:2], np.float64) + np.asarray(box[2:], np.float64) / 2
        half = self.reach * max(self.box) / scale / 2
        low = np.clip(np.floor(middle - half), 0, np.array(picture) - 1).astype(int)
        high = np.clip(np.ceil(middle + half), low + 1, picture).astype(int)
        factor = min(1.0, scale)
        if ((high - low) * factor < 1).any():  # a strip of a person outside the picture
            factor = 1.0
        width, height = np.rint((high - low) * factor).astype(int).tolist()
        # The corners, half a pixel outside the first pixels' centres, coincide.
        move = factor * (0.5 - low) - 0.5
        crop = Crop(np.column_stack([np.eye(2) * factor, move]), (width, height))
        return crop, (slice(low[1], high[1]), slice(low[0], high[0]))

    def content(self, sample: Sample, image: U8, part: U8, factor: float) -> tuple[U8, bytes]:
        """Return `part` of the `image` of `sample`, shrunk by `factor`, and as bytes to store."""
        if factor < 1:  # by the factor, not to a size: that would stretch one side a little
            area = cv2.INTER_AREA
            part = np.asarray(cv2.resize(part, None, fx=factor, fy=factor, interpolation=area))
        if part.shape == image.shape:
            part = image
        if self.raw:
            return part, part.tobytes()
        kept = b""
        if not isinstance(sample, PackedSample):
            kept = sample.picture.read_bytes() if part is image else b""
        elif part is image and sample.coding == "jpeg":
            kept = sample.file.read(*sample.place)
        if kept.startswith(b"\xff\xd8"):
            return part, kept
        bgr = cv2.cvtColor(part, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
        return part, jpeg.tobytes()


def name_of(samples: Sequence[Sample]) -> list[str]:
    """Return the names of the samples' pictures: paths below the common folder of a data set."""
    folders: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        folders[sample.origin[0]].add(os.path.abspath(sample.picture.parent))
    roots = {name: os.path.commonpath(paths) for name, paths in folders.items()}
    return [
        sample.name
        if isinstance(sample, PackedSample)
        else Path(os.path.relpath(sample.picture, roots[sample.origin[0]])).as_posix()
        for sample in samples
    ]


def split_by_picture(
    samples: Sequence[Sample], shares: tuple[float, float, float] | None, seed: int
) -> list[str]:
    """Return the split of each sample; all people of a picture get the same one.

    `shares` are those of train, validation and test among each data set's pictures, in sum 1; None
    keeps the sets' own splits, and the most held-out one where they tear a picture apart.
    """
    keys, first = [], dict[str, tuple[str, str]]()
    for sample in samples:
        if isinstance(sample, PackedSample):
            keys.append((sample.origin[0], sample.name))
        else:  # one file may be part of two data sets
            path = os.path.realpath(sample.picture)
            keys.append(first.setdefault(path, (sample.origin[0], path)))
    chosen: dict[tuple[str, str], str] = {}
    if shares is None:
        for key, sample in zip(keys, samples, strict=True):
            chosen[key] = max(chosen.get(key, SPLITS[0]), sample.split, key=SPLITS.index)
        return [chosen[key] for key in keys]
    for name in sorted({name for name, _ in keys}):
        pictures = sorted({key for key in keys if key[0] == name})
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(pictures))
        bounds = np.rint(np.cumsum(shares) * len(pictures))
        parts = np.searchsorted(bounds, np.arange(len(pictures)), "right")
        for k, part in zip(order, parts, strict=True):
            chosen[pictures[k]] = SPLITS[min(int(part), 2)]
    return [chosen[key] for key in keys]


def common_skeleton(skeletons: Sequence[Skeleton]) -> tuple[Skeleton, list[list[int]]]:
    """Return a skeleton with every joint of `skeletons`, and where it holds the joints of each.

    Joints are the same if `skeleton.convert` takes them so; no two of one skeleton ever are.
    """
    common, places = skeletons[0], [list(range(len(skeletons[0].joints)))]
    for skeleton in skeletons[1:]:
        names, taken = list(common.joints), list[int]()
        for name, place in zip(skeleton.joints, joint_map(common, skeleton).tolist(), strict=True):
            if place < 0 or place in taken:
                place = len(names)
                names.append(name)
            taken.append(place)
        limbs, pairs = (
            tuple(dict.fromkeys([*old, *((taken[a], taken[b]) for a, b in new)]))
            for old, new in ((common.limbs, skeleton.limbs), (common.pairs, skeleton.pairs))
        )
        common = Skeleton(f"{common.name}+{skeleton.name}", tuple(names), limbs, pairs)
        places.append(taken)
    return common, places


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Plan of a pack: everything that determines its content."""

    samples: tuple[Sample, ...]  # N persons, those of one picture together
    rows: NDArray[Any]  # (N,), in pixels of the original pictures
    store: Store
    about: dict[str, Any]  # what the pack will say of itself, a JSON value
    shard: int  # persons in a file, or a few more, as those of one picture stay together

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal: an unfinished build of a plan with the same one can be kept."""
        text = json.dumps([self.about, [str(s.picture) for s in self.samples]], sort_keys=True)
        return hashlib.sha256(text.encode() + self.rows.tobytes()).hexdigest()


def plan_of(
    samples: Sequence[Sample],
    splits: Sequence[str],
    store: Store,
    about: dict[str, Any],
    shard: int,
) -> Plan:
    """Return the plan of a pack of `samples`; raises InputError if there are none."""
    if not samples:
        raise InputError("an empty pack: no person of these data sets has a box and a joint")
    first: dict[Path, int] = {}
    order = [first.setdefault(sample.picture, i) for i, sample in enumerate(samples)]
    samples, splits = zip(
        *((samples[i], splits[i]) for i in np.argsort(order, kind="stable")), strict=True
    )
    skeletons = list(dict.fromkeys(sample.skeleton for sample in samples))
    common, places = common_skeleton(skeletons)
    sets, identifiers = zip(*(sample.origin for sample in samples), strict=True)
    texts = [np.char.encode(column, "utf-8") for column in (sets, name_of(samples), identifiers)]
    widths = [text.itemsize for text in texts]
    rows = np.zeros(len(samples), row_type(len(common.joints), widths, "teacher" in about))
    for name, column in zip(TEXTS, texts, strict=True):
        rows[name] = column
    for name in ("scale", "head_size", "box", "area"):
        rows[name] = [getattr(sample, name) for sample in samples]
    rows["split"] = [SPLITS.index(split) for split in splits]
    rows["joints"] = rows["centre"] = np.nan
    for row, sample in zip(rows, samples, strict=True):
        kind = row["skeleton"] = skeletons.index(sample.skeleton)
        row["joints"][places[kind]], row["visible"][places[kind]] = sample.joints, sample.visible
        if sample.centre is not None:
            row["centre"] = sample.centre
    said = about | {
        "coding": "rgb" if store.raw else "jpeg",
        "store": asdict(store),
        "skeleton": common.to_dict(),
        "skeletons": [
            {"skeleton": skeleton.to_dict(), "places": place}
            for skeleton, place in zip(skeletons, places, strict=True)
        ],
        "opencv": cv2.__version__,  # another version may encode the same pixels differently
    }
    return Plan(samples, rows, store, said, shard)


def write_pack(
    path: Path,
    plan: Plan,
    *,
    workers: int,
    progress: Callable[[int], None],
    teacher: Teacher | None = None,
) -> dict[str, int]:
    """Build the pack with the index `path`, keeping whole shards of an unfinished build of `plan`.

    The files depend neither on the number of `workers` (threads) nor on whether they were built in
    one go. A pack that was there stays whole until the new one is complete. `teacher` is called
    from several threads, `progress` with the number of finished rows.

    Returns:
        persons, kept (of them, from an unfinished build), bytes of the shards.

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
            for people in _each_picture(plan, done, workers, teacher):
                rows += people
                done += len(people)
                full = len(rows) >= plan.shard or sum(len(data) for _, data in rows) > _MAX_SHARD
                if full or done == len(plan.rows):
                    name = f"{path.stem}-{digest[:8]}-{len(shards):04}.h5"
                    shards.append(_write_shard(path.with_name(name), rows))
                    journal.write(json.dumps(shards[-1]).encode() + b"\n")
                    sync(journal)
                    rows = []
                progress(done)
            index = {"format": FORMAT, "about": plan.about, "shards": shards}
            with atomic_write(path) as file:
                file.write(json.dumps(index).encode())
            # What other builds of this pack left, and the journal.
            ours = re.compile(
                re.escape(path.stem) + r"-[0-9a-f]{8}-\d{4,}\.h5(\.[0-9a-f]{8}\.part)?"
            )
            names = {shard["name"] for shard in shards}
            for old in path.parent.iterdir():
                if ours.fullmatch(old.name) and old.name not in names:
                    old.unlink()
            with suppress(PermissionError):  # Windows keeps a file that is open
                part_path(path).unlink()
    except OSError as error:
        raise output_error(path, error) from error
    size = sum(path.with_name(name).stat().st_size for name in names)
    return {"persons": len(plan.rows), "kept": kept, "bytes": size}


def _kept(journal: IO[bytes], digest: str, folder: Path) -> list[dict[str, Any]]:
    """Return the whole shards in `folder` of an unfinished build; cut `journal` after them.

    The journal: a line with the digest of the build's plan, then one for each shard.
    """
    shards: list[dict[str, Any]] = []
    first, *lines = journal.read().splitlines() or [b""]
    with suppress(InputError, ValueError, LookupError, TypeError):  # a torn line, a missing file
        for line in lines if first == digest.encode() else ():
            shard = json.loads(line)
            if sha256(folder / shard["name"]) != shard["sha256"]:
                break
            shards.append(shard)
    journal.seek(0)
    journal.writelines(line + b"\n" for line in (digest.encode(), *lines[: len(shards)]))
    journal.truncate()
    return shards


def _each_picture(
    plan: Plan, start: int, workers: int, teacher: Teacher | None
) -> Iterator[list[Row]]:
    """Yield the rows of one picture after the other, from row `start`."""
    people = groupby(range(start, len(plan.samples)), lambda i: plan.samples[i].picture)
    with ThreadPoolExecutor(workers) as pool:
        pictures = (list(group) for _, group in people)
        while some := list(islice(pictures, 16 * workers)):
            yield from pool.map(partial(_people, plan, teacher), some)


def _people(plan: Plan, teacher: Teacher | None, people: list[int]) -> list[Row]:
    """Return the rows of the people of one picture, and what is stored with them."""
    image = image_of(plan.samples[people[0]])
    found = []
    for i in people:
        sample, row = plan.samples[i], plan.rows[i].copy()
        crop, part = plan.store.crop(sample.box, (image.shape[1], image.shape[0]))
        factor, matrix = crop.matrix[0, 0], crop.matrix
        row["joints"] = crop.to_crop(row["joints"])
        row["centre"] = crop.to_crop(row["centre"])
        row["box"][:2] = crop.to_crop(row["box"][:2])
        row["box"][2:] *= factor
        row["scale"] *= factor
        row["head_size"] *= factor
        row["area"] *= factor**2
        if isinstance(sample, PackedSample):
            matrix = compose(matrix, sample.crop.matrix)
        row["to_picture"] = cv2.invertAffineTransform(matrix)
        row["size"] = crop.size
        cut, data = plan.store.content(sample, image, image[part], factor)
        row["length"] = len(data)
        if teacher:
            maps, cells = teacher(cut, row["box"])
            row["cells"] = cells.matrix
            data += maps.tobytes()
        found.append((row, data))
    return found


def _write_shard(path: Path, rows: list[Row]) -> dict[str, Any]:
    """Write one shard and return its entry in the index."""
    import h5py

    table = np.array([row for row, _ in rows])
    table["offset"][1:] = np.cumsum([len(data) for _, data in rows])[:-1]
    out = io.BytesIO()  # in memory: libhdf5 does not survive a disk that is full
    with h5py.File(out, "w", libver="earliest") as file:
        file["rows"] = table
        file["pictures"] = np.frombuffer(b"".join(data for _, data in rows), np.uint8)
    content = out.getbuffer()
    with atomic_write(path) as target:
        target.write(content)
    return {
        "name": path.name,
        "persons": len(rows),
        "sha256": hashlib.sha256(content).hexdigest(),
        "table": hashlib.sha256(table.tobytes()).hexdigest(),
    }
