"""Packs: people cut out of their pictures, in HDF5 files (shards) that an index names.

The index, a JSON file, gives the pack its name: {format, about, shards}. `about` holds skeletons,
recipe, coding, teacher and versions; each entry of `shards` {name, persons, sha256, table}: a file
beside the index, the SHA-256 of it and that of its table of rows. A shard is an HDF5 file with

    /rows     (N,) one compound row a person, see `row_type`
    /pictures (B,) uint8, all stored pictures end to end: JPEG files, or RGB pixels; with a
              teacher, each is followed by that network's maps of the person, float16

Both are contiguous, so that training never calls libhdf5, which crashes on damaged files: a child
process reads and checks the tables once, pictures are read by their offsets.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose import sandbox
from humanpose.errors import FormatError, HumanPoseError, InputError, require
from humanpose.files import file_size, input_error, read_limited, sha256
from humanpose.geometry import Crop
from humanpose.images import load_image
from humanpose.skeleton import Skeleton
from humanpose.types import U8, Sample

FORMAT = "humanpose-pack/2"
SPLITS = ("train", "validation", "test")
TEXTS = ("dataset", "name", "identifier")
_BEGINNING = f'{{"format": "{FORMAT}"'.encode()
_MAX_INDEX_BYTES = 1 << 26


def row_type(joints: int, widths: Sequence[int], teacher: bool) -> np.dtype[Any]:
    """Return the type of a row: a person in pixels of its stored picture.

    `joints` are the common skeleton's, `widths` the bytes of the longest text in each of TEXTS.
    """
    columns: list[Any] = [
        *((name, f"S{width}") for name, width in zip(TEXTS, widths, strict=True)),
        ("split", "u1"),  # index into SPLITS
        ("skeleton", "u1"),  # the row's own one, an index into about's list
        ("scale", "<f4"),
        ("centre", "<f4", 2),
        ("head_size", "<f4"),
        ("box", "<f4", 4),
        ("area", "<f4"),
        ("joints", "<f4", (joints, 2)),
        ("visible", "u1", joints),
        ("to_picture", "<f8", (2, 3)),  # stored pixel -> pixel of the original picture
        ("size", "<u2", 2),  # width, height of the stored picture
        ("offset", "<u8"),  # in /pictures
        ("length", "<u4"),
        ("cells", "<f8", (2, 3)),  # stored pixel -> map cell
    ]
    return np.dtype(columns if teacher else columns[:-1])


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of which parts are read, by any number of threads and processes at once."""

    path: Path
    identity: tuple[int, int]  # bytes, time of the last change when it was first seen

    @classmethod
    def of(cls, path: Path) -> Stored:
        """Return the file `path`. Raises InputError if it is not there."""
        return cls(path.absolute(), (file_size(path), os.stat(path).st_mtime_ns))

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`. Raises InputError if the file was changed since."""
        try:
            with open(self.path, "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != self.identity:
                    raise InputError(f"{self.path}: changed while it was in use; start again")
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise input_error(self.path, error) from error
        if len(data) != length:
            raise FormatError(f"{self.path}: it ends before byte {offset + length:,}")
        return data


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class PackedSample(Sample):
    """A person whose picture lies inside a larger file; all of it in pixels of that picture."""

    file: Stored  # holds the picture
    place: tuple[int, int]  # (offset, length) in it, bytes
    coding: str  # "jpeg", or pixels, "rgb" or "bgr"
    crop: Crop  # pixel of the original picture -> pixel of the stored one, and its size
    name: str  # of the original picture
    cells: Crop | None = None  # stored pixel -> cell of the teacher's maps, and their (w, h)
    maps: tuple[int, ...] = ()  # (S, J, h, w) of those maps
    teacher: Skeleton | None = None  # of their J joints

    def image(self) -> U8:
        """Return the stored picture (H, W, 3) RGB. Raises FormatError, InputError naming it."""
        data = self.file.read(*self.place)
        width, height = self.crop.size
        if self.coding != "jpeg":
            image = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            return image if self.coding == "rgb" else np.ascontiguousarray(image[..., ::-1])
        try:
            image = load_image(data, max_pixels=width * height)
        except HumanPoseError as error:
            raise FormatError(f"{self.picture}: {error}") from error
        if image.shape != (height, width, 3):
            raise FormatError(f"{self.picture}: it is not {width} x {height}")
        return image

    def teacher_maps(self) -> NDArray[np.float16]:
        """Return the maps (S, J, h, w) of the pack's teacher, which lie where `cells` says."""
        data = self.file.read(sum(self.place), 2 * int(np.prod(self.maps)))
        return np.frombuffer(data, np.float16).reshape(self.maps)


def image_of(sample: Sample) -> U8:
    """Return the picture (H, W, 3) RGB of `sample`. Raises InputError if it is unreadable."""
    return sample.image() if isinstance(sample, PackedSample) else load_image(sample.picture)


def has_picture(sample: Sample) -> bool:
    """Return whether there is a file to read the picture of `sample` from."""
    return isinstance(sample, PackedSample) or sample.picture.is_file()


class _Index:
    """Content of an index, checked; any error of Python on a damaged one."""

    def __init__(self, path: Path) -> None:
        index = json.loads(read_limited(path, _MAX_INDEX_BYTES))
        self.about: dict[str, Any] = index["about"]
        self.shards = {str(shard["name"]): str(shard["sha256"]) for shard in index["shards"]}
        self.tables = [str(shard["table"]) for shard in index["shards"]]
        self.coding = str(self.about["coding"])
        self.skeletons = [Skeleton.from_dict(s["skeleton"]) for s in self.about["skeletons"]]
        self.joints = np.arange(len(self.about["skeleton"]["joints"]))
        self.places = [self.joints[s["places"]] for s in self.about["skeletons"]]
        taught = self.about.get("teacher")
        self.maps = tuple(int(n) for n in taught["maps"]) if taught else ()
        self.teacher = Skeleton.from_dict(taught["spec"]["skeleton"]) if taught else None
        for name in self.shards:
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not the name of a file beside it")
        joints = [len(skeleton.joints) for skeleton in self.skeletons]
        if self.coding not in ("rgb", "jpeg") or [len(p) for p in self.places] != joints:
            raise ValueError("its table cannot be read by what it says about itself")
        if self.teacher and (
            (len(self.maps), self.maps[1]) != (4, len(self.teacher.joints))
            or not 0 < np.prod(self.maps, dtype=float) < 1e8
        ):
            raise ValueError(f"its teacher's maps are {self.maps}")


class Pack(_Index):
    """A pack made by `humanpose data build`: a sequence of `PackedSample`.

    `path` is that of the index, `about` its description of the pack, `shards` the SHA-256 of each
    by its name, `rows` (N,) the table of all shards; offsets count from the file's beginning.
    """

    def __init__(self, path: Path) -> None:
        """Read the index and the tables, not the pictures.

        Raises InputError: the index or a shard is missing; FormatError: it is not a pack, or is
        damaged; MissingExtraError: h5py is not installed.
        """
        self.path = path
        size = file_size(path)
        if not is_pack(path):
            raise FormatError(f"{path}: not a pack of `humanpose data build`")
        require("h5py", "data")
        found = sandbox.parse(_parse, path, timeout=9 + size / 2000)  # 0.1 s for each shard
        super().__init__(path)
        self.rows: NDArray[Any] = found["rows"]
        self._shard = found["shard"]
        self._files = [Stored.of(path.parent / name) for name in self.shards]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PackedSample:
        """Return row `index`, 0 to len - 1, in its data set's own skeleton."""
        row = self.rows[index]
        places = self.places[row["skeleton"]]
        name = row["name"].decode()
        matrix = np.asarray(cv2.invertAffineTransform(row["to_picture"]), np.float64)
        width, height = row["size"].tolist()
        return PackedSample(
            # No file of this name exists: it tells rows of one picture apart and is read by people.
            picture=self.path / str(index) / name,
            joints=row["joints"][places],
            visible=row["visible"][places],
            box=row["box"].copy(),
            area=float(row["area"]),
            split=SPLITS[row["split"]],
            origin=(row["dataset"].decode(), row["identifier"].decode()),
            skeleton=self.skeletons[row["skeleton"]],
            head_size=float(row["head_size"]),
            centre=None if np.isnan(row["centre"]).any() else row["centre"].copy(),
            scale=float(row["scale"]),
            file=self._files[self._shard[index]],
            place=(int(row["offset"]), int(row["length"])),
            coding=self.coding,
            crop=Crop(matrix, (width, height)),
            name=name,
            cells=Crop(row["cells"], (self.maps[3], self.maps[2])) if self.maps else None,
            maps=self.maps,
            teacher=self.teacher,
        )

    def __iter__(self) -> Iterator[PackedSample]:
        return map(self.__getitem__, range(len(self)))

    def damaged(self) -> list[str]:
        """Return the names of shards that are not what was written; reads all of them."""
        folder = self.path.parent
        return [name for name, digest in self.shards.items() if sha256(folder / name) != digest]


def is_pack(path: Path) -> bool:
    """Return whether `path` is a file that begins as the index of a pack."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_BEGINNING)) == _BEGINNING


def _parse(path: str) -> sandbox.Arrays:
    """Return the rows of all shards, offsets from the file's beginning, and each one's shard."""
    import h5py

    index = _Index(Path(path))
    taught = bool(index.maps)
    more = taught * 2 * int(np.prod(index.maps))  # bytes of the maps
    tables = []
    for name, digest in zip(index.shards, index.tables, strict=True):
        shard = Path(path).with_name(name)
        size = file_size(shard)
        with h5py.File(shard, "r") as file:
            rows, pictures = file["rows"], file["pictures"]
            start, end = pictures.id.get_offset(), pictures.size
            widths = [rows.dtype[text].itemsize for text in TEXTS]
            if (
                rows.dtype != row_type(len(index.joints), widths, taught)
                or (rows.ndim, pictures.ndim, pictures.dtype) != (1, 1, np.uint8)
                # None: in chunks, or in another file.
                or rows.id.get_offset() is None
                or start is None
                or start + end > size
            ):
                raise ValueError(f"{name}: not two plain tables, rows and pictures")
            table = rows[()]
        if hashlib.sha256(table.tobytes()).hexdigest() != digest:
            raise ValueError(f"{name}: its table is not what was written")
        sides, length = table["size"].astype(np.int64), table["length"].astype(np.int64)
        used = (
            (table["offset"].astype(float) + length + more <= end)
            & (length == 3 * sides.prod(1) if index.coding == "rgb" else length > 0)
            & (sides > 0).all(1)
            & (table["split"] < len(SPLITS))
            & (table["skeleton"] < len(index.skeletons))
            & np.isfinite(table["box"]).all(1)
            & (np.abs(np.linalg.det(table["to_picture"][:, :, :2])) > 1e-9)
        )
        if not used.all():
            raise ValueError(f"{name}: a row leads nowhere")
        table["offset"] += start
        tables.append(table)
    shard_of = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return {"rows": np.concatenate(tables), "shard": shard_of}
