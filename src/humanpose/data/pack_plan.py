"""Plan of a pack: the part of each picture that is kept, the splits, the table of people."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose.data.pack import SPLITS, TEXTS, PackedSample, row_type
from humanpose.errors import InputError
from humanpose.files import read_limited
from humanpose.geometry import Crop, crop_of_box
from humanpose.skeleton import Skeleton, joint_map
from humanpose.types import F32, U8, Sample

_MAX_BYTES = 1 << 29  # of a picture's file


@dataclass(frozen=True, slots=True)
class Store:
    """Rules for the stored part of a person's picture.

    Attributes:
        box: (width, height) of the crop that a network would be given, pixels. Larger people are
            shrunk until they fit it; no person is enlarged.
        context: growth of the person's box in that crop.
        reach: side of the stored square over the longer side of that crop. With 1.75 a zoom from
            0.7, turns to 60 degrees and shifts of 8 % leave 95 % of the crops complete; the rest
            lacks, over all crops, 0.1 % of the pixels.
        quality: of JPEG. A whole picture at its own resolution keeps the file it came in.
        raw: RGB pixels in place of JPEG.
    """

    box: tuple[int, int] = (256, 256)
    context: float = 1.25
    reach: float = 1.75
    quality: int = 92
    raw: bool = False

    def crop(self, box: F32, picture: tuple[int, int]) -> tuple[Crop, tuple[slice, slice]]:
        """Return where the stored picture of a person lies, and its rows and columns.

        Args:
            box: of the person, picture pixels.
            picture: (width, height).
        """
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

    def cut(self, image: U8, crop: Crop, part: tuple[slice, slice]) -> U8:
        """Return the stored pixels of `image`; `image` itself where that is all of it."""
        cut = image[part]
        factor = crop.matrix[0, 0]
        if factor < 1:  # by the factor, not to a size: that would stretch one side a little
            area = cv2.INTER_AREA
            cut = np.asarray(cv2.resize(cut, None, fx=factor, fy=factor, interpolation=area))
        return image if cut.shape == image.shape else cut

    def content(self, cut: U8, whole: bool, sample: Sample) -> bytes:
        """Return the bytes written of the picture of `sample`, cut out: a JPEG file, or pixels."""
        if self.raw:
            return cut.tobytes()
        if whole:
            kept = _file_of(sample)
            if kept.startswith(b"\xff\xd8"):
                return kept
        bgr = cv2.cvtColor(cut, cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1].tobytes()


def _file_of(sample: Sample) -> bytes:
    """Return the file of the picture of `sample`; b"" if it has none of its own."""
    if not isinstance(sample, PackedSample):
        return read_limited(sample.picture, _MAX_BYTES)
    return sample.file.read(*sample.place) if sample.coding == "jpeg" else b""


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

    Args:
        samples: of any data sets.
        shares: of train, validation and test among each data set's pictures, in sum 1; None keeps
            the sets' own splits, and the most held-out one where they tear a picture apart.
        seed: of the draw.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    seen: dict[str, tuple[str, str]] = {}
    for i, sample in enumerate(samples):
        if isinstance(sample, PackedSample):
            key = (sample.origin[0], sample.name)
        else:  # one file may be part of two data sets
            path = os.path.realpath(sample.picture)
            key = seen.setdefault(path, (sample.origin[0], path))
        groups[key].append(i)
    splits = [sample.split for sample in samples]
    if shares is None:
        for people in groups.values():
            last = max((splits[i] for i in people), key=SPLITS.index)
            for i in people:
                splits[i] = last
        return splits
    for name in sorted({name for name, _ in groups}):
        keys = sorted(key for key in groups if key[0] == name)
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(keys))
        bounds = np.rint(np.cumsum(shares) * len(keys))
        for place, k in enumerate(order):
            split = SPLITS[min(int(np.searchsorted(bounds, place, "right")), 2)]
            for i in groups[keys[k]]:
                splits[i] = split
    return splits


def common_skeleton(skeletons: Sequence[Skeleton]) -> tuple[Skeleton, list[list[int]]]:
    """Return a skeleton with every joint of `skeletons`, and where it holds the joints of each.

    Joints are the same if `skeleton.convert` takes them so; no two of one skeleton ever are.
    """
    common, places = skeletons[0], [list(range(len(skeletons[0].joints)))]
    for skeleton in skeletons[1:]:
        found = joint_map(common, skeleton).tolist()
        taken: list[int] = []
        names = list(common.joints)
        for name, place in zip(skeleton.joints, found, strict=True):
            if place < 0 or place in taken:
                place = len(names)
                names.append(name)
            taken.append(place)
        links = [
            tuple(
                dict.fromkeys([*getattr(common, kind), *((taken[a], taken[b]) for a, b in extra)])
            )
            for kind, extra in (("limbs", skeleton.limbs), ("pairs", skeleton.pairs))
        ]
        name = f"{common.name}+{skeleton.name}"
        common = Skeleton(name, tuple(names), links[0], links[1])
        places.append(taken)
    return common, places


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Plan of a pack: everything that determines its content.

    Attributes:
        samples: N persons, those of one picture together.
        rows: (N,) their rows in pixels of the original pictures.
        store: what is kept of the pictures.
        about: what the pack will say of itself, a JSON value.
        shard: persons in a file, or a few more, as those of one picture stay together.
    """

    samples: tuple[Sample, ...]
    rows: NDArray[Any]
    store: Store
    about: dict[str, Any]
    shard: int

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal: an unfinished build of a plan with the same one can be kept."""
        said = [self.about, [str(sample.picture) for sample in self.samples]]
        text = json.dumps(said, sort_keys=True)
        return hashlib.sha256(text.encode() + self.rows.tobytes()).hexdigest()


def plan_of(
    samples: Sequence[Sample],
    splits: Sequence[str],
    store: Store,
    about: dict[str, Any],
    shard: int,
) -> Plan:
    """Return the plan of a pack of `samples`, in their order, people of one picture together.

    Raises:
        InputError: if there are no samples.
    """
    if not samples:
        raise InputError("an empty pack: no person of these data sets has a box and a joint")
    first: dict[Path, int] = {}
    for i, sample in enumerate(samples):
        first.setdefault(sample.picture, i)
    order = sorted(range(len(samples)), key=lambda i: first[samples[i].picture])
    samples, splits = [samples[i] for i in order], [splits[i] for i in order]
    skeletons = list(dict.fromkeys(sample.skeleton for sample in samples))
    common, places = common_skeleton(skeletons)
    texts = list(zip(*(sample.origin for sample in samples), strict=True))
    columns = [np.char.encode(text, "utf-8") for text in (texts[0], name_of(samples), texts[1])]
    widths = [column.itemsize for column in columns]
    rows = np.zeros(len(samples), row_type(len(common.joints), widths, "teacher" in about))
    for name, column in zip(TEXTS, columns, strict=True):
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
    return Plan(tuple(samples), rows, store, said, shard)
