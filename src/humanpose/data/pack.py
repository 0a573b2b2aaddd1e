"""Packs: people cut out of their pictures, in one HDF5 file that is read by plain offsets.

    byte 0      user block of 512 bytes: MAGIC, then a digest of what was to be built
    byte 512    an HDF5 file; its root has the attributes format, complete, about (JSON) and
                digest (of about and rows)
      /rows     (N,) one compound row a person, see `row_type`
      /pictures (B,) uint8, all stored pictures end to end: JPEG files, or RGB pixels; with a
                teacher, each is followed by that network's maps of the person, float16

Both data sets are contiguous, so that a training never calls libhdf5, which crashes on damaged
files: a child process looks at the structure once, pictures are read by their offsets.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose import sandbox
from humanpose.errors import FormatError, HumanPoseError, InputError, MissingExtraError
from humanpose.files import file_size, input_error
from humanpose.geometry import Crop
from humanpose.images import load_image
from humanpose.skeleton import Skeleton
from humanpose.types import U8, Sample

FORMAT = "humanpose-pack/1"
MAGIC = b"humanpose pack 1\n"
USER_BLOCK = 512
SPLITS = ("train", "validation", "test")
TEXTS = ("dataset", "name", "identifier")
_PLACES = ("joints", "box", "centre", "scale", "head_size")
_MAX_SIDE = 1 << 14
_FARTHEST = 1e5  # pixels of a joint, box or centre
_HASH = 16


def row_type(joints: int, widths: Sequence[int], teacher: bool) -> np.dtype[Any]:
    """A row of a pack: a person in pixels of its stored picture.

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
            ("offset", "<u8"),  # in the file
            ("length", "<u4"),
            *cells,
            ("hash", "u1", _HASH),  # of the row before this column, and of the picture
        ]
    )


def row_hash(row: np.void, data: bytes) -> bytes:
    """BLAKE2b of a row but for its column `hash`, and of its picture and what follows that."""
    return hashlib.blake2b(row.tobytes()[:-_HASH] + data, digest_size=_HASH).digest()


def table_digest(about: str, rows: NDArray[Any]) -> str:
    """BLAKE2b, 32 hexadecimal digits, of everything in a pack but its pictures."""
    return hashlib.blake2b(about.encode() + rows.tobytes(), digest_size=_HASH).hexdigest()


class Stored:
    """A file of which parts are read; may be used by many threads and processes at once.

    Every process opens it for itself; where a process is forked, reads by offset share nothing.

    Raises:
        InputError: if the file is not there, or has been changed since it was first opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = threading.Lock()
        self._file: int | None = None
        self._identity = self._look()

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`. Raises FormatError if the file ends before that."""
        try:
            if hasattr(os, "pread"):
                data = os.pread(self._open(), length, offset)
            else:
                with self._lock:
                    os.lseek(self._open(), offset, os.SEEK_SET)
                    data = os.read(self._open(), length)
        except OSError as error:
            raise input_error(self.path, error) from error
        if len(data) != length:
            raise FormatError(f"{self.path}: it ends before byte {offset + length:,}")
        return data

    def _open(self) -> int:
        if self._file is None:
            file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, file)
            if self._look() != self._identity:
                raise InputError(f"{self.path}: changed while it was in use; start again")
            self._file = file
        return self._file

    def _look(self) -> tuple[int, int]:
        size = file_size(self.path)
        return size, os.stat(self.path).st_mtime_ns

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_identity": self._identity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _file=None)


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
        """The stored picture (H, W, 3) RGB. Raises FormatError, InputError naming it."""
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
        """(S, J, h, w) maps of the pack's teacher, which lie where `cells` says."""
        data = self.file.read(sum(self.place), 2 * int(np.prod(self.maps)))
        return np.frombuffer(data, np.float16).reshape(self.maps)


def image_of(sample: Sample) -> U8:
    """The picture (H, W, 3) RGB that `sample`'s joints lie in. Raises InputError if unreadable."""
    return sample.image() if isinstance(sample, PackedSample) else load_image(sample.picture)


def has_picture(sample: Sample) -> bool:
    """Whether there is a file to read the picture of `sample` from."""
    return isinstance(sample, PackedSample) or sample.picture.is_file()


