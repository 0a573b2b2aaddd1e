"""Picture -> boxes of people: the whole picture in one call.

Our own net gives a box and a score at each cell. CPM's person net gives one map
and no size: its boxes are squares as high as the picture, as the release has it.
"""

from __future__ import annotations

import cv2
import numpy as np

from humanpose.errors import InputError
from humanpose.geometry import Crop, crop_of_height, crop_of_picture, nms
from humanpose.infer.runtime import Runtime
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8

_MOST_PEAKS = 300
_MOST_GUESSES = 1000  # several for each person
_LEAST_SHARE = 0.95  # of a picture's size; what it costs in recall: docs/training-log.md
_SUPPRESS_ABOVE = 0.6  # IoU; two people in a tight embrace stay two


class Detector:
    """Boxes of the people in a picture.

    Args:
        runtime: of the detector.
        spec: its description; `input` is the size that `runtime` was loaded for.
        threshold: least score; None = the spec's.
    """

    def __init__(
        self, runtime: Runtime, spec: ModelSpec, *, threshold: float | None = None
    ) -> None:
        if spec.task != "person":
            raise InputError(f"model {spec.name!r} finds joints, not people")
        self.runtime = runtime
        self.spec = spec
        self.threshold = spec.threshold if threshold is None else threshold

    def detect(self, image: U8, threshold: float | None = None) -> tuple[F32, F32]:
        """Find boxes (N, 4) in picture pixels and their scores (N,) in [0, 1], best first.

        Args:
            image: (H, W, 3) RGB.
            threshold: least score, in place of the detector's own.
        """
        threshold = self.threshold if threshold is None else threshold
        find = self._peaks if self.spec.decode == "peaks" else self._boxes
        return find(image, threshold)

    def _boxes(self, image: U8, threshold: float) -> tuple[F32, F32]:
        """Return boxes as our own net gives them, with their sizes."""
        size = (image.shape[1], image.shape[0])
        least = fitting(size, self.spec.input, self.spec.multiple_of)
        crop = crop_of_picture(size, least, centre=self.spec.crop_centre)
        out = self.runtime.run(crop.cut(image, self.spec.pad)[None])
        boxes, scores = read_boxes(out["boxes"][0], threshold)
        boxes = _in_picture(boxes, crop, size)
        seen = (boxes[:, 2:] > 1).all(1)
        boxes, scores = boxes[seen], scores[seen]
        kept = nms(boxes, scores, threshold=_SUPPRESS_ABOVE)
        return boxes[kept], scores[kept]

    def _peaks(self, image: U8, threshold: float) -> tuple[F32, F32]:
        """Return squares around the peaks of CPM's person map, and the map's values there."""
        spec = self.spec
        height, width = image.shape[:2]
        crop = crop_of_height((width, height), spec.input[1], spec.multiple_of)
        person = self.runtime.run(crop.cut(image, spec.pad)[None])["maps"][0, 0]
        enlarged = np.asarray(cv2.resize(person, crop.size, interpolation=cv2.INTER_CUBIC))
        middles, scores = read_peaks(enlarged, threshold)
        middles = crop.to_picture(middles)
        inside = ((middles >= -0.5) & (middles < (width - 0.5, height - 0.5))).all(1)
        middles, scores = middles[inside], np.clip(scores[inside], 0, 1)
        boxes = np.concatenate([middles - height / 2, np.full_like(middles, height)], axis=1)
        return boxes.astype(np.float32), scores


def fitting(picture: tuple[int, int], largest: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return an input (width, height) for a whole `picture`, as large as in `largest`, less padded.

    In steps of `multiple`: a runtime prepares itself for each shape that comes. The picture gets up
    to a twentieth smaller where that saves padding, of a small input a sixth of its time.
    """
    scale = min(largest[0] / picture[0], largest[1] / picture[1])
    width, height = (
        _side(round(side * scale), most, multiple)
        for side, most in zip(picture, largest, strict=True)
    )
    return width, height


def _side(need: int, most: int, multiple: int) -> int:
    """Return `most` less some steps of `multiple`: a side for `need` pixels, or a little fewer."""
    padded = max(multiple, most - max(0, most - need) // multiple * multiple)
    fewer = padded - multiple
    enough = fewer >= max(multiple, _LEAST_SHARE * need)
    return fewer if padded > need and enough else padded


def read_peaks(person: F32, threshold: float) -> tuple[F32, F32]:
    """Return peaks (N, 2), x then y, of a person map (h, w) and their values (N,), best first.

    A peak equals the maximum of its 3x3 neighbourhood and is above `threshold`; cells of equal
    value that touch are one peak, at their middle.
    """
    peak = (cv2.dilate(person, np.ones((3, 3), np.uint8)) == person) & (person > threshold)
    count, label, _, middles = cv2.connectedComponentsWithStats(peak.astype(np.uint8))
    scores = np.zeros(count, np.float32)
    scores[label[peak]] = person[peak]
    best = 1 + np.argsort(-scores[1:], kind="stable")[:_MOST_PEAKS]  # 0 is what is no peak
    return middles[best].astype(np.float32), scores[best]


def read_boxes(found: F32, threshold: float) -> tuple[F32, F32]:
    """Return boxes (N, 4) and scores (N,), best first, of guesses (A, 5) that reach `threshold`."""
    found = found[found[:, 4] >= threshold]
    best = np.argsort(-found[:, 4], kind="stable")[:_MOST_GUESSES]
    return found[best, :4], found[best, 4]


def _in_picture(boxes: F32, crop: Crop, size: tuple[int, int]) -> F32:
    """Carry boxes of the crop into the picture and cut them at its edges."""
    corners = boxes.reshape(-1, 2, 2).cumsum(1)  # x, y, then with width and height added
    corners = np.minimum(np.maximum(crop.to_picture(corners), 0), np.array(size, np.float32))
    corners[:, 1] -= corners[:, 0]
    return corners.reshape(-1, 4)
