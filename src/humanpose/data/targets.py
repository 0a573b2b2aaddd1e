"""Training targets: heat maps per joint, by this project's rule or that of a publication.

Each map has a weight: how much its errors count, 0 where the joint is not annotated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose import heatmap
from humanpose.data.pack import PackedSample
from humanpose.geometry import Crop, compose
from humanpose.skeleton import Skeleton, joint_map
from humanpose.spec import ModelSpec
from humanpose.types import F32, Sample

# States of a joint in a crop.
UNKNOWN, INSIDE, OUTSIDE = 0, 1, 2
_LEAST = np.exp(-4.6052)  # CPM's maps end where a Gaussian falls below one percent


@dataclass(frozen=True, slots=True)
class Targets:
    """Rules for heat maps.

    `rule` is "exact" (a Gaussian about the joint itself), "hrnet" (about the nearest cell, cut at
    3 sigma) or "cpm" (two sets of maps, of the person and of all people, with background). With
    `compat` the authors' quirks too. hrnet: a joint one cell too far left or above counts although
    its map is empty, and positions just outside are rounded inwards; cpm: a joint that is not
    annotated counts as absent.
    """

    rule: Literal["exact", "hrnet", "cpm"] = "exact"
    sigma: float = 1.5  # of the Gaussians, cells
    compat: bool = False
    weights: dict[str, float] = field(default_factory=dict)  # by `Skeleton.points`; else 1

    def maps(
        self, joints: F32, known: NDArray[np.int64], others: F32, spec: ModelSpec
    ) -> dict[str, F32]:
        """Return the maps of a crop.

        Args:
            joints: (J, 2) of the person, crop pixels; NaN = not annotated.
            known: (J,) INSIDE, OUTSIDE or UNKNOWN.
            others: (P, J, 2) of other people in the picture, crop pixels; only "cpm" uses them.
            spec: of the network; its input, stride and grid are used.

        Returns:
            target: (K, h, w), K = J, or J + 1 with background; weight: (K,); of "cpm" also
            everyone: (K, h, w), the maps of all people.
        """
        shape = (spec.input[1] // spec.stride, spec.input[0] // spec.stride)
        weight = np.array([self.weights.get(n, 1.0) for n in spec.skeleton.points], np.float32)
        if self.rule == "cpm":
            return self._cpm(joints, weight, others, spec, shape)
        if self.rule == "hrnet":
            cells, counts = self._hrnet_cells(joints, spec, shape)
            target = heatmap.encode(cells, shape, sigma=self.sigma)
            across, down = np.arange(shape[1]), np.arange(shape[0])
            reach = int(3 * self.sigma)
            target *= (abs(down - cells[:, 1:]) <= reach)[:, :, None]
            target *= (abs(across - cells[:, :1]) <= reach)[:, None, :]
            return {"target": target, "weight": weight * counts}
        inside = np.where((known == INSIDE)[:, None], joints, np.nan).astype(np.float32)
        cells = heatmap.to_cells(inside, spec.stride, spec.grid)
        target = heatmap.encode(cells, shape, sigma=self.sigma)
        return {"target": target, "weight": weight * (known == INSIDE)}

    def _hrnet_cells(
        self, joints: F32, spec: ModelSpec, shape: tuple[int, int]
    ) -> tuple[F32, NDArray[np.bool_]]:
        """Return whole cells (J, 2), NaN if unknown, and (J,) which of them count.

        Source: `JointsDataset.generate_target` of the official repository.
        """
        exact = heatmap.to_cells(joints, spec.stride, spec.grid)
        rounded = (np.trunc if self.compat else np.floor)(exact + 0.5)
        reach = int(3 * self.sigma)
        # A patch that ends at cell -1 is empty; the original asks whether its end is below 0.
        least = -reach - 1 if self.compat else -reach
        counts = ((rounded >= least) & (rounded < np.array(shape[::-1]) + reach)).all(-1)
        return np.where(counts[:, None], rounded, np.nan).astype(np.float32), counts

    def _cpm(
        self, joints: F32, weight: F32, others: F32, spec: ModelSpec, shape: tuple[int, int]
    ) -> dict[str, F32]:
        """Source: `CPMDataTransformer::generateLabelMap` of the Caffe release."""
        people = np.concatenate([joints[None], others])
        cells = heatmap.to_cells(people, spec.stride, spec.grid)
        maps = heatmap.encode(cells, shape, sigma=self.sigma)
        maps[maps < _LEAST] = 0
        if not self.compat:
            weight = weight * ~np.isnan(joints).any(-1)
        return {
            "target": _with_background(maps[0]),
            "everyone": _with_background(np.minimum(maps.sum(0), 1)),
            "weight": np.append(weight, np.float32(1)).astype(np.float32),
        }


def _with_background(maps: F32) -> F32:
    return np.concatenate([maps, np.maximum(0, 1 - maps.max(0, keepdims=True))]).astype(np.float32)


def neighbours(
    samples: Sequence[Sample], all_people: Sequence[Sample] | None = None
) -> list[tuple[Sample, ...]]:
    """Return for each sample the others of `all_people` (or `samples`) in its picture."""
    pictures: dict[tuple[Path, str, str], dict[tuple[str, str], Sample]] = defaultdict(dict)
    for sample in samples if all_people is None else all_people:
        pictures[_picture(sample)][sample.origin] = sample
    return [
        tuple(other for key, other in pictures[_picture(sample)].items() if key != sample.origin)
        for sample in samples
    ]


def _picture(sample: Sample) -> tuple[Path, str, str]:
    """Return a key of the picture; people of one picture lie in several cut-outs of a pack."""
    if isinstance(sample, PackedSample):
        pack = sample.picture.parents[len(Path(sample.name).parts)]
        return pack, sample.origin[0], sample.name
    return sample.picture, "", ""


def in_pixels_of(sample: Sample, other: Sample) -> F32:
    """Return the joints (J, 2) of `other` in pixels of the picture of `sample`."""
    if isinstance(sample, PackedSample) and isinstance(other, PackedSample):
        return sample.crop.to_crop(other.crop.to_picture(other.joints))
    return other.joints


def carried(
    maps: NDArray[np.float16],
    cells: Crop,
    teacher: Skeleton,
    crop: Crop,
    spec: ModelSpec,
    *,
    flipped: bool,
) -> F32:
    """Warp a teacher's maps (S, J, h, w), without background, into a student's crop.

    `cells` leads from picture pixels to cells of `maps`; `teacher` has all joints of `spec`; with
    `flipped`, `crop` is mirrored and left and right joints change places.

    Returns:
        (S, K, h', w') for the student's joints, and background if it has one; outside the
        teacher's crop joints are absent.
    """
    order = joint_map(teacher, spec.skeleton)
    order = order[spec.skeleton.flip_index] if flipped else order
    there = heatmap.cells_of(crop, spec.stride, spec.grid)
    back = np.asarray(cv2.invertAffineTransform(cells.matrix), np.float64)
    matrix = compose(there.matrix, back)
    given = maps[:, order].astype(np.float32)
    out = np.array([[cv2.warpAffine(j, matrix, there.size) for j in stage] for stage in given])
    return np.stack([_with_background(stage) for stage in out]) if spec.background else out
