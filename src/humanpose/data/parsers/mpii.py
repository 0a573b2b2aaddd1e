"""The files that MPII's annotations come in, each parsed to the same table of plain arrays.

Columns of the table (N persons): image, person (N,) 1-based indices into RELEASE.annolist and
its annorect; name (N,) of the picture; split (N,); head (N,) diagonal of the head box; scale (N,)
person's height / 200 px; centre (N, 2); joints (N, 16, 2); visible (N, 16) 0 not annotated,
1 hidden, 2 visible. Coordinates are 1-based as in the files, NaN = missing.

The functions run in the child process of `sandbox.parse`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from humanpose.data.parsers.tables import (
    Array,
    column,
    field,
    hdf5_array,
    number,
    numbers,
    records,
    stacked,
    text,
    variables,
)
from humanpose.sandbox import Arrays

JOINTS = 16
# The release does not say which persons are in the validation part: these files list them.
_VALIDATION_LISTS = ("detections.mat", "annotations_valid.mat", "Tompson_valid/detections.mat")
_NAMES = ("valid.h5", "annot/valid.h5")
# Tables of eval-mpii-pose: name -> shape of a person's part.
_SHAPES: dict[str, tuple[int, ...]] = {
    "index": (), "person": (), "scale": (), "normalize": (),
    "center": (2,), "part": (JOINTS, 2), "visible": (JOINTS,),
}  # fmt: skip
_INDICES = ("RELEASE_img_index", "RELEASE_person_index")


def parse_mat(path: str) -> Arrays:
    """The release (`RELEASE`), or the validation part of the CPM release (`detections.mat`)."""
    content = variables(path, ["RELEASE", "annolist", *_INDICES])
    if "RELEASE" in content:
        return _release(records(content["RELEASE"]), Path(path))
    if "annolist" not in content:
        raise ValueError("neither RELEASE nor annolist in it")
    image, person = (content[name].ravel().astype(np.int64).tolist() for name in _INDICES)
    entries = records(content["annolist"])
    if not len(image) == len(person) == len(entries):
        raise ValueError(f"{len(image)} indices for {len(entries)} persons")
    known = _picture_names(Path(path).parent)
    rows = []
    for i, j, rect in zip(image, person, column(entries, "annorect"), strict=True):
        name = known.get((i, j), f"release-{i:05d}.jpg")
        row = {"image": i, "person": j, "name": name, "split": "validation"}
        rows.append(row | _rectangle(records(rect)[:1]))
    return stacked(rows)


def _release(release: Array, path: Path) -> Arrays:
    """Return the persons of the release: with joints, or of its test part with centre and scale.

    Test pictures (img_train 0) have no joints. Persons in a validation list beside the file
    are the validation part.
    """
    entries = records(field(release, "annolist"))
    training = field(release, "img_train").ravel()
    if len(training) != len(entries):
        raise ValueError(f"img_train has {len(training)} entries for {len(entries)} pictures")
    held_out = _validation_list(path.parent)
    rows = []
    pictures = column(entries, "image")
    for i, rectangles in enumerate(column(entries, "annorect")):
        train = number(training[i : i + 1], 0) == 1
        for j, rectangle in enumerate(records(rectangles)[:, None] if rectangles.size else ()):
            row = _rectangle(rectangle)
            placed = np.isfinite([row["scale"], *row["centre"]]).all()
            if not row["visible"].any() and (train or not placed):
                continue
            name = text(field(records(pictures[i]), "name"))
            split = "train" if train else "test"
            split = "validation" if (i + 1, j + 1) in held_out else split
            rows.append(row | {"image": i + 1, "person": j + 1, "name": name, "split": split})
    return stacked(rows)


def _rectangle(rectangle: Array) -> dict[str, Any]:
    """Return a row of the table from one annorect record (1,) or none (0,)."""
    joints = np.full((JOINTS, 2), np.nan)
    visible = np.zeros(JOINTS, np.uint8)
    points = records(field(records(field(rectangle, "annopoints")), "point"))
    ids = numbers(points, "id")
    places = np.stack([numbers(points, "x"), numbers(points, "y")], axis=1)
    for i, place, seen in zip(ids, places, column(points, "is_visible"), strict=True):
        if i in range(JOINTS) and not np.isnan(place).any():
            joints[int(i)] = place
            # Neck and head top have no flag; they count as visible, as in CPM's own tables.
            visible[int(i)] = 1 if number(seen, 1) == 0 else 2
    x1, y1, x2, y2 = (number(field(rectangle, side)) for side in ("x1", "y1", "x2", "y2"))
    position = records(field(rectangle, "objpos"))
    return {
        "joints": joints,
        "visible": visible,
        "head": np.hypot(x2 - x1, y2 - y1),
        "scale": number(field(rectangle, "scale")),
        "centre": np.array([number(field(position, axis)) for axis in "xy"]),
    }


def _validation_list(folder: Path) -> set[tuple[int, int]]:
    """Return (image, person) of the validation part, by the first list found in `folder`."""
    lists = [folder / name for name in _VALIDATION_LISTS if (folder / name).is_file()]
    if not lists:
        return set(_picture_names(folder))
    found = variables(str(lists[0]), [*_INDICES])
    return set(zip(*(found[name].ravel().tolist() for name in _INDICES), strict=True))


def _picture_names(folder: Path) -> dict[tuple[int, int], str]:
    """Return the picture of every (image, person) in `folder`'s `valid.h5`; {} without one."""
    for file in (folder / name for name in _NAMES):
        if file.is_file():
            table = parse_h5(str(file))
            keys = zip(table["image"].tolist(), table["person"].tolist(), strict=True)
            return dict(zip(keys, table["name"].tolist(), strict=True))
    return {}


