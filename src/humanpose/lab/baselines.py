"""Scores without a trained network: a constant predictor, and the best linear map of the picture.

They tell how much of a network's score the data give away. The linear map is solved, not trained:
ridge regression from the pixels of a crop, reduced to the size of the heat maps, to these maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from humanpose.data.augment import Augmentation
from humanpose.data.pose import PoseDataset
from humanpose.data.targets import Targets
from humanpose.evaluate.run import estimate_samples, floor
from humanpose.evaluate.scores import Comparison, Truth
from humanpose.infer.topdown import TopDown
from humanpose.spec import ModelSpec
from humanpose.types import F32, F64, U8, Sample

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # shares of the mean variance of a feature
_HELD_OUT = 5  # every fifth person selects the ridge
_CHUNK = 128  # crops at a time


def baseline_scores(
    samples: Sequence[Sample], spec: ModelSpec, training: Sequence[Sample], targets: Targets
) -> dict[str, float]:
    """Return scores by name on `samples`, by the data set's own rule.

    Args:
        samples: persons of one skeleton to score on.
        spec: of the network that is compared: its crops, and the grid of its maps.
        training: persons that the linear map is solved on, each also mirrored.
        targets: of the maps.
    """
    truth = Truth.of(samples)
    given = [
        PoseDataset(training, spec, Augmentation(flip=flip), targets=targets) for flip in (0.0, 1.0)
    ]
    linear = TopDown(_solve(given), replace(spec, decode="argmax"))
    found = {
        "constant predictor": floor(truth)[0],
        "linear map of the picture": estimate_samples(linear, samples),
    }
    return {name: Comparison(each, truth).scores[0].value for name, each in found.items()}


@dataclass(slots=True, eq=False)
class _LinearMap:
    """A `infer.runtime.Runtime`: maps (J, h, w) = pixels of the reduced crop times weights."""

    weights: F64
    shape: tuple[int, int, int]
    name: str = "least squares"
    precision: str = "float32"

    def run(self, crops: U8) -> dict[str, F32]:
        maps = _features(crops, self.shape[1:]).astype(np.float64) @ self.weights
        return {"maps": maps.reshape(len(crops), *self.shape).astype(np.float32)}


def _solve(given: Sequence[PoseDataset]) -> _LinearMap:
    """Solve for all items of `given`, with the ridge that is best on those held out."""
    shape: tuple[int, int, int] = (0, 0, 0)
    sums: dict[bool, list[F64]] = {}  # held out or not -> X'X, X'Y
    for features, maps, held_out in _chunks(given):
        shape = maps.shape[1:]
        answers = maps.reshape(len(maps), -1)
        for which in (True, False):
            x, y = features[held_out == which], answers[held_out == which]
            parts = [(x.T @ x).astype(np.float64), (x.T @ y).astype(np.float64)]
            sums[which] = [a + b for a, b in zip(sums.get(which, (0, 0)), parts, strict=True)]
    (held_x, held_y), (fit_x, fit_y) = sums[True], sums[False]
    spread = np.trace(fit_x) / len(fit_x)

    def squared_error(ridge: float) -> float:
        """Return the error on the held-out items, less a constant."""
        weights = _ridge(fit_x, fit_y, ridge * spread)
        return float((weights * (held_x @ weights)).sum() - 2 * (weights * held_y).sum())

    best = min(_RIDGES, key=squared_error)
    return _LinearMap(_ridge(fit_x + held_x, fit_y + held_y, best * spread), shape)


def _ridge(squares: F64, products: F64, ridge: float) -> F64:
    return np.asarray(np.linalg.solve(squares + ridge * np.eye(len(squares)), products), np.float64)


def _chunks(given: Sequence[PoseDataset]) -> Iterator[tuple[F32, F32, np.ndarray]]:
    """Yield features (n, F), maps (n, J, h, w), and whether held out (n,), of some items a time."""
    for dataset in given:
        for start in range(0, len(dataset), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(dataset)))
            items = [dataset[0, int(i)] for i in rows]
            maps = np.stack([item["target"] for item in items]).astype(np.float32)
            crops = np.stack([item["image"] for item in items]).astype(np.uint8)
            yield _features(crops, maps.shape[2:]), maps, rows % _HELD_OUT == 0


def _features(crops: U8, shape: tuple[int, ...]) -> F32:
    """Return (N, F): the pixels of the crops at the size (h, w) of their maps, and a constant."""
    small = [
        cv2.resize(crop, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255 - 0.5
        for crop in crops
    ]
    pixels = np.stack(small).reshape(len(crops), -1)
    return np.hstack([pixels, np.ones((len(pixels), 1), np.float32)])
