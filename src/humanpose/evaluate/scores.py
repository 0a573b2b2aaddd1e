"""The table of scores, and what scores are made from: predictions beside the truth.

To add a score: write its function in `metrics` and an entry in SCORES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from humanpose.errors import InputError
from humanpose.evaluate.metrics import diagnosis, pck
from humanpose.evaluate.metrics.oks import PosePicture, keypoint_ap, mean_oks, oks, similarities
from humanpose.evaluate.metrics.pcp import parts_of, pcp
from humanpose.evaluate.predictions import (
    IgnoredPerson,
    Matched,
    Predictions,
    boxes_of,
    join_pictures,
)
from humanpose.skeleton import COCO17, MPII16, Skeleton, convert
from humanpose.types import F32, F64, Sample, Score

COMPAT = ("student", "hrnet", "cpm-flic")
_TORSO = {"left_shoulder", "right_hip"}


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The persons of a data set to score on.

    Attributes:
        samples: N persons of one skeleton.
        skeleton: theirs.
        joints: (N, J, 2) picture pixels, NaN = not annotated.
        head: (N,) head sizes, pixels, NaN where there is none.
        area: (N,) square pixels.
        name: of the data set, as given on the command line.
        path: of the data set.
        split: which part `samples` are, or "all".
        whole: all samples of the data set.
        ignored: people whom COCO's scorer ignores, by picture; every picture of the set is a key.
    """

    samples: Sequence[Sample]
    skeleton: Skeleton
    joints: F32
    head: F64
    area: F64
    name: str = ""
    path: Path = Path()
    split: str = "all"
    whole: Sequence[Sample] = ()
    ignored: Mapping[str, Sequence[IgnoredPerson]] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Sequence[Sample], **more: object) -> Truth:
        """Return the arrays of `samples`; `more` are further attributes.

        Raises InputError if they have different skeletons.
        """
        if len({sample.skeleton for sample in samples}) > 1:
            raise InputError(
                "the data has several skeletons; name one of its data sets, as in mpii=PACK.h5"
            )
        return cls(
            samples,
            samples[0].skeleton,
            np.stack([sample.joints for sample in samples]),
            np.array([sample.head_size for sample in samples], np.float64),
            np.array([sample.area for sample in samples], np.float64),
            **more,  # type: ignore[arg-type]
        )

    def allows(self, score: str) -> bool:
        """Return whether the set has the annotations that a score of SCORES needs."""
        return bool(SCORES[score].allows(self))

    @property
    def pictures(self) -> list[str]:
        """N names of the pictures that the persons are in."""
        return [sample.picture.name for sample in self.samples]

    @property
    def own_score(self) -> str:
        """The score that papers give for this data set; pck-torso or pck-box for others."""
        first = OWN_SCORES.get(self.skeleton, "pck-torso")
        return next(score for score in (first, "pck-torso", "pck-box") if self.allows(score))


@dataclass(frozen=True, slots=True)
class Rules:
    """Options of scoring: rules, thresholds and conventions.

    Attributes:
        scores: of SCORES, besides the data set's own.
        thresholds: of PCKh, PCK and PCP in place of the usual ones.
        convention: of "Head" and "Mean", see metrics.pck.
        compat: "" or one of COMPAT, a quirk of an old scorer.

    Raises InputError on an unknown name or a threshold of 0 or less.
    """

    scores: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    convention: str = "mpii"
    compat: str = ""

    def __post_init__(self) -> None:
        if any(threshold <= 0 for threshold in self.thresholds):
            raise InputError("a threshold must be above 0")
        for name, given, allowed in (
            ("score", self.scores, tuple(SCORES)),
            ("convention", (self.convention,), tuple(pck.CONVENTIONS)),
            ("compat", (self.compat,), ("", *COMPAT)),
        ):
            for value in given:
                if value not in allowed:
                    there = ", ".join(filter(None, allowed))
                    raise InputError(f"{name} {value!r} is not known; there are: {there}")


