"""Contact sheets: samples of data sets, and the results of a network in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from humanpose.data.pack import has_picture, image_of
from humanpose.data.pose import joints_in
from humanpose.data.readers import read
from humanpose.data.sets import data_path, evenly
from humanpose.draw import contact_sheet, draw_heat, draw_people
from humanpose.errors import InputError
from humanpose.geometry import augmented_crop, crop_of_box
from humanpose.images import save_image
from humanpose.infer.options import InferenceOptions
from humanpose.lab.view import View
from humanpose.spec import ModelSpec
from humanpose.types import F32, U8, Person, Sample

if TYPE_CHECKING:
    from humanpose.infer.runtime import Runtime

_CELL = (240, 320)
_OUTSIDE = (110, 110, 110)  # beyond the picture's edge


def samples_of(entries: Sequence[str]) -> list[Sample]:
    """Return all samples of data sets NAME[=PATH], and of packs given by their file name alone."""
    return [sample for entry in entries for sample in read(*data_path(entry))]


def chosen(samples: Sequence[Sample], view: View) -> tuple[list[Sample], int]:
    """Return the samples to show, and how many others have no picture here.

    Raises InputError if there is none.
    """
    low, high = view.limits()
    wanted = [
        sample
        for sample in samples
        if view.data_set in ("", sample.origin[0])
        and view.split in ("", sample.split)
        and low <= (sample.visible > 0).sum() <= high
        and np.isfinite(sample.box).all()
    ]
    there = [sample for sample in wanted if has_picture(sample)]
    if not there:
        raise InputError(f"none of the {len(wanted)} persons asked for has a picture here")
    return evenly(there, view.count or None), len(wanted) - len(there)


def drawn(sample: Sample, view: View) -> U8:
    """Return the crop (320, 240, 3) of a person, made as for training, with its joints drawn."""
    crop = augmented_crop(
        crop_of_box(sample.box, _CELL, context=1.25), rotation=view.rotate, flip=view.flip
    )
    person = _truth(sample, joints_in(crop, sample, sample.skeleton, view.flip))
    return draw_people(crop.cut(image_of(sample), _OUTSIDE), [person], boxes=False)


def _truth(sample: Sample, joints: F32) -> Person:
    scores = np.asarray(~np.isnan(joints).any(1), np.float32)
    return Person(joints, scores, sample.box, 1.0, skeleton=sample.skeleton)


def write_sheet(path: Path, samples: Sequence[Sample], view: View) -> None:
    """Write a picture of all samples side by side, each with its data set and identifier."""
    cells = []
    for sample in samples:
        cell = drawn(sample, view)
        cell[:18] = cell[:18] // 4
        text = f"{sample.origin[0]} {sample.origin[1]}"
        cv2.putText(cell, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, 16)
        cells.append(cell)
    columns = min(10, int(np.ceil(np.sqrt(1.5 * len(cells)))))
    save_image(path, contact_sheet(cells, columns, _CELL))


def training_sheet(runtime: Runtime, spec: ModelSpec, samples: Sequence[Sample]) -> U8:
    """Return a picture of a dozen samples: true joints, joints found, belief maps of each."""
    from humanpose.infer.topdown import TopDown  # not above: showing data needs no runtime

    estimator = TopDown(runtime, spec, InferenceOptions(keep_maps=True))
    wanted = [s for s in samples if (s.box[2:] > 0).all() and has_picture(s)]
    cells: list[U8] = []
    for sample in evenly(wanted, 12):
        image = image_of(sample)
        (found,) = estimator.estimate(image, sample.box[None])
        crop = crop_of_box(sample.box, spec.input, context=spec.context, centre=spec.crop_centre)
        views = (
            draw_people(image, [_truth(sample, sample.joints)], boxes=False),
            draw_people(image, [found], min_score=0.1, boxes=False),
            draw_heat(image, [found]),
        )
        cells += [crop.cut(view, spec.pad) for view in views]
    size = (round(256 * spec.input[0] / spec.input[1]), 256)
    return contact_sheet(cells, 6, size)
