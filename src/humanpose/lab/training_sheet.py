"""What a network in training does, as one picture: truth, joints found, belief maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from humanpose.data.pack import has_picture, image_of
from humanpose.draw import contact_sheet, draw_heat, draw_people
from humanpose.geometry import crop_of_box
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import Runtime
from humanpose.infer.topdown import TopDown
from humanpose.spec import ModelSpec
from humanpose.types import U8, Person, Sample

_PEOPLE = 12  # evenly spread over the validation parts
_ROW = 2  # people side by side, three pictures each
_HEIGHT = 256
_LEAST_SCORE = 0.1


def sheet(runtime: Runtime, spec: ModelSpec, samples: Sequence[Sample]) -> U8:
    """Crops of some of `samples`, each with the true joints, the found ones and the maps."""
    estimator = TopDown(runtime, spec, InferenceOptions(keep_maps=True))
    wanted = [s for s in samples if (s.box[2:] > 0).all() and has_picture(s)]
    cells: list[U8] = []
    for sample in wanted[:: max(1, len(wanted) // _PEOPLE)][:_PEOPLE]:
        image = image_of(sample)
        (found,) = estimator.estimate(image, sample.box[None])
        certain = np.asarray(~np.isnan(sample.joints).any(1), np.float32)
        true = Person(sample.joints, certain, sample.box, 1.0, skeleton=sample.skeleton)
        crop = crop_of_box(sample.box, spec.input, context=spec.context, centre=spec.crop_centre)
        views = (
            draw_people(image, [true], boxes=False),
            draw_people(image, [found], min_score=_LEAST_SCORE, boxes=False),
            draw_heat(image, [found]),
        )
        cells += [crop.cut(view, spec.pad) for view in views]
    size = (round(_HEIGHT * spec.input[0] / spec.input[1]), _HEIGHT)
    return contact_sheet(cells, 3 * _ROW, size)