class Pack:
    """A pack that `humanpose data build` made.

    Attributes:
        path: of the file.
        rows: (N,) table of `row_type`.
        about: what it says of itself: skeletons, recipe, coding, teacher, versions.
    """

    def __init__(self, path: Path) -> None:
        """Look at everything but the pictures.

        Raises:
            InputError: if there is no such file.
            FormatError: if it is not a pack, incomplete or damaged.
            MissingExtraError: without h5py.
        """
        self.path = path
        self._file = Stored(path)
        if not is_pack(path):
            raise FormatError(f"{path}: not a pack of `humanpose data build`")
        if importlib.util.find_spec("h5py") is None:
            raise MissingExtraError("h5py", "data")
        found = sandbox.parse(_parse_pack, path, timeout=9 + file_size(path) / 1e8)
        try:
            about = found["about"].item()
            self.rows: NDArray[Any] = found["rows"]
            if table_digest(about, self.rows) != found["digest"].item():
                raise ValueError("its table is not what was written")
            self.about: dict[str, Any] = json.loads(about)
            self.coding = str(self.about["coding"])
            self.skeletons = [Skeleton.from_dict(s["skeleton"]) for s in self.about["skeletons"]]
            taught = self.about.get("teacher", {})
            self.maps = tuple(int(n) for n in taught.get("maps", ()))
            self.teacher = Skeleton.from_dict(taught["spec"]["skeleton"]) if self.maps else None
            self._places = [np.array(s["places"], np.int64) for s in self.about["skeletons"]]
            self._check(*found["pictures"].tolist())
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise FormatError(f"{path}: damaged ({' '.join(str(error).split())[:200]})") from error

    def _check(self, start: int, size: int) -> None:
        """Raises ValueError unless every row can be used."""
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
        end = np.uint64(start + size)
        inside = (offset >= start) & (offset <= end) & (length + self._more <= end - offset)
        sides = rows["size"].astype(np.int64)
        pixels = length == 3 * sides.prod(1) if self.coding == "rgb" else length > 0
        known = [
            (p >= 0).all() and (p < joints).all() and len(p) == len(s.joints)
            for p, s in zip(self._places, self.skeletons, strict=True)
        ]
        if not (
            self.coding in ("rgb", "jpeg")
            and start + size <= file_size(self.path)
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

    @property
    def _more(self) -> int:
        """Bytes of the maps behind each picture."""
        return 2 * int(np.prod(self.maps)) if self.maps else 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PackedSample:
        """Row `index`, 0 to len - 1, in its data set's own skeleton."""
        row = self.rows[index]
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
            file=self._file,
            place=(int(row["offset"]), int(row["length"])),
            coding=self.coding,
            crop=Crop(matrix, (width, height)),
            name=name,
            cells=Crop(row["cells"], (self.maps[3], self.maps[2])) if self.maps else None,
            maps=self.maps,
            teacher=self.teacher,
        )

    def __iter__(self) -> Iterator[PackedSample]:
        return (self[i] for i in range(len(self)))

    def damaged(self) -> list[int]:
        """Rows whose picture is not the one that was written; reads the whole file."""
        return [
            i
            for i, row in enumerate(self.rows)
            if row_hash(row, self._file.read(int(row["offset"]), int(row["length"]) + self._more))
            != row["hash"].tobytes()
        ]


def is_pack(path: Path) -> bool:
    """Whether `path` is a file that begins as packs do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_pack(path: Path) -> list[Sample]:
    """Samples of a pack, each in its data set's own skeleton and in pixels of its stored picture.

    Raises:
        See Pack.
    """
    return list(Pack(path))


def _parse_pack(path: str) -> sandbox.Arrays:
    import h5py

    with h5py.File(path, "r") as file:
        texts = {name: file.attrs[name].decode() for name in ("format", "about", "digest")}
        if texts["format"] != FORMAT or file.attrs["complete"] != 1:
            raise ValueError(f"it is not {FORMAT} or not complete")
        for name in ("rows", "pictures"):
            found = file[name]
            plain = isinstance(found, h5py.Dataset) and found.ndim == 1 and found.chunks is None
            if not plain or found.is_virtual or found.external or found.dtype.hasobject:
                raise ValueError(f"{name} is not a plain table")
        rows, pictures = file["rows"], file["pictures"]
        if pictures.dtype != np.uint8 or rows.nbytes > os.path.getsize(path):
            raise ValueError("its tables do not fit the file")
        start = pictures.id.get_offset()
        return {
            "rows": rows[()],
            "pictures": np.array([start, pictures.size], np.int64),
            "about": np.array(texts["about"]),
            "digest": np.array(texts["digest"]),
        }
