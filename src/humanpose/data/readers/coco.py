"""COCO keypoints: `person_keypoints*.json` (or `annotations/`) and the pictures beside it.

Also one's own files of that form: other keypoint names in `categories` make another skeleton.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.data.readers.common import AREA_SHARE, joint_box, picture_path, plausible, split_of
from humanpose.errors import FormatError, InputError
from humanpose.files import read_limited
from humanpose.skeleton import COCO17, Skeleton
from humanpose.types import Sample

_MAX_BYTES = 1 << 30
# This project's split of a single file: by image id, so that anyone can draw it again.
_VALIDATION_DIVISOR = 11


def read_coco(path: Path) -> list[Sample]:
    """Return the samples of a COCO keypoints file, or of the folder that holds such files.

    Crowds and persons without keypoints are left out. The split is what the file's name says
    (train, val or test in it, as in `person_keypoints_val2017.json`); in a file of another name,
    images whose id is divisible by 11 are the validation part.

    `path` is a keypoints file, or a folder with `person_keypoints*.json` in itself or in
    `annotations/`: one, or several whose names say their split. Pictures lie in `images/`, in
    `train2017/`, `val2017/` (as the file is called; also inside `images/`), or beside the file.

    Raises InputError: there is no such file, or several that do not say their split; FormatError:
    it is not COCO keypoints, naming the annotation at fault.
    """
    return coco_samples(path, load_annotations(path))


def load_annotations(path: Path) -> dict[Path, Any]:
    """Return the parsed JSON of each keypoints file at `path`; errors as of `read_coco`."""
    files = [path]
    if path.is_dir():
        folders = (path, path / "annotations")
        files = sorted(f for folder in folders for f in folder.glob("person_keypoints*.json"))
    if not files:
        raise InputError(f"{path}: no person_keypoints*.json in it; name the file itself")
    if len(files) > 1 and not all(map(split_of, files)):
        raise InputError(f"{path}: several person_keypoints*.json, not of train or val; name one")
    return {file: load_json(file) for file in files}


def coco_samples(path: Path, contents: dict[Path, Any]) -> list[Sample]:
    """Return the samples of `read_coco` from the contents of `load_annotations`."""
    samples = [each for file, content in contents.items() for each in _samples_of(file, content)]
    if len({sample.skeleton for sample in samples}) > 1:
        raise FormatError(f"{path}: its files have different keypoints; name one of them")
    return samples


def image_split(file: Path, image: dict[str, Any]) -> str:
    """Return the split of one of the `file`'s images."""
    held_out = isinstance(image["id"], int) and image["id"] % _VALIDATION_DIVISOR == 0
    return split_of(file) or ("validation" if held_out else "train")


def _picture_folder(file: Path) -> Path:
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    part = file.stem.rpartition("_")[2]  # train2017 of person_keypoints_train2017
    folders = (base / "images" / part, base / part, base / "images")
    return next((folder for folder in folders if folder.is_dir()), base)


def _samples_of(file: Path, content: Any) -> list[Sample]:
    try:
        images = {image["id"]: image for image in content["images"]}
        annotations = content["annotations"]
        if not isinstance(annotations, list):
            raise TypeError("list of annotations")
    except (KeyError, TypeError) as error:
        raise FormatError(f"{file}: not a COCO keypoints file (no {error})") from error
    skeletons = _skeletons(content.get("categories", []), file)
    folder = _picture_folder(file)
    samples = []
    for annotation in annotations:
        try:
            skeleton = skeletons.get(annotation.get("category_id", 1)) if skeletons else COCO17
            if annotation.get("iscrowd") or skeleton is None or not has_joints(annotation):
                continue
            image = images[annotation["image_id"]]
            picture = picture_path(folder, str(image["file_name"]), file)
            samples.append(_sample(annotation, skeleton, picture, image_split(file, image), file))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            name = annotation.get("id", "?") if isinstance(annotation, dict) else "?"
            raise FormatError(
                f"{file}: annotation {name} is not COCO keypoints ({error})"
            ) from error
    return samples


def load_json(file: Path) -> Any:
    """Content of a JSON file of bounded size; InputError, LimitError, FormatError name it."""
    try:
        return json.loads(read_limited(file, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file}: not JSON ({error})") from error


def _skeletons(categories: Any, file: Path) -> dict[Any, Skeleton]:
    """Return the skeleton of every category that has keypoints, by the category's id."""
    try:
        found = {
            category["id"]: named_skeleton(
                str(category.get("name", "person")),
                category["keypoints"],
                [(a - 1, b - 1) for a, b in category.get("skeleton", [])],
            )
            for category in categories
            if category.get("keypoints")
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{file}: a category is not one of keypoints ({error})") from error
    if len(set(found.values())) > 1:
        raise FormatError(f"{file}: its categories have different keypoints; keep one of them")
    return found


def named_skeleton(name: str, joints: list[str], limbs: list[tuple[int, int]]) -> Skeleton:
    """Return the skeleton of joints with these names: COCO17 if they are COCO's.

    Pairs are the names that differ in left and right only ("left_hip", "right_hip", "Left Hip").
    Raises ValueError if a name comes twice or a limb names a joint that is not there.
    """
    joints = [str(joint) for joint in joints]
    if tuple(joints) == COCO17.joints:
        return COCO17
    if len(set(joints)) != len(joints):
        raise ValueError("a keypoint's name comes twice")
    others = map(_other, joints)
    pairs = [(i, joints.index(other)) for i, other in enumerate(others) if other in joints]
    value = {"name": f"{name}{len(joints)}", "joints": joints, "limbs": limbs, "pairs": pairs}
    return Skeleton.from_dict(value)


def _other(joint: str) -> str:
    """Return the name of the right joint where `joint` is a left one, else ""."""
    for left, right in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
        if left in joint:
            return joint.replace(left, right)
    for left, right in (("l_", "r_"), ("L_", "R_")):
        if joint.startswith(left):
            return right + joint[2:]
    return ""


def has_joints(annotation: dict[str, Any]) -> bool:
    """Return whether any joint of the person is annotated."""
    flags = annotation.get("keypoints", [])[2::3]
    return bool(annotation.get("num_keypoints", any(flag > 0 for flag in flags)))


def _sample(
    annotation: dict[str, Any], skeleton: Skeleton, picture: Path, split: str, file: Path
) -> Sample:
    table = np.asarray(annotation["keypoints"], np.float64).reshape(len(skeleton.joints), 3)
    annotated = table[:, 2] > 0
    given = np.asarray(annotation.get("bbox", np.zeros(4)), np.float64).reshape(4)
    if not np.isfinite([*table.flat, *given]).all():
        raise ValueError("a coordinate is not a number")
    places = plausible(table[:, :2], file, "a keypoint")
    # COCO's keypoints are whole pixels, counted from 0 at their corner (no half-pixel shift).
    joints = np.where(annotated[:, None], places, np.nan).astype(np.float32)
    box, area = joint_box(joints)
    if "bbox" in annotation:
        box = plausible(given, file, "a box").astype(np.float32)
        area = AREA_SHARE * float(given[2] * given[3])
    area = float(annotation.get("area", area))
    if not math.isfinite(area):
        raise ValueError("its area is not a number")
    return Sample(
        picture=picture,
        joints=joints,
        visible=table[:, 2].clip(0, 2).astype(np.uint8),
        box=box,
        area=area,
        split=split,
        origin=("coco", str(annotation["id"])),
        skeleton=skeleton,
    )