def parse_h5(path: str) -> Arrays:
    """Return the table of `annot/valid.h5` (or train, test) of eval-mpii-pose.

    Its centre was moved down by 15 px and its scale multiplied by 1.25 when it was written; both
    are undone here. Head top and neck stay truncated to whole pixels, as they are in it.
    """
    import h5py

    with h5py.File(path, "r") as file:
        names = hdf5_array(file, "imgname", "S")
        tables = {name: hdf5_array(file, name).astype(np.float64) for name in _SHAPES}
    if any(tables[name].shape != (len(names), *shape) for name, shape in _SHAPES.items()):
        raise ValueError("its tables do not fit each other")
    image, person, scale, head, centre, part, flags = tables.values()
    scale = scale / 1.25
    annotated = (part != 0).any(-1)
    return {
        "image": image.astype(np.int64) + 1,
        "person": person.astype(np.int64) + 1,
        "name": np.char.decode(names, "ascii"),
        "head": head / 0.6,
        "scale": scale,
        "centre": centre - np.stack([0 * scale, 15 * scale], axis=1),
        "joints": np.where(annotated[..., None], part, np.nan),
        "visible": np.where(annotated, np.where(flags == 0, 1, 2), 0).astype(np.uint8),
    }


def parse_truth(path: str) -> Arrays:
    """`gt_valid.mat` of HRNet's layout: joints (N, 16, 2), NaN = missing; head (N,) diagonals."""
    names = ["pos_gt_src", "jnt_missing", "headboxes_src"]
    found = variables(path, names)
    places, missing, boxes = (found[name] for name in names)
    n = places.shape[-1]
    if (places.shape, missing.shape, boxes.shape) != ((JOINTS, 2, n), (JOINTS, n), (2, 2, n)):
        raise ValueError("its tables do not fit each other")
    joints = np.moveaxis(places, 2, 0).astype(np.float64)
    return {
        "joints": np.where((missing.T == 0)[..., None], joints, np.nan),
        "head": np.linalg.norm(boxes[1].astype(np.float64) - boxes[0], axis=0),
    }
