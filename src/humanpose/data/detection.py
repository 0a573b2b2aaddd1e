"""Training data of the person detector: whole pictures, boxes, and places to ignore."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import cv2
import numpy as np

from humanpose.data.augment import Augmentation, generator, random_crop, random_pixels
from humanpose.data.pose import Batchable
from humanpose.geometry import Crop, box_of_joints, crop_of_picture, iou, overlap
from humanpose.images import load_image
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Sample

MOST = 64  # people of one input, and places that are ignored
_NO_BOXES = np.zeros((0, 4), np.float32)
_LEAST_SIDE = 6.0  # input pixels; smaller people are ignored
_LEAST_SHARE = 0.35  # of a box that must remain in the crop


@dataclass(frozen=True, slots=True, eq=False)
class PersonPicture:
    """A picture with the people annotated in it."""

    picture: Path
    boxes: F32  # (N, 4) annotated people
    ignore: F32  # (M, 4) places that may hold people who are not annotated


def pictures_of(
    samples: Sequence[Sample], marks: dict[str, list[list[float]]] | None = None
) -> list[PersonPicture]:
    """Group annotated persons by picture.

    `marks` are boxes [x, y, width, height, ...] of another detector by "<data set>/<file name>";
    those that are not an annotated person, nor inside one, become places to ignore.
    """
    groups: dict[Path, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.picture].append(sample)
    pictures = []
    for path, people in groups.items():
        boxes = np.stack([person.box for person in people])
        marked = (marks or {}).get(f"{people[0].origin[0]}/{path.name}", [])
        found = np.array([box[:4] for box in marked], np.float32).reshape(-1, 4)
        share = overlap(found, boxes) / np.maximum(found[:, 2] * found[:, 3], 1e-6)[:, None]
        ignore = found[(iou(found, boxes).max(1) < 0.4) & (share.max(1) < 0.7)]
        pictures.append(PersonPicture(path, boxes, ignore))
    return pictures


@dataclass(frozen=True, eq=False)
class PersonDataset:
    """Whole pictures, scaled into the input and changed at random; indexed by (epoch, index)."""

    pictures: Sequence[PersonPicture]
    spec: ModelSpec  # of the detector
    rules: Augmentation
    _: KW_ONLY
    seed: int = 0  # of the run
    mosaic: float = 0.0  # chance that four pictures share one input: small people in context
    # Chance of an input without people: trained without, a network finds them in clouds.
    empty: float = 0.0

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> Batchable:
        """Return image (H, W, 3) uint8, and (MOST, 4) middle x, y, width, height of "people" and of
        places to "ignore"; unused rows are zero.
        """
        epoch, index = key
        rng = generator(self.seed, epoch, index)
        chance = rng.random()
        if chance < self.mosaic:
            image, boxes, ignore = self._mosaic(index, rng)
        elif chance > 1 - self.empty:
            image, boxes, ignore = clouds(self.spec.input, rng), _NO_BOXES, _NO_BOXES
        else:
            image, boxes, ignore = self._view(self.pictures[index], self.spec.input, rng)
        image = random_pixels(image, self.rules, rng)
        return {"image": image, "people": _filled(boxes), "ignore": _filled(ignore)}

    def _view(
        self, picture: PersonPicture, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[U8, F32, F32]:
        image = load_image(picture.picture)
        whole = (image.shape[1], image.shape[0])
        crop, _ = random_crop(crop_of_picture(whole, size), self.rules, rng)
        boxes, lost = boxes_in_crop(picture.boxes, crop)
        ignore, _ = boxes_in_crop(picture.ignore, crop, least_share=0.0)
        return crop.cut(image, self.spec.pad), boxes, np.concatenate([ignore, lost])

    def _mosaic(self, index: int, rng: np.random.Generator) -> tuple[U8, F32, F32]:
        width, height = self.spec.input
        others = rng.integers(0, len(self.pictures), 3)
        # The seam lies on a multiple of 32 so that every tile is a valid input size.
        x, y = (int(32 * round(rng.uniform(0.35, 0.65) * side / 32)) for side in (width, height))
        canvas = np.empty((height, width, 3), np.uint8)
        parts: list[tuple[F32, F32]] = []
        tiles = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
        for number, (left, top, right, bottom) in zip((index, *others), tiles, strict=True):
            tile, *found = self._view(self.pictures[number], (right - left, bottom - top), rng)
            canvas[top:bottom, left:right] = tile
            move = np.array([left, top, 0, 0], np.float32)
            parts.append((found[0] + move, found[1] + move))
        boxes, ignore = (np.concatenate(column) for column in zip(*parts, strict=True))
        return canvas, boxes, ignore


def clouds(size: tuple[int, int], rng: np.random.Generator) -> U8:
    """Return noise of random coarseness of `size` (width, height)."""
    coarse = int(rng.integers(2, 33))
    small = rng.integers(0, 256, (coarse, coarse * 4 // 3, 3), np.uint8)
    how = cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_NEAREST
    wide = np.asarray(cv2.resize(small, size, interpolation=how), np.float32)
    middle = rng.uniform(0, 255, 3)
    return np.asarray(middle + (wide - middle) * rng.uniform(0, 1), np.uint8)


def boxes_in_crop(boxes: F32, crop: Crop, *, least_share: float = _LEAST_SHARE) -> tuple[F32, F32]:
    """Return boxes (N, 4) of the picture cut to the crop: (kept, too little of them left).

    A rotated box becomes the box around it, shrunk to the area it had.
    """
    if not len(boxes):
        return boxes, boxes
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    corners = boxes[:, None, :2] + boxes[:, None, 2:] * unit
    around = box_of_joints(crop.to_crop(corners.astype(np.float32)))
    area = boxes[:, 2] * boxes[:, 3] * abs(np.linalg.det(crop.matrix[:, :2]))
    shrink = np.sqrt(area / np.maximum(around[:, 2] * around[:, 3], 1e-6))[:, None]
    around[:, :2] += around[:, 2:] * (1 - shrink) / 2
    around[:, 2:] *= shrink
    frame = np.array([0, 0, *crop.size], np.float32)
    share = overlap(around, frame[None])[:, 0] / np.maximum(around[:, 2:].prod(1), 1e-6)
    low = np.clip(around[:, :2], 0, crop.size)
    high = np.clip(around[:, :2] + around[:, 2:], 0, crop.size)
    cut = np.concatenate([low, high - low], axis=1).astype(np.float32)
    present = (cut[:, 2:] > 1).all(1)
    kept = present & (share >= least_share) & (cut[:, 2:].min(1) >= _LEAST_SIDE)
    return cut[kept], cut[present & ~kept]


def _filled(boxes: F32) -> F32:
    """Return (MOST, 4) middle x, y, width, height of boxes (N, 4), the largest first."""
    boxes = boxes[np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")][:MOST]
    rows = np.zeros((MOST, 4), np.float32)
    rows[: len(boxes)] = boxes
    rows[: len(boxes), :2] += boxes[:, 2:] / 2
    return rows
