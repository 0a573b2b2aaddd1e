"""The peers' networks behind this project's own interfaces: same boxes, same crops, same decoding.

What is their own is said here: input size, colours, normalisation, where a cell lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import mark_people
import numpy as np
import openvino as ov

from humanpose.errors import FormatError, InputError
from humanpose.geometry import crop_of_box
from humanpose.images import load_image
from humanpose.infer.detector import Detector
from humanpose.infer.topdown import TopDown
from humanpose.skeleton import COCO17
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Person

LEAST_SCORE = 0.02  # AP needs what lies far below the threshold
# Float32 is the reference of every score; what a file has quantised stays so.
OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def compiled(path: Path) -> ov.CompiledModel:
    """The network in `path`.

    Raises:
        InputError: there is no such file.
        FormatError: OpenVINO cannot read it.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    try:
        return ov.Core().compile_model(path, "CPU", OPTIONS)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise FormatError(f"{path}: OpenVINO cannot read it ({reason})") from error


class MoveNet:
    """MoveNet SinglePose Lightning; `spec` and `estimate` are what `estimate_samples` needs.

    1 x 192 x 192 x 3 uint8 RGB -> 1 x 1 x 17 x 3: y, x as shares of the input, score.
    """

    SIDE = 192
    CONTEXT = 1.1  # docs/peers.md: how it was chosen

    def __init__(self, path: Path) -> None:
        self.spec = SimpleNamespace(skeleton=COCO17)
        self._model = compiled(path)

    def estimate(self, image: U8, boxes: F32) -> tuple[Person, ...]:
        """One Person per box (N, 4), from a square crop around it."""
        people = []
        for box in boxes:
            crop = crop_of_box(box, (self.SIDE, self.SIDE), context=self.CONTEXT)
            out = np.asarray(self._model(crop.cut(image, (0, 0, 0))[None])[0])[0, 0]
            joints = crop.to_picture(out[:, 1::-1] * self.SIDE - 0.5)
            people.append(Person(joints, np.clip(out[:, 2], 0, 1), box, 1.0))
        return tuple(people)


class _SimplePose:
    """A `Runtime`: 1 x 3 x 256 x 192 RGB, ImageNet's mean and deviation -> 1 x 17 x 64 x 48."""

    name, precision = "openvino", "float32"
    MEAN: F32 = np.array([123.675, 116.28, 103.53], np.float32)
    STD: F32 = np.array([58.395, 57.12, 57.375], np.float32)

    def __init__(self, path: Path) -> None:
        self._model = compiled(path)

    def run(self, crops: U8) -> dict[str, F32]:
        """Maps of crops (N, 256, 192, 3), one call each: the file takes one."""
        blobs = ((crops - self.MEAN) / self.STD).transpose(0, 3, 1, 2)
        return {"maps": np.concatenate([self._model(blob[None])[0] for blob in blobs])}


def simple_pose(path: Path) -> TopDown:
    """Ultralight-SimplePose (GluonCV): the box grown by 1.25, arg-max and a quarter cell."""
    spec = ModelSpec(
        "simplepose", "pose", "", {}, COCO17, (192, 256),
        pad=(0, 0, 0), grid="corner", decode="quarter",
    )  # fmt: skip
    return TopDown(_SimplePose(path), spec)


class _Yolox:
    """A `Runtime` that gives YOLOX's people as the boxes that `Detector` reads.

    Its own output is decoded, and duplicates are removed, by `recipes/mark_people.py`.
    """

    name, precision = "openvino", "float32"

    def __init__(self, path: Path) -> None:
        self._model = compiled(path)

    def run(self, crops: U8) -> dict[str, F32]:
        """Boxes of one whole picture (1, 416, 416, 3)."""
        return {"boxes": mark_people.find_people(self._model, crops[0], LEAST_SCORE)[None]}


def yolox(path: Path) -> Detector:
    """YOLOX-nano (its class "person") at the threshold 0.3 that its demo has."""
    side = mark_people.INPUT
    spec = ModelSpec(
        "yolox-nano", "person", "", {}, COCO17, (side, side),
        multiple_of=side, pad=(114, 114, 114), decode="boxes", threshold=0.3,
    )  # fmt: skip
    return Detector(_Yolox(path), spec)


def marks(path: Path, pictures: Sequence[tuple[str, Path]]) -> dict[str, list[list[float]]]:
    """What `recipes/mark_people.py` would write about `pictures`: (data set, file)."""
    model, found = compiled(path), {}
    for name, picture in pictures:
        boxes = mark_people.find_people(model, load_image(picture))
        found[f"{name}/{picture.name}"] = boxes.tolist()
    return found
