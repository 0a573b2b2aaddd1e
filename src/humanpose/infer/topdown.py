"""Boxes -> joints: crop, one batched network call, decode, back into the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from humanpose import heatmap
from humanpose.errors import InputError
from humanpose.geometry import Crop, crop_around, crop_of_box, mirrored
from humanpose.infer.options import InferenceOptions
from humanpose.infer.profile import CROPS, MAPS, NETWORK, Profile, phase
from humanpose.infer.runtime import Runtime
from humanpose.infer.tta import TestTimeAugmentation, merge_maps, unflipped
from humanpose.infer.upright import tilts, torso_of, upright_crop
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Person

# A crowd is cut into calls of at most this many crops, so that memory stays bounded.
_LARGEST_BATCH = 16


class TopDown:
    """Joints of the people in given boxes.

    Args:
        runtime: the pose network.
        spec: its description; `input` is the size that `runtime` was loaded for.
        options: how to apply it: tta, crop, decode, compat, keep_maps.
        profile: told how long its parts take.
    """

    def __init__(
        self,
        runtime: Runtime,
        spec: ModelSpec,
        options: InferenceOptions = InferenceOptions(),
        profile: Profile | None = None,
    ) -> None:
        if spec.task == "person":
            raise InputError(f"model {spec.name!r} finds people, not joints")
        self.runtime = runtime
        self.spec = spec
        self.options = options
        self._profile = profile
        matlab = options.compat == "matlab"
        self._decode = "argmax" if matlab else options.decode or spec.decode
        self._by_height = (options.crop or spec.crop) == "picture-height"
        self._torso = torso_of(spec.skeleton)
        self.tta = self._augmentation()
        self._zooms = self.tta.zooms(1.0 if self._by_height else spec.context)

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
        looks = len(self._zooms) * (1 + self.tta.flip)
        at_once = max(1, _LARGEST_BATCH // looks)
        people: list[Person] = []
        for start in range(0, len(boxes), at_once):
            part = slice(start, start + at_once)
            with phase(self._profile, MAPS):  # what is not of the phases inside it
                people += self._batch(image, boxes[part], sure[part])
        return tuple(people)

    def _batch(self, image: U8, boxes: F32, sure: F32) -> list[Person]:
        size = (image.shape[1], image.shape[0])
        with phase(self._profile, CROPS):
            crops = [self._crop(box, size, zoom) for box in boxes for zoom in self._zooms]
        maps, cells = self._merged(self._maps(image, crops), crops, boxes, size)
        joints, scores = read_maps(maps[:, -1], cells, self._decode)
        if self.tta.upright:
            self._look_again(image, boxes, maps, cells, joints, scores)
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
        """The augmentation that is asked for, else the network's own.

        Raises:
            InputError: if an upright crop is asked for that this network cannot have.
        """
        asked, spec = self.options.tta, self.spec
        tta = TestTimeAugmentation(upright=spec.second_look)
        if asked is not None:
            tta = TestTimeAugmentation.parse(asked)
        if self._by_height or self.options.compat:  # which stand for systems without it
            why = "with compat or crops by the picture's height"
        elif not len(self._torso):
            why = "of a network without shoulders and hips, which say how a person is tilted"
        else:
            return tta
        if tta.upright and asked is not None:
            raise InputError(f"model {spec.name!r}: there is no upright crop {why}")
        return replace(tta, upright=0.0)

    def _look_again(
        self,
        image: U8,
        boxes: F32,
        maps: F32,
        cells: list[Crop],
        joints: F32,
        scores: F32,
    ) -> None:
        """Change what the first look found of those who are not upright, in place."""
        spec, size = self.spec, (image.shape[1], image.shape[0])
        tilt = tilts(joints, scores, self._torso)
        rows = np.flatnonzero(np.abs(tilt) >= self.tta.upright)
        if not len(rows):
            return
        with phase(self._profile, CROPS):
            crops = [
                upright_crop(
                    self._crop(boxes[i], size),
                    joints[i],
                    float(tilt[i]),
                    context=spec.context,
                    centre=spec.crop_centre,
                )
                for i in rows
            ]
        for i, look, crop in zip(rows, self._maps(image, crops), crops, strict=True):
            target = heatmap.cells_of(crop, spec.stride, spec.grid)
            maps[i] = merge_maps(np.stack([maps[i], look]), [cells[i], target], target)
            cells[i] = target
        turned = [cells[i] for i in rows]
        joints[rows], scores[rows] = read_maps(maps[rows, -1], turned, self._decode)

    def _crop(self, box: F32, picture: tuple[int, int], zoom: float = 1.0) -> Crop:
        """The crop of `box` in a `picture` (width, height), `zoom` times as large as usual."""
        spec = self.spec
        if self._by_height:
            middle = (float(box[0] + box[2] / 2), float(box[1] + box[3] / 2))
            scale = zoom * spec.input[1] / picture[1]
            return crop_around(middle, scale, spec.input, centre=spec.crop_centre)
        context = spec.context / zoom
        return crop_of_box(box, spec.input, context=context, centre=spec.crop_centre)

    def _maps(self, image: U8, crops: list[Crop]) -> F32:
        """Maps (N, S, K, h, w) of the crops, without background.

        S is 1 unless all stages were asked for and the network gives them.
        """
        spec = self.spec
        shifted = self.options.compat == "hrnet"
        with phase(self._profile, CROPS):
            cut = [crop.cut(image, spec.pad) for crop in crops]
            if self.tta.flip and shifted:
                cut += [crop[:, ::-1] for crop in cut]
            elif self.tta.flip:
                axis = heatmap.mirror_axis(spec.input[0] // spec.stride, spec.stride, spec.grid)
                cut += [mirrored(crop, axis).cut(image, spec.pad) for crop in crops]
            batch = np.stack(cut)
        with phase(self._profile, NETWORK):
            found = self.runtime.run(batch)
        maps = found["maps"][:, None]
        if self.options.keep_maps:  # "maps" is the last of them
            stages = [found[name] for name in found if name.startswith("maps_")]
            maps = np.stack(stages, axis=1) if stages else maps
        if self.tta.flip:
            back = unflipped(maps[len(crops) :], spec.flip_index, shifted=shifted)
            maps = np.asarray((maps[: len(crops)] + back) / 2, np.float32)
        return maps[:, :, :-1] if spec.background else maps

    def _merged(
        self, maps: F32, crops: Sequence[Crop], boxes: F32, picture: tuple[int, int]
    ) -> tuple[F32, list[Crop]]:
        """Maps (N, S, K, h, w) of N boxes and where their cells lie, from those of all looks."""
        spec, looks = self.spec, len(self._zooms)
        cells = [heatmap.cells_of(crop, spec.stride, spec.grid) for crop in crops]
        if self.options.compat == "matlab":
            targets = [Crop(np.eye(2, 3), picture) for _ in boxes]
        elif looks == 1:
            return maps, cells
        else:
            usual = [self._crop(box, picture) for box in boxes]
            targets = [heatmap.cells_of(crop, spec.stride, spec.grid) for crop in usual]
        merged = [
            merge_maps(
                maps[i * looks : (i + 1) * looks], cells[i * looks : (i + 1) * looks], target
            )
            for i, target in enumerate(targets)
        ]
        return np.stack(merged), targets


def read_maps(maps: F32, cells: Sequence[Crop], rule: str) -> tuple[F32, F32]:
    """Joints (N, J, 2) in picture pixels and scores (N, J) in [0, 1] from maps (N, J, h, w).

    Args:
        maps: without background.
        cells: N, picture pixel -> cell.
        rule: of heatmap.decode.
    """
    found, scores = heatmap.decode(maps, rule)
    joints = [where.to_picture(points) for where, points in zip(cells, found, strict=True)]
    return np.stack(joints), np.minimum(np.maximum(scores, 0), 1)


def _halved(maps: F32) -> NDArray[np.float16]:
    """A network that has not been trained may say more than float16 can hold."""
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
