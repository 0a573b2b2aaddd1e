"""Packs: people cut out of their pictures, in HDF5 files (shards) that an index names.

The index, a JSON file, gives the pack its name: {format, about, shards}. `about` holds skeletons,
recipe, coding, teacher and versions; each entry of `shards` {name, persons, sha256, table}: a file
beside the index, the SHA-256 of it and that of its table of rows. A shard is an HDF5 file with

    /rows     (N,) one compound row a person, see `row_type`
    /pictures (B,) uint8, all stored pictures end to end: JPEG files, or RGB pixels; with a
              teacher, each is followed by that network's maps of the person, float16

Both are contiguous, so that training never calls libhdf5, which crashes on damaged files: a child
process reads the tables once, pictures are read by their offsets.
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
_PLACES = ("joints", "box", "centre", "scale", "head_size")
_MAX_INDEX_BYTES = 1 << 26
_MAX_SIDE = 1 << 14
_FARTHEST = 1e5  # pixels of a joint, box or centre


def row_type(joints: int, widths: Sequence[int], teacher: bool) -> np.dtype[Any]:
    """Return the type of a row: a person in pixels of its stored picture.

    Args:
        joints: of the pack's common skeleton.
        widths: bytes of the longest text in each column of TEXTS.
        teacher: whether a teacher's maps follow the picture.
    """
    cells: list[Any] = [("cells", "<f8", (2, 3))] if teacher else []  # stored pixel -> map cell
    texts: list[Any] = [(name, f"S{width}") for name, width in zip(TEXTS, widths, strict=True)]
    return np.dtype(
        [
            *texts,
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
            *cells,
        ]
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of which parts are read, by any number of threads and processes at once.

    Attributes:
        path: of the file, absolute.
        identity: (bytes, time of the last change) when it was first seen.
    """

    path: Path
    identity: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> Stored:
        """Return the file `path`. Raises InputError if it is not there."""
        return cls(path.absolute(), (file_size(path), os.stat(path).st_mtime_ns))

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`.

        Raises:
            InputError: the file is not there, or was changed since it was first seen.
            FormatError: it ends before that.
        """
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
    """A person whose picture lies inside a larger file; all of it in pixels of that picture.

    Attributes:
        file: holds the picture.
        place: (offset, length) in it, bytes.
        coding: "jpeg", or pixels, "rgb" or "bgr".
        crop: pixel of the original picture -> pixel of the stored one, and its size.
        name: of the original picture.
        cells: stored pixel -> cell of the teacher's maps, and their (w, h); None without teacher.
        maps: (S, J, h, w) of those maps.
        teacher: skeleton of their J joints.
    """

    file: Stored
    place: tuple[int, int]
    coding: str
    crop: Crop
    name: str
    cells: Crop | None = None
    maps: tuple[int, ...] = ()
    teacher: Skeleton | None = None

    def image(self) -> U8:
        """Return the stored picture (H, W, 3) RGB. Raises FormatError, InputError naming it."""
        data = self.file.read(*self.place)
        width, height = self.crop.size
        if self.coding == "jpeg":
            try:
                image = load_image(data, max_pixels=width * height)
            except HumanPoseError as error:
                raise FormatError(f"{self.picture}: {error}") from error
        else:
            image = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            if self.coding == "bgr":
                image = np.ascontiguousarray(image[..., ::-1])
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


class Pack:
    """A pack made by `humanpose data build`: a sequence of `PackedSample`.

    Attributes:
        path: of the index.
        rows: (N,) table of `row_type`, of all shards.
        about: the index's description of the pack.
    """

    def __init__(self, path: Path) -> None:
        """Read the index and the tables, not the pictures.

        Raises:
            InputError: the index or a shard is missing.
            FormatError: it is not a pack, or is damaged.
            MissingExtraError: h5py is not installed.
        """
        self.path = path
        file_size(path)
        if not is_pack(path):
            raise FormatError(f"{path}: not a pack of `humanpose data build`")
        require("h5py", "data")
        try:
            index = _read_index(path)
            self.about: dict[str, Any] = index["about"]
            self.shards = {str(shard["name"]): str(shard["sha256"]) for shard in index["shards"]}
            self._files = [Stored.of(path.parent / name) for name in self.shards]
            found = sandbox.parse(_parse_shards, path, timeout=9 + len(self.shards) / 10)
            self.rows: NDArray[Any] = found["rows"]
            self._shard = np.repeat(np.arange(len(self.shards)), found["persons"])
            self.coding = str(self.about["coding"])
            self.skeletons = [Skeleton.from_dict(s["skeleton"]) for s in self.about["skeletons"]]
            taught = self.about.get("teacher", {})
            self.maps = tuple(int(n) for n in taught.get("maps", ()))
            self.teacher = Skeleton.from_dict(taught["spec"]["skeleton"]) if self.maps else None
            self._places = [np.array(s["places"], np.int64) for s in self.about["skeletons"]]
            self._starts = found["starts"]
            self._check(found["sizes"])
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            RecursionError,
        ) as error:
            raise FormatError(f"{path}: damaged ({' '.join(str(error).split())[:200]})") from error

    def _check(self, sizes: NDArray[np.int64]) -> None:
        """Raise ValueError unless every row can be used; `sizes` are the shards' /pictures."""
        rows, joints = self.rows, len(self.about["skeleton"]["joints"])
        fields: Any = rows.dtype.fields or {}
        widths = [fields[name][0].itemsize for name in TEXTS]
        if rows.dtype != row_type(joints, widths, bool(self.maps)):
            raise ValueError("its table has other columns")
        joints_of = len(self.teacher.joints) if self.teacher else 0
        wrong = len(self.maps) != 4 or self.maps[1] != joints_of
        if self.maps and (wrong or not 0 < np.prod(self.maps, dtype=float) < 1e8):
            raise ValueError(f"its teacher's maps are {self.maps}")
        offset, length = rows["offset"], rows["length"].astype(np.int64)
        end = sizes[self._shard].astype(np.uint64)
        more = 2 * int(np.prod(self.maps)) if self.maps else 0  # bytes of the maps
        inside = (offset <= end) & (length + more <= end - offset)
        sides = rows["size"].astype(np.int64)
        pixels = length == 3 * sides.prod(1) if self.coding == "rgb" else length > 0
        known = [
            (p >= 0).all() and (p < joints).all() and len(p) == len(s.joints)
            for p, s in zip(self._places, self.skeletons, strict=True)
        ]
        fits = [
            start + size <= file.identity[0]
            for start, size, file in zip(self._starts, sizes, self._files, strict=True)
        ]
        if not (
            self.coding in ("rgb", "jpeg")
            and all(fits)
            and (inside & pixels).all()
            and ((sides > 0) & (sides <= _MAX_SIDE)).all()
            and (rows["split"] < len(SPLITS)).all()
            and (rows["skeleton"] < len(known)).all()
            and all(known)
            and np.isfinite(rows["to_picture"]).all()
            and (np.abs(np.linalg.det(rows["to_picture"][:, :, :2])) > 1e-9).all()
            and np.isfinite(rows["box"]).all()
            and not any((np.abs(rows[name]) > _FARTHEST).any() for name in _PLACES)
        ):
            raise ValueError("a row leads nowhere")
        for name in TEXTS:
            np.char.decode(rows[name], "utf-8")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PackedSample:
        """Return row `index`, 0 to len - 1, in its data set's own skeleton."""
        row, shard = self.rows[index], self._shard[index]
        places = self._places[row["skeleton"]]
        name = row["name"].decode()
        centre = row["centre"]
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
            centre=None if np.isnan(centre).any() else centre.copy(),
            scale=float(row["scale"]),
            file=self._files[shard],
            place=(int(self._starts[shard]) + int(row["offset"]), int(row["length"])),
            coding=self.coding,
            crop=Crop(matrix, (width, height)),
            name=name,
            cells=Crop(row["cells"], (self.maps[3], self.maps[2])) if self.maps else None,
            maps=self.maps,
            teacher=self.teacher,
        )

    def __iter__(self) -> Iterator[PackedSample]:
        return (self[i] for i in range(len(self)))

    def damaged(self) -> list[str]:
        """Return the names of shards that are not what was written; reads all of them."""
        return [
            name
            for name, digest in self.shards.items()
            if sha256(self.path.parent / name) != digest
        ]


def is_pack(path: Path) -> bool:
    """Return whether `path` is a file that begins as the index of a pack."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_BEGINNING)) == _BEGINNING


def read_pack(path: Path) -> list[Sample]:
    """Return the samples of a pack, each in its data set's own skeleton. Raises as `Pack` does."""
    return list(Pack(path))


def _read_index(path: Path) -> dict[str, Any]:
    """Return the content of an index. Raises ValueError if a shard lies in another folder."""
    index: dict[str, Any] = json.loads(read_limited(path, _MAX_INDEX_BYTES))
    for shard in index["shards"]:
        if Path(shard["name"]).name != shard["name"]:
            raise ValueError(f"{shard['name']!r} is not the name of a file beside it")
    return index


def _parse_shards(path: str) -> sandbox.Arrays:
    """Return the rows of all shards, and of each shard persons, start and size of /pictures."""
    import h5py

    tables, numbers = [], []
    for shard in _read_index(Path(path))["shards"]:
        name = Path(path).with_name(shard["name"])
        with h5py.File(name, "r") as file:
            for table in (file["rows"], file["pictures"]):
                plain = isinstance(table, h5py.Dataset) and table.ndim == 1 and not table.chunks
                if not plain or table.is_virtual or table.external or table.dtype.hasobject:
                    raise ValueError(f"{name.name}: it is not made of plain tables")
            rows, pictures = file["rows"], file["pictures"]
            if pictures.dtype != np.uint8 or rows.nbytes > os.path.getsize(name):
                raise ValueError(f"{name.name}: its tables do not fit the file")
            tables.append(rows[()])
            numbers.append((len(rows), pictures.id.get_offset(), pictures.size))
        if hashlib.sha256(tables[-1].tobytes()).hexdigest() != shard["table"]:
            raise ValueError(f"{name.name}: its table is not what was written")
    persons, starts, sizes = np.array(numbers, np.int64).T
    return {"rows": np.concatenate(tables), "persons": persons, "starts": starts, "sizes": sizes}
