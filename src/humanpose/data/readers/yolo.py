"""YOLO-pose: `data.yaml`, pictures in `images/...`, a line a person in `labels/...`.

A line is class, cx, cy, width, height, then x, y[, v] a joint, all but class and v as shares of
the picture's sides. Pixels are share times side, as the converters from COCO reckon.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.data.readers.coco import named_skeleton
from humanpose.data.readers.common import AREA_SHARE, SPLIT_WORDS, picture_path, plausible
from humanpose.errors import FormatError, InputError, printable
from humanpose.files import read_limited
from humanpose.images import IMAGE_SUFFIXES, image_size
from humanpose.skeleton import COCO17, Skeleton
from humanpose.types import Sample

_MAX_BYTES = 1 << 24
_MOST_JOINTS = 1000


def read_yolo(path: Path) -> list[Sample]:
    """Return the samples of a data.yaml, or of the folder with one .yaml.

    Every picture of its `train`, `val` and `test` (folders, lists of them, or .txt lists) with
    its label file; a picture without one shows no people. Joint names are taken from `kpt_names`
    where it is there, pairs from `flip_idx`; 17 joints without names are COCO's.

    Raises InputError: a file or folder is not there, or lies outside the set's own folder;
    FormatError: the yaml or a label line is not of this form, naming file and line.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if len(files) != 1:
        raise InputError(f"{path}: {len(files)} .yaml files in it; name the set's file itself")
    file = files[0]
    settings = _settings(file)
    root = file.parent
    base = root / str(settings.get("path") or ".")
    # `path` is often that of another machine; then the set is where its yaml is.
    if not base.is_dir() or not base.resolve().is_relative_to(root.resolve()):
        base = root
    skeleton, values = _skeleton(settings, file)
    samples = []
    for key, split in SPLIT_WORDS.items():
        for picture in _pictures(settings.get(key), base, file):
            labels = _label_file(picture, base)
            if labels.is_file():
                samples += _people(picture, labels, skeleton, values, split)
    if not samples:
        raise InputError(f"{file}: no labelled person in its pictures")
    return samples


def _settings(file: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load(read_limited(file, _MAX_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{file}: not YAML ({reason})") from error
    if not isinstance(settings, dict) or "kpt_shape" not in settings:
        raise FormatError(f"{file}: not a YOLO-pose set (no kpt_shape)")
    return settings


def _skeleton(settings: dict[str, Any], file: Path) -> tuple[Skeleton, int]:
    """Return the set's skeleton and the values a joint has in a line: 2 or 3."""
    try:
        count, values = (int(n) for n in settings["kpt_shape"])
        if not 0 < count <= _MOST_JOINTS or values not in (2, 3):
            raise ValueError(f"kpt_shape is {settings['kpt_shape']}")
        flip = [int(i) for i in settings.get("flip_idx", range(count))]
        if sorted(flip) != list(range(count)) or any(flip[flip[i]] != i for i in flip):
            raise ValueError("flip_idx does not exchange joints in pairs")
        names = settings.get("kpt_names")
        if isinstance(names, (dict, list)) and names:
            first = next(iter(names.values())) if isinstance(names, dict) else names
            names = first[0] if isinstance(first[0], list) else first
        elif count == len(COCO17.joints) and (
            "flip_idx" not in settings or flip == COCO17.flip_index.tolist()
        ):
            return COCO17, values
        else:
            names = [f"joint_{i}" for i in range(count)]
        skeleton = named_skeleton("yolo", names, [])
        if len(skeleton.joints) != count:
            raise ValueError(f"{len(skeleton.joints)} kpt_names for {count} joints")
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise FormatError(f"{file}: not a YOLO-pose set ({error})") from error
    if skeleton == COCO17 or "flip_idx" not in settings:
        return skeleton, values
    # A pair's left joint is the one whose name says so, else the first.
    left = {i for i, _ in skeleton.pairs}
    pairs = tuple((j, i) if j in left else (i, j) for i, j in enumerate(flip) if i < j)
    return Skeleton(skeleton.name, skeleton.joints, skeleton.limbs, pairs), values


def _pictures(entry: Any, base: Path, file: Path) -> Iterable[Path]:
    """Yield the pictures that `train`, `val` or `test` names."""
    for name in entry if isinstance(entry, list) else [entry] if entry else []:
        # Some exports write "../train/images" and mean the folder beside the yaml.
        place = picture_path(base, str(name).removeprefix("./").removeprefix("../"), file)
        if place.is_dir():
            yield from sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        elif place.suffix == ".txt":
            text = read_limited(place, _MAX_BYTES).decode("utf-8", "replace")
            for line in filter(None, map(str.strip, text.splitlines())):
                yield picture_path(base, line.removeprefix("./"), place)
        else:
            raise InputError(f"{file}: {place} is not there; the pictures belong beside the yaml")


def _label_file(picture: Path, base: Path) -> Path:
    """Return `labels/a/b.txt` of `images/a/b.jpg`: the last folder called images is exchanged."""
    folders = f"/{picture.parent.relative_to(base).as_posix()}/"
    folder = "/labels/".join(folders.rsplit("/images/", 1))
    return base / folder[1:] / f"{picture.stem}.txt"


def _people(
    picture: Path, labels: Path, skeleton: Skeleton, values: int, split: str
) -> list[Sample]:
    content = read_limited(labels, _MAX_BYTES) if labels.stat().st_size else b""
    lines = [line for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        return []
    size = np.array(image_size(picture), np.float64)
    count = 5 + len(skeleton.joints) * values
    people = []
    for number, line in enumerate(lines, start=1):
        try:
            row = np.array(line.split(), np.float64)
            if len(row) != count or not np.isfinite(row).all():
                raise ValueError(f"{len(row)} numbers, not {count}")
        except ValueError as error:
            where = f"{labels}, line {number}"
            raise FormatError(f"{where}: not a person ({printable(str(error))})") from error
        table = row[5:].reshape(-1, values)
        # Without v, a joint that is not annotated stands at 0, 0 or below.
        flags = table[:, 2] if values == 3 else np.where((table > 0).any(1), 2, 0)
        joints = np.where((flags > 0)[:, None], table[:, :2] * size, np.nan)
        middle, sides = row[1:3] * size, row[3:5] * size
        box = np.concatenate([middle - sides / 2, sides])
        visible = flags.clip(0, 2).astype(np.uint8)
        if not visible.any():
            continue
        people.append(
            Sample(
                picture=picture,
                joints=plausible(joints, labels, "a joint").astype(np.float32),
                visible=visible,
                box=plausible(box, labels, "a box").astype(np.float32),
                area=AREA_SHARE * float(box[2] * box[3]),
                split=split,
                origin=("yolo", f"{labels.stem}/{number}"),
                skeleton=skeleton,
            )
        )
    return people
