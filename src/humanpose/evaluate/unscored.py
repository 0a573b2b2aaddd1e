"""What COCO's scorer knows beside the samples: crowds, people without joints, empty pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from humanpose.data.readers.coco import annotation_files, has_joints, image_split, load_json
from humanpose.errors import FormatError
from humanpose.types import F32


@dataclass(frozen=True, slots=True, eq=False)
class Unscored:
    """An annotated person who may be found or not.

    Attributes:
        box: (4,) picture pixels.
        area: square pixels.
        crowd: whether it stands for many people.
    """

    box: F32
    area: float
    crowd: bool


def read_unscored(path: Path, split: str) -> dict[str, list[Unscored]]:
    """The people of a COCO set that `read_coco` leaves out, by file name of the picture.

    Every picture of the `split` ("all" for any) is a key, also those without anybody.

    Raises:
        InputError, FormatError, LimitError: as `read_coco`.
    """
    found: dict[str, list[Unscored]] = {}
    for file in annotation_files(path):
        content = load_json(file)
        try:
            names = {
                image["id"]: PurePath(str(image["file_name"])).name
                for image in content["images"]
                if split in ("all", image_split(file, image))
            }
            found |= {name: [] for name in names.values()}
            for person in content["annotations"]:
                if person["image_id"] in names and (
                    person.get("iscrowd") or not has_joints(person)
                ):
                    box = np.asarray(person["bbox"], np.float32).reshape(4)
                    area = float(person.get("area", box[2] * box[3]))
                    crowd = bool(person.get("iscrowd"))
                    found[names[person["image_id"]]].append(Unscored(box, area, crowd))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{file}: not a COCO keypoints file ({error})") from error
    return found
