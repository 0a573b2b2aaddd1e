"""Boxes -> joints: crop, one batched network call, decode, back into the picture."""

from __future__ import annotations

import numpy as np

from humanpose import heatmap
from humanpose.errors import InputError
from humanpose.geometry import crop_of_box, mirrored
from humanpose.infer.runtime import Runtime
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Crop, Person

# A crowd is cut into calls of at most this many crops, so that memory stays bounded.
_LARGEST_BATCH = 16


class Estimator:
    """Joints of the people in given boxes.

    Args:
        runtime: the pose network.
        spec: its description.
        flip: average the maps with those of the mirrored crop (twice the time).
    """

    def __init__(self, runtime: Runtime, spec: ModelSpec, *, flip: bool = False) -> None:
        if spec.task == "person":
            raise InputError(f"model {spec.name!r} finds people, not joints")
        self.runtime = runtime
        self.spec = spec
        self.flip = flip

    def estimate(self, image: U8, boxes: F32, box_scores: F32 | None = None) -> tuple[Person, ...]:
        """One Person per box, in the order of `boxes`.

        Args:
            image: (H, W, 3) RGB.
            boxes: (N, 4) tight boxes x, y, width, height, picture pixels; N may be 0.
            box_scores: (N,) of the detector; 1 where boxes were given by hand.

        Raises:
            InputError: if a box is not four finite numbers with positive sides.
        """
        boxes = _checked(boxes)
        sure = np.ones(len(boxes), np.float32) if box_scores is None else box_scores
        people: list[Person] = []
        for start in range(0, len(boxes), _LARGEST_BATCH):
            part = slice(start, start + _LARGEST_BATCH)
            people += self._batch(image, boxes[part], sure[part])
        return tuple(people)

    def _batch(self, image: U8, boxes: F32, sure: F32) -> list[Person]:
        spec = self.spec
        crops = [
            crop_of_box(box, spec.input, context=spec.context, centre=spec.crop_centre)
            for box in boxes
        ]
        maps = self._maps(image, crops)
        joints, scores = read_maps(maps, crops, spec)
        return [
            Person(joints[i], scores[i], boxes[i], float(sure[i]), skeleton=spec.skeleton)
            for i in range(len(boxes))
        ]

    def _maps(self, image: U8, crops: list[Crop]) -> F32:
        """Maps (N, J, h, w) of the crops, background last if the net has it."""
        spec = self.spec
        both = list(crops)
        if self.flip:
            axis = heatmap.mirror_axis(spec.input[0] // spec.stride, spec.stride, spec.grid)
            both += [mirrored(crop, axis) for crop in crops]
        maps = self.runtime.run(np.stack([crop.cut(image, spec.pad) for crop in both]))["maps"]
        if not self.flip:
            return maps
        index = spec.skeleton.flip_index
        if spec.background:
            index = np.append(index, len(index))
        back = maps[len(crops) :, index, :, ::-1]
        return np.asarray((maps[: len(crops)] + back) / 2, np.float32)


def read_maps(maps: F32, crops: list[Crop], spec: ModelSpec) -> tuple[F32, F32]:
    """Joints (N, J, 2) in picture pixels and scores (N, J) in [0, 1] from maps (N, J, h, w)."""
    if spec.background:
        maps = maps[:, :-1]
    cells, scores = heatmap.decode(maps, spec.decode)
    in_crop = heatmap.to_pixels(cells, spec.stride, spec.grid)
    joints = np.stack(
        [crop.to_picture(points) for crop, points in zip(crops, in_crop, strict=True)]
    )
    return joints, np.clip(scores, 0, 1)


def _checked(boxes: F32) -> F32:
    boxes = np.asarray(boxes, np.float32)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"boxes must be (N, 4) x, y, width, height, not {boxes.shape}")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= 0).any():
        raise InputError("boxes must be finite, with positive width and height")
    return boxes
