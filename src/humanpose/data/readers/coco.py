"""COCO keypoints: `person_keypoints*.json` (or `annotations/`) and the pictures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.errors import FormatError, InputError, LimitError
from humanpose.skeleton import COCO17
from humanpose.types import Sample

_MAX_BYTES = 1 << 30
# This project's split: by image id, so that anyone can draw it again.
_VALIDATION_DIVISOR = 11


def read_coco(path: Path) -> list[Sample]:
    """Samples of a COCO keypoints file, or of the folder that holds it.

    Crowds and persons without keypoints are left out. Images whose id is divisible by 11 are
    the validation part here.

    Args:
        path: `person_keypoints*.json`, or a folder with exactly one of it (in itself or in
            `annotations/`); pictures in `images/` or beside the file.

    Raises:
        InputError: if there is no such file, or several.
        FormatError: if it is not COCO keypoints, naming the annotation at fault.
    """
    file = _annotation_file(path)
    content = _load_json(file)
    try:
        images = {image["id"]: image for image in content["images"]}
        annotations = content["annotations"]
    except (KeyError, TypeError) as error:
        raise FormatError(f"{file}: not a COCO keypoints file (no {error})") from error
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    folder = base / "images" if (base / "images").is_dir() else base
    samples = []
    for annotation in annotations:
        try:
            if annotation.get("iscrowd") or not annotation.get("num_keypoints"):
                continue
            samples.append(_sample(annotation, images[annotation["image_id"]], folder))
        except (KeyError, TypeError, ValueError) as error:
            name = annotation.get("id", "?") if isinstance(annotation, dict) else "?"
            raise FormatError(
                f"{file}: annotation {name} is not COCO keypoints ({error})"
            ) from error
    return samples


def _annotation_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(
        file
        for folder in (path, path / "annotations")
        for file in folder.glob("person_keypoints*.json")
    )
    if len(found) != 1:
        what = "no" if not found else "several"
        raise InputError(f"{path}: {what} person_keypoints*.json in it; name the file itself")
    return found[0]


def _load_json(file: Path) -> Any:
    if file.stat().st_size > _MAX_BYTES:
        raise LimitError(f"{file}: larger than {_MAX_BYTES >> 20} MB")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file}: not JSON ({error})") from error


def _sample(annotation: dict[str, Any], image: dict[str, Any], folder: Path) -> Sample:
    table = np.asarray(annotation["keypoints"], np.float32).reshape(17, 3)
    annotated = table[:, 2] > 0
    box = np.asarray(annotation["bbox"], np.float32).reshape(4)
    if not np.isfinite(box).all() or not np.isfinite(table).all():
        raise ValueError("a coordinate is not a number")
    # COCO's keypoints are whole pixels, counted from 0 at their corner (no half-pixel shift).
    joints = np.where(annotated[:, None], table[:, :2], np.nan).astype(np.float32)
    validation = image["id"] % _VALIDATION_DIVISOR == 0
    return Sample(
        picture=folder / str(image["file_name"]),
        joints=joints,
        visible=table[:, 2].astype(np.uint8),
        box=box,
        area=float(annotation["area"]),
        split="validation" if validation else "train",
        origin=("coco", str(annotation["id"])),
        skeleton=COCO17,
    )
