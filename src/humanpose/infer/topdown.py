"""People in a picture, top-down: detector, crops, one batched network call, decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose import heatmap
from humanpose.errors import InputError
from humanpose.geometry import Crop, box_of_picture, crop_around, crop_of_box, iou, mirrored, tilts
from humanpose.infer.detector import Detector
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import Runtime
from humanpose.infer.tta import TestTimeAugmentation, merge_maps, torso_of, unflipped, upright_crop
from humanpose.skeleton import Skeleton
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Person

# A crowd is cut into calls of at most this many crops, so that memory stays bounded.
_LARGEST_BATCH = 16
_NEAR = 0.3  # IoU of boxes that may be the same person's


class PeopleFinder(Protocol):
    """Finds the people in a picture; threads may share one.

    Attributes:
        spec: of the pose network.
    """

    spec: ModelSpec

    @property
    def skeleton(self) -> Skeleton:
        """Meaning of the rows of `Person.joints`."""
        ...

    @property
    def threshold(self) -> float:
        """Person score below which a find is doubtful."""
        ...

    def find(
        self, image: U8, expected: Sequence[Person] = (), detect: bool = True
    ) -> tuple[Person, ...]:
        """Find the people in `image`, best first.

        Args:
            image: (H, W, 3) RGB.
            expected: people as a tracker expects them here; doubtful finds near them are kept.
            detect: without, a finder may take the places of the people from `expected`: one
                Person for each, same order, with its track.
        """
        ...


class TopDown:
    """A detector's boxes, and the joints in them by a pose network on crops.

    Args:
        runtime: the pose network.
        spec: its description; `input` is the size that `runtime` was loaded for.
        options: how to apply it: tta, crop, decode, compat, keep_maps, max_people.
        detector: None = one person who fills the picture.
    """

    def __init__(
        self,
        runtime: Runtime,
        spec: ModelSpec,
        options: InferenceOptions = InferenceOptions(),
        detector: Detector | None = None,
    ) -> None:
        if spec.task == "person":
            raise InputError(f"model {spec.name!r} finds people, not joints")
        self.runtime, self.spec, self.options, self.detector = runtime, spec, options, detector
        self._decode = "argmax" if options.compat == "matlab" else options.decode or spec.decode
        without_sizes = detector is not None and detector.spec.decode == "peaks"
        crop = options.crop or ("picture-height" if without_sizes else spec.crop)
        self._by_height = crop == "picture-height"
        self._torso = torso_of(spec.skeleton)
        self.tta = self._augmentation()
        self._zooms = self.tta.zooms(1.0 if self._by_height else spec.context)

    @property
    def skeleton(self) -> Skeleton:
        """Meaning of the rows of `Person.joints`."""
        return self.spec.skeleton

    @property
    def threshold(self) -> float:
        """Person score below which a find is doubtful."""
        return 0.0 if self.detector is None else self.detector.threshold

    def find(
        self, image: U8, expected: Sequence[Person] = (), detect: bool = True
    ) -> tuple[Person, ...]:
        """Find the people in `image` (H, W, 3), best first: see `PeopleFinder`."""
        if not detect:
            boxes = np.array([person.box for person in expected], np.float32)
            scores = np.array([person.score for person in expected], np.float32)
            found = self.estimate(image, boxes, scores)
            pairs = zip(found, expected, strict=True)
            return tuple(replace(person, track=old.track) for person, old in pairs)
        if self.detector is None:
            return self.estimate(image, box_of_picture(image))
        least = self.detector.threshold
        boxes, scores = self.detector.detect(image, least / 2 if expected else least)
        kept = slice(self.options.max_people)
        if expected:
            near = iou(np.array([person.box for person in expected], np.float32), boxes) > _NEAR
            sure = scores >= least
            unmet = near[~near[:, sure].any(axis=1)]  # expected people whom no sure box shows
            wanted = np.flatnonzero(sure | unmet.any(axis=0))
            strangers = ~near[:, wanted].any(axis=0)
            best = np.sort(wanted[np.argsort(strangers, kind="stable")][kept])
            return self.estimate(image, boxes[best], scores[best])
        return self.estimate(image, boxes[kept], scores[kept])

    def estimate(self, image: U8, boxes: F32, box_scores: F32 | None = None) -> tuple[Person, ...]:
        """Find one Person per box, in the order of `boxes`.

        Args:
            image: (H, W, 3) RGB.
            boxes: (N, 4) tight boxes x, y, width, height, picture pixels; N may be 0.
            box_scores: (N,) of the detector; 1 where boxes were given by hand.

        Raises:
            InputError: if a box is not four finite numbers with positive sides.
        """
        boxes = _checked(boxes)
        sure = np.ones(len(boxes), np.float32) if box_scores is None else box_scores
        crops_each = len(self._zooms) * (1 + self.tta.flip)
        at_once = max(1, _LARGEST_BATCH // crops_each)
        people: list[Person] = []
        for start in range(0, len(boxes), at_once):
            part = slice(start, start + at_once)
            people += self._batch(image, boxes[part], sure[part])
        return tuple(people)

    def _batch(self, image: U8, boxes: F32, sure: F32) -> list[Person]:
        size = (image.shape[1], image.shape[0])
        crops = [self._crop(box, size, zoom) for box in boxes for zoom in self._zooms]
        maps, cells = self._maps(image, crops), self._cells(crops)
        if len(self._zooms) > 1 or self.options.compat == "matlab":
            maps, cells = self._merged(maps, cells, boxes, size)
        joints, scores = heatmap.decode_crops(maps[:, -1], cells, self._decode)
        if self.tta.upright:
            tilt = tilts(joints, scores, self._torso)
            rows = np.flatnonzero(np.abs(tilt) >= self.tta.upright)
            if len(rows):  # average their maps with those of upright crops
                usual = (self._crop(boxes[i], size) for i in rows)
                crops = [
                    upright_crop(crop, joints[i], float(tilt[i]), self.spec)
                    for i, crop in zip(rows, usual, strict=True)
                ]
                targets = self._cells(crops)
                for i, upright, target in zip(rows, self._maps(image, crops), targets, strict=True):
                    maps[i] = merge_maps(np.stack([maps[i], upright]), [cells[i], target], target)
                    cells[i] = target
                found = heatmap.decode_crops(maps[rows, -1], targets, self._decode)
                joints[rows], scores[rows] = found
        keep = self.options.keep_maps
        return [
            Person(
                joints[i],
                scores[i],
                boxes[i],
                float(sure[i]),
                skeleton=self.spec.skeleton,
                maps=_halved(maps[i]) if keep else None,
                cells=cells[i] if keep else None,
            )
            for i in range(len(boxes))
        ]

    def _augmentation(self) -> TestTimeAugmentation:
        """Return the augmentation that is asked for, else the network's own.

        Raises:
            InputError: if an upright crop is asked for that this network cannot have.
        """
        asked, spec = self.options.tta, self.spec
        tta = TestTimeAugmentation.parse(spec.tta if asked is None else asked)
        if self._by_height or self.options.compat:  # which stand for systems without it
            why = "with compat or crops by the picture's height"
        elif not len(self._torso):
            why = "of a network without shoulders and hips, which say how a person is tilted"
        else:
            return tta
        if tta.upright and asked is not None:
            raise InputError(f"model {spec.name!r}: there is no upright crop {why}")
        return replace(tta, upright=0.0)

    def _crop(self, box: F32, picture: tuple[int, int], zoom: float = 1.0) -> Crop:
        """Return the crop of `box` in a `picture` (width, height), `zoom` times the usual size."""
        spec = self.spec
        if self._by_height:
            middle = (float(box[0] + box[2] / 2), float(box[1] + box[3] / 2))
            scale = zoom * spec.input[1] / picture[1]
            return crop_around(middle, scale, spec.input, centre=spec.crop_centre)
        context = spec.context / zoom
        return crop_of_box(box, spec.input, context=context, centre=spec.crop_centre)

    def _maps(self, image: U8, crops: list[Crop]) -> F32:
        """Return maps (N, S, K, h, w) of the crops, without background.

        S is 1 unless all stages were asked for and the network gives them.
        """
        spec = self.spec
        shifted = self.options.compat == "hrnet"
        cut = [crop.cut(image, spec.pad) for crop in crops]
        if self.tta.flip and (shifted or spec.grid == "centre"):
            # The maps lie even in the crop. NumPy's own mirror image takes 30 times as long.
            cut += [np.asarray(cv2.flip(crop, 1), np.uint8) for crop in cut]
        elif self.tta.flip:
            axis = heatmap.mirror_axis(spec.input[0] // spec.stride, spec.stride, spec.grid)
            cut += [mirrored(crop, axis).cut(image, spec.pad) for crop in crops]
        found = self.runtime.run(np.stack(cut))
        maps = found["maps"][:, None]
        if self.options.keep_maps:  # "maps" is the last of them
            stages = [found[name] for name in found if name.startswith("maps_")]
            maps = np.stack(stages, axis=1) if stages else maps
        if self.tta.flip:
            back = unflipped(maps[len(crops) :], spec.flip_index, shifted=shifted)
            maps = np.asarray((maps[: len(crops)] + back) / 2, np.float32)
        return maps[:, :, :-1] if spec.background else maps

    def _cells(self, crops: Sequence[Crop]) -> list[Crop]:
        """Return picture pixel -> heat-map cell, for the maps of `crops`."""
        return [heatmap.cells_of(crop, self.spec.stride, self.spec.grid) for crop in crops]

    def _merged(
        self, maps: F32, cells: list[Crop], boxes: F32, picture: tuple[int, int]
    ) -> tuple[F32, list[Crop]]:
        """Merge the maps of all scales to (N, S, K, h, w) of N boxes, and return their cells."""
        scales = len(self._zooms)
        if self.options.compat == "matlab":
            targets = [Crop(np.eye(2, 3), picture) for _ in boxes]
        else:
            targets = self._cells([self._crop(box, picture) for box in boxes])
        merged = [
            merge_maps(maps[i : i + scales], cells[i : i + scales], target)
            for i, target in zip(range(0, len(maps), scales), targets, strict=True)
        ]
        return np.stack(merged), targets


def _halved(maps: F32) -> NDArray[np.float16]:
    """Return maps as float16; those of a network without training may exceed what it holds."""
    most = np.finfo(np.float16).max
    return np.clip(maps, -most, most).astype(np.float16)


def _checked(boxes: F32) -> F32:
    boxes = np.asarray(boxes, np.float32)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"boxes must be (N, 4) x, y, width, height, not {boxes.shape}")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= 0).any():
        raise InputError("boxes must be finite, with positive width and height")
    return boxes