@dataclass(frozen=True, eq=False)
class Comparison:
    """A candidate's joints beside the true ones; everything is computed once, when first asked for.

    Attributes:
        predicted: of each person.
        truth: the persons.
        rules: what to score.
        everything: all predictions with their pictures, for AP; None = those in `predicted`.
    """

    predicted: Matched
    truth: Truth
    rules: Rules = field(default_factory=Rules)
    everything: Predictions | None = None
    _measured: dict[str, tuple[Unit, F64]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def true_joints(self) -> F32:
        """(N, J, 2) true joints without those that the candidate cannot have."""
        return np.where(self.predicted.known[:, None], self.truth.joints, np.float32(np.nan))

    @cached_property
    def similarity(self) -> F64:
        """(N, J) object keypoint similarity of each joint."""
        return similarities(
            self.predicted.joints, self.true_joints, self.truth.area, self.truth.skeleton
        )

    def measured(self, score: str) -> tuple[Unit, F64]:
        """Return the unit of a score of SCORES, and the (N, J) distances in it."""
        if score not in self._measured:
            unit = SCORES[score].unit(self)
            distance = pck.normalised(self.predicted.joints, self.true_joints, unit.size)
            self._measured[score] = unit, distance
        return self._measured[score]

    @property
    def unit(self) -> Unit:
        """The unit of the data set's own score."""
        return self.measured(self.truth.own_score)[0]

    @property
    def distance(self) -> F64:
        """(N, J) distances in `unit`; NaN = not counted, infinite = not predicted."""
        return self.measured(self.truth.own_score)[1]

    @property
    def threshold(self) -> float:
        """Largest distance of a right joint, in `unit`."""
        return (self.rules.thresholds or SCORES[self.truth.own_score].thresholds)[0]

    @cached_property
    def scores(self) -> list[Score]:
        """The data set's own score first, then those asked for that the set has the truth for."""
        return [
            score
            for name in dict.fromkeys((self.truth.own_score, *self.rules.scores))
            if self.truth.allows(name)
            for score in SCORES[name].scores(self, self.rules.thresholds or SCORES[name].thresholds)
        ]

    @cached_property
    def groups(self) -> Score | None:
        """The first score by group of joints; None for OKS."""
        if self.truth.own_score == "oks":
            return None
        return pck.in_groups(self.scores[0], self.unit.joints, convention=self.rules.convention)

    @cached_property
    def interval(self) -> F64:
        """(2, 1 + J) ends of the 95 % interval of the first score and of its joints."""
        distance = self.distance
        counted = (~np.isnan(distance)).astype(np.float64)
        if self.truth.own_score == "oks":
            persons = oks(self.similarity)
            right = np.nan_to_num(np.column_stack([persons, self.similarity]))
            counted = np.column_stack([~np.isnan(persons), counted])
        else:
            hits = pck.within(distance, self.threshold, self.rules.compat)[0].astype(np.float64)
            rows = [name in self.unit.joints for name in self.truth.skeleton.joints]
            right = np.column_stack([hits[:, rows].sum(1), hits])
            counted = np.column_stack([counted[:, rows].sum(1), counted])
        return diagnosis.interval(diagnosis.bootstrap(right, counted, self.truth.pictures))

    @cached_property
    def faults(self) -> tuple[Score, Score]:
        """Shares of joints taken for the other side, and missed."""
        other = self.true_joints[:, self.truth.skeleton.flip_index]
        return diagnosis.swaps_and_misses(
            self.distance,
            pck.normalised(self.predicted.joints, other, self.unit.size),
            self.truth.skeleton,
            threshold=self.threshold,
            names=self.unit.joints,
        )

    @cached_property
    def shift(self) -> F64:
        """(2,) median of predicted minus true joints, pixels: shows an offset of coordinates."""
        apart = (self.predicted.joints - self.true_joints).reshape(-1, 2)
        apart = apart[np.isfinite(apart).all(1)]
        return np.median(apart, axis=0) if len(apart) else np.full(2, np.nan)

    @cached_property
    def reliability(self) -> diagnosis.Reliability | None:
        """Calibration of the joints' scores, where the candidate gives some."""
        if self.predicted.joint_scores is None:
            return None
        return diagnosis.reliability(self.predicted.joint_scores, self.distance, self.threshold)

    def pooled_distances(self) -> F64:
        """(M,) distances of the joints that the first score pools."""
        rows = [name in self.unit.joints for name in self.truth.skeleton.joints]
        each = self.distance[:, rows]
        return np.asarray(each[~np.isnan(each)], np.float64)

    def curve(self, thresholds: F64) -> F64:
        """(T,) share, of the joints that the first score pools, within each of `thresholds`."""
        distance = self.pooled_distances()
        return np.array([(distance <= t).mean() if len(distance) else np.nan for t in thresholds])


class Unit(NamedTuple):
    """The unit of distances, and the joints of the score that is made from them.

    Attributes:
        name: in words.
        size: (N,) of each person, pixels.
        joints: names that the score pools.
    """

    name: str
    size: F64
    joints: tuple[str, ...]


def _head(found: Comparison) -> Unit:
    joints = pck.scored_joints(found.truth.skeleton, found.rules.compat)
    return Unit("head size", found.truth.head, joints)


def _torso(found: Comparison) -> Unit:
    predicted = found.rules.compat == "cpm-flic"
    joints = found.predicted.joints if predicted else found.true_joints
    size = pck.torso_size(joints, found.truth.skeleton)
    return Unit("predicted torso" if predicted else "torso", size, pck.LIMB_JOINTS)


def _box(found: Comparison) -> Unit:
    size = pck.box_size(found.true_joints)
    return Unit("longer side of the joint box", size, found.truth.skeleton.joints)


def _area(found: Comparison) -> Unit:
    size, joints = np.sqrt(found.truth.area), found.truth.skeleton.joints
    return Unit("square root of the person's area", size, joints)


def _pckh(found: Comparison, thresholds: Sequence[float]) -> Iterable[Score]:
    skeleton, compat = found.truth.skeleton, found.rules.compat
    unit, distance = found.measured("pckh")
    each = [pck.pckh(distance, skeleton, threshold=t, compat=compat) for t in thresholds]
    yield each[0]
    limbs, first = pck.LIMB_JOINTS, thresholds[0]
    yield pck.pckh(distance, skeleton, threshold=first, names=limbs, compat=compat)
    yield pck.unweighted(each[0], unit.joints)
    yield from each[1:]
    yield pck.pckh_auc(distance, skeleton)


def _pck(size: str, found: Comparison, thresholds: Sequence[float]) -> Iterable[Score]:
    """Yield PCK by "torso" or "box"."""
    unit, distance = found.measured(f"pck-{size}")
    name, what = ("joint box", "joints") if size == "box" else (unit.name, "limb joints")
    known, joints = ~np.isnan(distance), found.truth.skeleton.joints
    for t in thresholds:
        yield pck.pooled(f"PCK@{t:g} {name}", distance <= t, known, joints, unit.joints, what)


def _pcp(found: Comparison, thresholds: Sequence[float]) -> Iterable[Score]:
    joints = found.predicted.joints, found.true_joints, found.truth.skeleton
    for t in thresholds:
        for observer in (False, True):
            for strict in (True, False):
                yield pcp(*joints, threshold=t, strict=strict, observer=observer)


def _oks(found: Comparison, thresholds: Sequence[float]) -> Iterable[Score]:
    yield mean_oks(found.similarity, found.truth.skeleton, how=found.predicted.rule)


def _ap(found: Comparison, thresholds: Sequence[float]) -> Iterable[Score]:
    truth, everything = found.truth, found.everything
    if everything is None or everything.pictures is None:
        met = np.flatnonzero(np.isfinite(found.predicted.joints).all(-1).any(-1))
        own, names = found.predicted, tuple(truth.samples[int(i)].picture.name for i in met)
        everything = Predictions("", own.joints[met], own.scores[met], truth.skeleton, names)
    predicted = convert(everything.joints, everything.skeleton, truth.skeleton)
    boxes = boxes_of(replace(everything, joints=predicted, skeleton=truth.skeleton))
    extent = boxes[:, 2].astype(np.float64) * boxes[:, 3]
    true_boxes = np.stack([sample.box for sample in truth.samples])
    pictures = []
    for name, theirs, ours in join_pictures(everything, truth.samples, tuple(truth.ignored)):
        rest = truth.ignored.get(name, ())
        jointless = np.full((len(rest), *found.true_joints.shape[1:]), np.nan, np.float32)
        pictures.append(
            PosePicture(
                predicted[theirs],
                everything.scores[theirs],
                extent[theirs],
                np.concatenate([found.true_joints[ours], jointless]),
                np.append(truth.area[ours], [person.area for person in rest]),
                np.concatenate([true_boxes[ours], *([person.box[None] for person in rest])]),
                np.array([False] * len(ours) + [person.crowd for person in rest], bool),
            )
        )
    return keypoint_ap(pictures, truth.skeleton)


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """One entry of SCORES.

    Attributes:
        scores: returns the scores at the given thresholds.
        allows: whether a data set has the annotations that they need.
        thresholds: the usual ones.
        unit: of the distances that it uses; needed if it can be a data set's own score.
    """

    scores: Callable[[Comparison, Sequence[float]], Iterable[Score]]
    allows: Callable[[Truth], object]
    thresholds: tuple[float, ...] = ()
    unit: Callable[[Comparison], Unit] = _box


SCORES = {
    "pckh": ScoreRule(_pckh, lambda t: np.isfinite(t.head).any(), (0.5, 0.2, 0.1), _head),
    "pck-torso": ScoreRule(
        partial(_pck, "torso"), lambda t: _TORSO.issubset(t.skeleton.joints), (0.2,), _torso
    ),
    "pck-box": ScoreRule(partial(_pck, "box"), lambda t: True, (0.2,), _box),
    "pcp": ScoreRule(_pcp, lambda t: "torso" in parts_of(t.skeleton), (0.5,)),
    "oks": ScoreRule(_oks, lambda t: t.skeleton.sigmas is not None, (0.1,), _area),
    "ap": ScoreRule(_ap, lambda t: t.skeleton.sigmas is not None),
}
OWN_SCORES = {MPII16: "pckh", COCO17: "oks"}
