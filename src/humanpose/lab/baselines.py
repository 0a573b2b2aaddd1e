"""What a score is without a network: a predictor that looks at nothing, and linear ones.

Under any net they tell how much of its score the data give away. The linear ones are solved, not
trained: least squares with a ridge from the pixels of a crop, made smaller, to the heat maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

_REACH = 5  # cells to each side that a linear filter sees
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # shares of the mean variance of a feature
_KEPT_BACK = 5  # every fifth person judges the ridge
_CHUNK = 128  # crops at a time


def baseline_scores(
    samples: Sequence[Sample], spec: ModelSpec, training: Sequence[Sample], targets: Targets
) -> dict[str, float]:
    """Scores by name on `samples`, by the data set's own rule.

    Args:
        samples: persons of one skeleton to score on.
        spec: of the network that is compared: its crops, and the grid of its maps.
        training: persons that the linear models are solved on, each also mirrored.
        targets: what the maps should be.
    """
    truth, argmax = Truth.of(samples), replace(spec, decode="argmax")
    found = {"constant predictor": floor(truth)[0]}
    given = [
        PoseDataset(training, spec, Augmentation(flip=flip), targets=targets) for flip in (0.0, 1.0)
    ]
    for name, seen in (("linear filters", _windows), ("linear map of the picture", _whole)):
        found[name] = estimate_samples(TopDown(_solved(given, seen), argmax), samples)
    return {name: Comparison(each, truth).scores[0].value for name, each in found.items()}


Seen = Callable[[F32], F32]


@dataclass(slots=True, eq=False)
class _Linear:
    """A `infer.runtime.Runtime`: maps (J, h, w) = features of the smaller crop times weights."""

    weights: F64
    seen: Seen
    shape: tuple[int, int, int]
    name: str = "least squares"
    precision: str = "float32"

    def run(self, crops: U8) -> dict[str, F32]:
        joints, h, w = self.shape
        small = _reduced(crops, (h, w))
        maps = self.seen(small).astype(np.float64) @ self.weights
        if self.seen is _windows:
            maps = maps.reshape(len(crops), h * w, joints).transpose(0, 2, 1)
        return {"maps": maps.reshape(len(crops), *self.shape).astype(np.float32)}


def _solved(given: Sequence[PoseDataset], seen: Seen) -> _Linear:
    """Least squares over all items of `given`; the ridge that those kept back like best."""
    sums: list[list[F64]] = []  # of those kept back, of the others: X'X, X'Y
    for kept_back in (True, False):
        total: list[F64] = []
        for features, maps in _chunks(given, seen, kept_back=kept_back):
            each = features.T @ features, features.T @ maps  # a chunk's sums are exact enough
            if not total:
                total = [part.astype(np.float64) for part in each]
            else:
                for whole, part in zip(total, each, strict=True):
                    whole += part
        sums.append(total)
    spec = given[0].spec
    w, h = (side // spec.stride for side in spec.input)
    shape = (len(spec.skeleton.joints) + spec.background, h, w)
    (held_x, held_y), (fit_x, fit_y) = sums
    spread = np.trace(fit_x) / len(fit_x)

    def squared_error(ridge: float) -> float:
        """On what was kept back, but for a constant."""
        weights = _ridge(fit_x, fit_y, ridge * spread)
        return float((weights * (held_x @ weights)).sum() - 2 * (weights * held_y).sum())

    best = min(_RIDGES, key=squared_error)
    return _Linear(_ridge(fit_x + held_x, fit_y + held_y, best * spread), seen, shape)


def _ridge(squares: F64, products: F64, ridge: float) -> F64:
    return np.asarray(np.linalg.solve(squares + ridge * np.eye(len(squares)), products), np.float64)


def _chunks(
    given: Sequence[PoseDataset], seen: Seen, *, kept_back: bool
) -> Iterator[tuple[F32, F32]]:
    """(rows, features), (rows, answers) of some items each time."""
    for dataset in given:
        rows = [i for i in range(len(dataset)) if (i % _KEPT_BACK == 0) == kept_back]
        for start in range(0, len(rows), _CHUNK):
            items = [dataset[0, i] for i in rows[start : start + _CHUNK]]
            maps = np.stack([item["target"] for item in items]).astype(np.float32)
            n, joints, h, w = maps.shape
            crops = np.stack([item["image"] for item in items]).astype(np.uint8)
            features = seen(_reduced(crops, (h, w)))
            if seen is _windows:
                answers = maps.transpose(0, 2, 3, 1).reshape(n * h * w, joints)
            else:
                answers = maps.reshape(n, -1)
            yield features, answers


def _reduced(crops: U8, shape: tuple[int, int]) -> F32:
    """(N, h, w, 3) crops at the size of their maps, each pixel the mean of what it covers."""
    size = shape[::-1]
    return np.stack([
        cv2.resize(crop, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255 - 0.5
        for crop in crops
    ])  # fmt: skip


def _whole(small: F32) -> F32:
    """(N, F) every pixel of the smaller crop, and a constant."""
    return _with_constant(small.reshape(len(small), -1))


def _windows(small: F32) -> F32:
    """(N h w, F) the pixels about each cell, and a constant."""
    edge = ((0, 0), (_REACH, _REACH), (_REACH, _REACH), (0, 0))
    side = 2 * _REACH + 1
    views = np.lib.stride_tricks.sliding_window_view(np.pad(small, edge), (side, side), (1, 2))
    return _with_constant(views.reshape(-1, 3 * side * side))


def _with_constant(features: F32) -> F32:
    return np.hstack([features, np.ones((len(features), 1), np.float32)])
