"""Pictures of the people with the largest errors: the truth beside the prediction."""

from __future__ import annotations

import numpy as np

from humanpose.data.pack import has_picture, image_of
from humanpose.draw import contact_sheet, draw_people
from humanpose.errors import InputError
from humanpose.evaluate.scores import Comparison
from humanpose.geometry import crop_of_box
from humanpose.types import F32, U8, Person, Sample

_CELL = (240, 300)
_COLUMNS = 4  # pairs side by side
_GAP = 16  # pixels between the pairs
_OUTSIDE = (110, 110, 110)  # beyond the picture's edge


def worst_people(found: Comparison, most: int = 8) -> tuple[U8, list[str]] | None:
    """Return a sheet of pairs, truth left and prediction right, worst first, and a line on each.

    Worst: the greatest mean distance of the person's joints, each counted as at most twice the
    threshold. People whose pictures are absent are passed over; None if all are.
    """
    distance, far = found.distance, 2 * found.threshold
    capped = np.minimum(distance, far)
    counted = ~np.isnan(capped)
    mean = np.nansum(capped, 1) / np.maximum(counted.sum(1), 1)
    sheets: list[U8] = []
    lines = []
    for i in np.argsort(-mean, kind="stable"):
        sample = found.truth.samples[int(i)]
        if len(sheets) == most or mean[i] == 0:
            break
        if not (np.isfinite(sample.box).all() and has_picture(sample)):
            continue
        try:
            image = image_of(sample)
        except InputError:
            continue
        right = int((distance[i] <= found.threshold).sum())
        who = f"{sample.picture.name}, {sample.origin[1]}"
        lines.append(f"{who}: {right} of {counted[i].sum()} right")
        sheets.append(_pair(image, sample, found.predicted.joints[int(i)]))
    if not sheets:
        return None
    columns = min(_COLUMNS, -(-len(sheets) // 2))
    return contact_sheet(sheets, columns, (sheets[0].shape[1], sheets[0].shape[0])), lines


def _pair(image: U8, sample: Sample, predicted: F32) -> U8:
    """Return truth and prediction side by side, with a margin below and to the right."""
    box = sample.box.copy()
    box[2:] = np.maximum(box[2:], 8)
    crop = crop_of_box(box, _CELL)
    cut = crop.cut(image, _OUTSIDE)
    halves = []
    for joints in (sample.joints, predicted):
        person = Person(
            crop.to_crop(joints),
            np.asarray(np.isfinite(joints).all(-1), np.float32),
            box,
            1.0,
            skeleton=sample.skeleton,
        )
        halves.append(draw_people(cut, [person], boxes=False))
    return np.pad(np.concatenate(halves, axis=1), ((0, _GAP), (0, _GAP), (0, 0)))
