"""Object keypoint similarity, COCO's measure of one person, and the AP and AR made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from humanpose.evaluate.metrics.detection import ap_and_recall, match_finds
from humanpose.evaluate.metrics.pck import Bool
from humanpose.geometry import similarity
from humanpose.skeleton import Skeleton
from humanpose.types import F32, F64, Score

_LEVELS: F64 = np.linspace(0.5, 0.95, 10)
_MAX_FINDS = 20  # of a picture, best score first
_RANGES = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


def similarities(joints: F32, truth: F32, area: F64, skeleton: Skeleton) -> F64:
    """Return the (..., J) similarity of each joint, in [0, 1]; NaN where it is not annotated.

    Args:
        joints: (..., J, 2) predicted, picture pixels; NaN counts as infinitely far.
        truth: (..., J, 2) annotated; NaN = not annotated and not counted.
        area: (...) of the person, square pixels.
        skeleton: with sigmas.

    Raises ValueError if the skeleton has no sigmas.
    """
    if skeleton.sigmas is None:
        raise ValueError(f"skeleton {skeleton.name!r} has no OKS constants")
    return similarity(joints, truth, area, np.array(skeleton.sigmas))


def oks(each: F64) -> F64:
    """Return the (...) OKS of persons from the similarities (..., J) of their joints.

    NaN where no joint is annotated. Source: cocodataset.org, "Keypoint evaluation": mean of
    exp(-d^2 / (2 area (2 sigma)^2)) over the annotated joints.
    """
    n = (~np.isnan(each)).sum(-1)
    total = np.nansum(each, axis=-1)
    return np.asarray(np.where(n > 0, total / np.maximum(n, 1), np.nan), np.float64)


def mean_oks(each: F64, skeleton: Skeleton, *, how: str = "boxes given") -> Score:
    """Return the mean OKS over persons with an annotated joint; per joint its mean similarity.

    Args:
        each: (N, J) of `similarities`.
        skeleton: meaning of the J columns.
        how: how predictions were matched to persons, for the rule's name.
    """
    persons = oks(each)
    count = (~np.isnan(each)).sum(0)
    return Score(
        f"mean OKS, {how}",
        float(np.nanmean(persons)) if np.isfinite(persons).any() else float("nan"),
        np.where(count > 0, np.nansum(each, axis=0) / np.maximum(count, 1), np.nan),
        count.astype(np.int64),
        skeleton.joints,
    )


@dataclass(frozen=True, slots=True, eq=False)
class PosePicture:
    """The people found in one picture and those annotated in it.

    Attributes:
        joints: (D, J, 2) found, picture pixels, NaN = missing.
        scores: (D,) of each find.
        extent: (D,) area of each find, square pixels; only its class of size matters.
        truth: (N, J, 2) annotated, NaN = not annotated.
        area: (N,) square pixels.
        boxes: (N, 4) annotated; the place to ignore where a person has no joint annotated.
        crowd: (N,) bool; a crowd may be found any number of times.
    """

    joints: F32
    scores: F32
    extent: F64
    truth: F32
    area: F64
    boxes: F32
    crowd: Bool


def keypoint_ap(pictures: Sequence[PosePicture], skeleton: Skeleton) -> tuple[Score, ...]:
    """Return COCO's ten figures: AP, AP at 0.50, 0.75, of medium and large people; AR likewise.

    AP: mean over the OKS thresholds 0.50, 0.55 ... 0.95 of the 101-point area under precision and
    recall, with the 20 best finds of a picture. Crowds and persons without an annotated joint are
    ignored; so are, for medium (32^2 to 96^2 px of area) and large people, those of other sizes.
    NaN where there is no person to find. Equals pycocotools' COCOeval.
    """
    ranked = [np.argsort(-picture.scores, kind="stable")[:_MAX_FINDS] for picture in pictures]
    pairs = [_pairs(p, rows, skeleton) for p, rows in zip(pictures, ranked, strict=True)]
    tables = {name: _table(pictures, ranked, pairs, sizes) for name, sizes in _RANGES.items()}
    scores = []
    for kind, word in enumerate(("AP", "AR")):
        values = {"": tables["all"][kind].mean()}
        values |= {f" at {level:.2f}": tables["all"][kind][i] for i, level in ((0, 0.5), (5, 0.75))}
        values |= {f", {name} people": tables[name][kind].mean() for name in ("medium", "large")}
        scores += [Score(f"keypoint {word}{which}", float(v)) for which, v in values.items()]
    return tuple(scores)


def _table(
    pictures: Sequence[PosePicture],
    ranked: Sequence[np.ndarray],
    pairs: Sequence[F64],
    sizes: tuple[float, float],
) -> tuple[F64, F64]:
    """Return (10,) AP and (10,) AR by OKS threshold, for people of an area between `sizes`."""
    scores: list[F32] = [np.zeros(0, np.float32)]
    outcomes: list[np.ndarray] = [np.zeros((len(_LEVELS), 0), np.int64)]
    people = 0
    for picture, best, alike in zip(pictures, ranked, pairs, strict=True):
        outside = (picture.area < sizes[0]) | (picture.area > sizes[1])
        ignore = outside | picture.crowd | np.isnan(picture.truth).any(-1).all(-1)
        people += int((~ignore).sum())
        extent = picture.extent[best]
        outcome = match_finds(alike, ignore, _LEVELS, picture.crowd)
        outcome[(outcome == 0) & ((extent < sizes[0]) | (extent > sizes[1]))] = -1
        scores.append(picture.scores[best])
        outcomes.append(outcome)
    if not people:
        return np.full(len(_LEVELS), np.nan), np.full(len(_LEVELS), np.nan)
    return ap_and_recall(scores, outcomes, people)


def _pairs(picture: PosePicture, rows: np.ndarray, skeleton: Skeleton) -> F64:
    """Return the (D, N) OKS of the finds `rows` with every annotated person.

    A person without an annotated joint is as near as a box grown by its own size on each side.
    """
    joints = picture.joints[rows, None]
    low = (picture.boxes[:, :2] - picture.boxes[:, 2:])[:, None]
    high = (picture.boxes[:, :2] + 2 * picture.boxes[:, 2:])[:, None]
    empty = np.asarray(np.isnan(picture.truth).any(-1).all(-1))
    truth = np.where(empty[:, None, None], np.clip(joints, low, high), picture.truth)
    return oks(similarities(joints, truth, picture.area, skeleton))
