"""Picture -> boxes of people: the whole picture in one call, peaks of the centre map."""

from __future__ import annotations

import cv2
import numpy as np

from humanpose import heatmap
from humanpose.errors import InputError
from humanpose.geometry import crop_of_picture, suppress
from humanpose.infer.runtime import Runtime
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Crop

_MOST_PEAKS = 300
_SUPPRESS_ABOVE = 0.6  # IoU; two people in a tight embrace stay two


class Detector:
    """Boxes of the people in a picture.

    Args:
        runtime: the person network.
        spec: its description.
        threshold: least score; None = the spec's.
    """

    def __init__(
        self, runtime: Runtime, spec: ModelSpec, *, threshold: float | None = None
    ) -> None:
        if spec.task != "person":
            raise InputError(f"model {spec.name!r} finds joints, not people")
        if spec.decode != "boxes":
            raise InputError(f"model {spec.name!r} gives {spec.decode} of people, not their boxes")
        self.runtime = runtime
        self.spec = spec
        self.threshold = spec.threshold if threshold is None else threshold

    def detect(self, image: U8) -> tuple[F32, F32]:
        """Boxes (N, 4) in picture pixels and scores (N,) in [0, 1], best first.

        Args:
            image: (H, W, 3) RGB.
        """
        size = (image.shape[1], image.shape[0])
        crop = crop_of_picture(size, self.spec.input, centre=self.spec.crop_centre)
        out = self.runtime.run(crop.cut(image, self.spec.pad)[None])
        boxes, scores = read_centres(out, self.spec, self.threshold)
        boxes = _in_picture(boxes, crop, size)
        seen = (boxes[:, 2:] > 1).all(1)
        boxes, scores = boxes[seen], scores[seen]
        kept = suppress(boxes, scores, threshold=_SUPPRESS_ABOVE)
        return boxes[kept], scores[kept]


def read_centres(out: dict[str, F32], spec: ModelSpec, threshold: float) -> tuple[F32, F32]:
    """Boxes (N, 4) in input pixels and scores (N,) from the maps of one picture.

    A centre is a cell that equals the maximum of its 3x3 neighbourhood and reaches `threshold`.
    """
    centre = out["centre"][0, 0]
    peak = (cv2.dilate(centre, np.ones((3, 3), np.uint8)) == centre) & (centre >= threshold)
    rows, columns = np.nonzero(peak)
    scores = centre[rows, columns]
    best = np.argsort(-scores, kind="stable")[:_MOST_PEAKS]
    rows, columns, scores = rows[best], columns[best], scores[best]
    cells = np.stack([columns, rows], -1).astype(np.float32)
    middle = heatmap.to_pixels(cells, spec.stride, spec.grid)
    middle = middle + out["offset"][0][:, rows, columns].T
    sides = out["size"][0][:, rows, columns].T
    return np.concatenate([middle - sides / 2, sides], axis=1).astype(np.float32), scores


def _in_picture(boxes: F32, crop: Crop, size: tuple[int, int]) -> F32:
    """Boxes of the crop carried into the picture and cut at its edges."""
    low = crop.to_picture(boxes[:, :2])
    high = crop.to_picture(boxes[:, :2] + boxes[:, 2:])
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    return np.concatenate([low, high - low], axis=1).astype(np.float32)
