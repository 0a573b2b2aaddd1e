"""Accuracy lost by a lower precision: scores before and after, on real crops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from humanpose import heatmap
from humanpose.data.readers import READERS, read
from humanpose.data.sets import data_path, evenly, part_of
from humanpose.errors import InputError
from humanpose.geometry import box_of_picture
from humanpose.images import load_image
from humanpose.infer.detector import Detector
from humanpose.infer.runtime import Runtime
from humanpose.infer.topdown import TopDown
from humanpose.media.sources import find_inputs
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Sample, Score

# Crops to calibrate on; more change the ranges of activations by less than the noise of a score.
_CALIBRATION = 300
# Two joints agree within this share of the crop's longer side.
_NEAR = 0.02
# A crop, the places of its J peaks and whether they count: see AccuracyCheck._places.
_View = tuple[U8, F32, NDArray[np.bool_]]
# The scores of a network on samples, boxes given.
Scorer = Callable[[Runtime, ModelSpec, Sequence[Sample]], Sequence[Score]]


@dataclass(frozen=True, slots=True)
class Examples:
    """Data to calibrate and to judge a network on.

    Attributes:
        sets: data set -> persons; the training part calibrates, the validation part judges.
        pictures: without annotation; they do both.
        score: of a network on persons of `sets`.
    """

    sets: dict[str, list[Sample]]
    pictures: tuple[Path, ...]
    score: Scorer

    @classmethod
    def read(cls, entries: Sequence[str], score: Scorer) -> Examples:
        """Read data sets ("NAME", "NAME=PATH") and pictures, folders or patterns.

        Raises:
            InputError: if one is not there, or a set has no training or no validation part, or
                what is no set holds no pictures.
        """
        named = [entry for entry in entries if entry.partition("=")[0] in READERS]
        sets = {name: read(name, path) for name, path in map(data_path, named)}
        for name, samples in sets.items():
            for split in ("train", "validation"):
                part_of(samples, split, name)
        rest = [entry for entry in entries if entry not in named]
        items = find_inputs(rest) if rest else []
        pictures = tuple(item.path for item in items if item.kind == "picture")
        if rest and not pictures:
            raise InputError(f"no pictures to calibrate on in {', '.join(rest)}")
        return cls(sets, pictures, score)


class AccuracyCheck:
    """Scores of a network in float32, to compare with the same network in a lower precision.

    Args:
        reference: the network in float32.
        spec: its description.
        examples: to judge on; without annotation it is the agreement with `reference`.

    Attributes:
        crops: (1, H, W, 3) each, cut as `predict` cuts them: what the network is calibrated on.
        before: rule -> score of `reference`, in [0, 1].
    """

    def __init__(self, reference: Runtime, spec: ModelSpec, examples: Examples) -> None:
        self._spec = spec
        self._examples = examples
        recorder = _Recorder(reference)
        share = -(-_CALIBRATION // (len(examples.sets) + bool(examples.pictures)))
        for name, samples in examples.sets.items():
            part = part_of(samples, "train", name)
            if spec.task == "person":
                self._look(recorder, evenly(_paths(part), share))
            else:
                examples.score(recorder, spec, evenly(part, share))
        views = self._views(reference, evenly(examples.pictures, share))
        self.crops = [*recorder.crops, *(view[0] for view in views)]
        self._views_of = {"": views} if views else {}
        if spec.decode == "peaks":  # places without boxes: there is no score of them
            for name, samples in examples.sets.items():
                paths = evenly(_paths(part_of(samples, "validation", name)), _CALIBRATION)
                self._views_of[f"{name} validation, "] = self._views(reference, paths)
        self.before = self.scores(reference)

    def loss(
        self, after: dict[str, float], label: str, show: Callable[[str], None]
    ) -> tuple[float, str]:
        """Show each score before and after; return the largest loss in points, and its line."""
        losses = []
        for rule, was in self.before.items():
            line = f"{rule}: float32 {100 * was:.2f}, {label} {100 * after[rule]:.2f}"
            show(line)
            losses.append((100 * (was - after[rule]), line))
        # A loss that is no number is the largest: max alone would pass over it.
        return max(losses, key=lambda each: math.inf if math.isnan(each[0]) else each[0])

    def scores(self, other: Runtime) -> dict[str, float]:
        """Return the scores of `other` by rule, in [0, 1]."""
        found: dict[str, float] = {}
        for name, samples in self._examples.sets.items():
            part = part_of(samples, "validation", name)
            if self._spec.decode == "peaks":
                continue
            scores = self._examples.score(other, self._spec, part)
            found |= {f"{name} {score.rule}": score.value for score in scores}
        for where, views in self._views_of.items():
            rule = f"{where}agreement with float32: joints within {_NEAR:.0%} of the longer side"
            found[rule] = self._agreement(other, views)
        return found

    def _look(self, runtime: Runtime, paths: Sequence[Path]) -> None:
        """Run `runtime` on whole pictures, as `predict` does."""
        for image in map(load_image, paths):
            if self._spec.task == "person":
                Detector(runtime, self._spec).detect(image)
            else:
                TopDown(runtime, self._spec).estimate(image, box_of_picture(image))

    def _views(self, reference: Runtime, paths: Sequence[Path]) -> list[_View]:
        """Return whole pictures as crops, and the places that the reference finds in them."""
        recorder = _Recorder(reference)
        self._look(recorder, paths)
        return [(crop, *self._places(reference.run(crop))) for crop in recorder.crops]

    def _agreement(self, other: Runtime, views: Sequence[_View]) -> float:
        """Return the share of the places found by the reference that `other` finds too."""
        near = []
        for crop, places, counted in views:
            apart = np.linalg.norm(places - self._places(other.run(crop))[0], axis=-1)
            near.append((apart * self._spec.stride <= _NEAR * max(crop.shape[1:3]))[counted])
        return float(np.concatenate(near).mean())

    def _places(self, found: dict[str, F32]) -> tuple[F32, NDArray[np.bool_]]:
        """Return the peaks of one crop's maps (J, 2), cells, and which of them count (J,).

        Peaks of at least half the best one's height count: lower ones mean an absent joint. Of a
        network that gives boxes: the middle of each, by its score.
        """
        if self._spec.decode == "boxes":
            boxes = found["boxes"][0]
            middles = (boxes[:, :2] + boxes[:, 2:4] / 2) / np.float32(self._spec.stride)
            return middles, np.asarray(boxes[:, 4] >= boxes[:, 4].max() / 2)
        maps = found["maps"][0]
        maps = maps[:-1] if self._spec.background else maps
        rule = self._spec.decode if self._spec.decode in heatmap.DECODERS else "argmax"
        cells, scores = heatmap.decode(maps, rule)
        return cells, scores >= min(scores.max() / 2, scores.max())


class _Recorder:
    """A runtime that keeps the crops it is given."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.name, self.precision = inner.name, inner.precision
        self.crops: list[U8] = []

    def run(self, crops: U8) -> dict[str, F32]:
        self.crops += [crop[None] for crop in crops]
        return self._inner.run(crops)


def _paths(samples: Sequence[Sample]) -> list[Path]:
    return sorted({sample.picture for sample in samples})
