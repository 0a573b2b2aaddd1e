"""Scores of predictions and of weights on data sets: runs the networks, chooses the rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from humanpose.data.detection import PersonPicture
from humanpose.data.pack import image_of
from humanpose.errors import InputError
from humanpose.evaluate.metrics import pck
from humanpose.evaluate.metrics.detection import Picture, detection_scores
from humanpose.evaluate.metrics.groups import CONVENTIONS, unweighted
from humanpose.evaluate.metrics.oks import PosePicture, keypoint_ap, mean_oks
from humanpose.evaluate.metrics.pcp import parts_of, pcp
from humanpose.evaluate.predictions import Matched, Predictions, boxes_of, in_skeleton, places_of
from humanpose.evaluate.unscored import Unscored
from humanpose.images import load_image
from humanpose.infer.detector import Detector
from humanpose.infer.topdown import TopDown
from humanpose.skeleton import COCO17, MPII16, Skeleton, convert, joint_map
from humanpose.types import F32, F64, Sample, Score

T = TypeVar("T")
Progress = Callable[[Sequence[T]], Iterable[T]]

# Persons whose figures the project reports for its detector: taller than this, picture pixels.
_TALL = 64.0
SCORES = ("pckh", "pck-torso", "pck-box", "pcp", "oks", "ap")
COMPAT = ("student", "hrnet", "cpm-flic")
_THRESHOLDS = {"pckh": (0.5, 0.2, 0.1), "pck-torso": (0.2,), "pck-box": (0.2,), "pcp": (0.5,)}


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The persons to score on, as arrays.

    Attributes:
        samples: N persons of one skeleton.
        skeleton: theirs.
        joints: (N, J, 2) picture pixels, NaN = not annotated.
        head: (N,) head sizes, NaN where there is none.
        area: (N,) square pixels.
        rest: people whom COCO's scorer ignores, by picture; every picture of the set is a key.
    """

    samples: Sequence[Sample]
    skeleton: Skeleton
    joints: F32
    head: F64
    area: F64
    rest: Mapping[str, Sequence[Unscored]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, samples: Sequence[Sample], rest: Mapping[str, Sequence[Unscored]] | None = None
    ) -> Truth:
        """The arrays of `samples`. Raises InputError if they have different skeletons."""
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
            rest or {},
        )

    def allows(self, score: str) -> bool:
        """Whether there is truth for a score of SCORES."""
        if score == "pckh":
            return bool(np.isfinite(self.head).any())
        if score in ("oks", "ap"):
            return self.skeleton.sigmas is not None
        if score == "pck-torso":
            return {"left_shoulder", "right_hip"}.issubset(self.skeleton.joints)
        return score == "pck-box" or "torso" in parts_of(self.skeleton)

    @property
    def pictures(self) -> list[str]:
        """N names of the pictures that the persons come from."""
        return [sample.picture.name for sample in self.samples]

    @property
    def own_score(self) -> str:
        """The data set's own custom: PCKh for MPII, OKS for COCO, PCK of the torso for others."""
        own = {MPII16: "pckh", COCO17: "oks"}.get(self.skeleton, "pck-torso")
        return next(score for score in (own, "pck-torso", "pck-box") if self.allows(score))

    def as_known_to(self, found: Matched) -> F32:
        """`joints` without those that `found` cannot have: they are not counted."""
        return np.where(found.known[:, None], self.joints, np.float32(np.nan))


@dataclass(frozen=True, slots=True)
class Rules:
    """What to score, and by whose rules.

    Attributes:
        scores: of SCORES, besides the data set's own.
        thresholds: of PCKh, PCK and PCP in place of the usual ones.
        convention: of "Head" and "Mean", see metrics.groups.
        compat: "" or one of COMPAT, the quirk of an old scorer.
    """

    scores: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    convention: str = "mpii"
    compat: str = ""

    def __post_init__(self) -> None:
        if any(threshold <= 0 for threshold in self.thresholds):
            raise InputError("a threshold must be above 0")
        for name, given, allowed in (
            ("score", self.scores, SCORES),
            ("convention", (self.convention,), tuple(CONVENTIONS)),
            ("compat", (self.compat,), ("", *COMPAT)),
        ):
            for value in given:
                if value not in allowed:
                    there = ", ".join(filter(None, allowed))
                    raise InputError(f"{name} {value!r} is not known; there are: {there}")


def estimated(
    estimator: TopDown, samples: Sequence[Sample], *, progress: Progress[Path] = iter
) -> Matched:
    """What a pose network says of each sample, given its annotated box.

    A person whose box has no area (one joint annotated and no box) is a miss.
    """
    groups: dict[Path, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        if np.isfinite(sample.box).all() and (sample.box[2:] > 0).all():
            groups[sample.picture].append(i)
    skeleton, own = samples[0].skeleton, estimator.spec.skeleton
    found = np.full((len(samples), len(own.joints), 2), np.nan, np.float32)
    scores = np.zeros(len(samples), np.float32)
    certainty = np.full(found.shape[:2], np.nan, np.float32)
    for path in progress(sorted(groups)):
        rows = groups[path]
        image = image_of(samples[rows[0]])
        people = estimator.estimate(image, np.stack([samples[i].box for i in rows]))
        for i, person in zip(rows, people, strict=True):
            found[i], scores[i] = person.joints, person.scores.mean()
            certainty[i] = person.scores
    order = joint_map(own, skeleton)
    n = sum(map(len, groups.values()))
    return Matched(
        convert(found, own, skeleton),
        scores,
        order >= 0,
        n,
        "boxes given",
        np.where(order >= 0, certainty[:, order], np.float32(np.nan)),
    )


def pose_scores(
    estimator: TopDown, samples: Sequence[Sample], *, progress: Progress[Path] = iter
) -> list[Score]:
    """The one score of a data set's own custom, on joints the network and the set both know.

    Boxes are the annotated ones.
    """
    found = estimated(estimator, samples, progress=progress)
    return scores_of(found, Truth.of(samples), Rules())[:1]


def scores_of(
    found: Matched, truth: Truth, rules: Rules, everything: Predictions | None = None
) -> list[Score]:
    """The data set's own score first, then its kin, then those asked for.

    Args:
        found: predictions beside the persons.
        truth: the persons.
        rules: what to score.
        everything: all predictions with their pictures, for AP; None = those in `found`.

    A score that this data set has no truth for is left out.
    """
    scores: list[Score] = []
    for name in dict.fromkeys((truth.own_score, *rules.scores)):
        thresholds = rules.thresholds or _THRESHOLDS.get(name, ())
        if name == "ap" and truth.allows(name):
            scores += keypoint_ap(_pictures(found, truth, everything), truth.skeleton)
        elif truth.allows(name):
            scores += _SCORERS[name](found, truth, thresholds, rules.compat)
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """The distances behind the data set's own score.

    Attributes:
        distance: (N, J) in units of `unit`; NaN = not counted, infinite = not predicted.
        size: (N,) the unit of each person, pixels.
        unit: its name.
        threshold: at which a joint is right.
        names: the joints that the score pools.
    """

    distance: F64
    size: F64
    unit: str
    threshold: float
    names: tuple[str, ...]


def measured(found: Matched, truth: Truth, rules: Rules) -> Measure:
    """The distances of `found` in the unit of the data set's own score."""
    own, skeleton = truth.own_score, truth.skeleton
    joints, names = truth.as_known_to(found), skeleton.joints
    if own == "pckh":
        size, unit, names = truth.head, "head size", pck.scored_joints(skeleton, rules.compat)
    elif own == "pck-torso":
        quirk = rules.compat == "cpm-flic"
        size = pck.torso_size(found.joints if quirk else joints, skeleton)
        unit, names = "predicted torso" if quirk else "torso", pck.LIMB_JOINTS
    elif own == "oks":
        size, unit = np.sqrt(truth.area), "square root of the person's area"
    else:
        size, unit = pck.box_size(joints), "longer side of the joint box"
    threshold = (rules.thresholds or _THRESHOLDS.get(own, (0.1,)))[0]
    distance = pck.normalised(found.joints, joints, size)
    return Measure(distance, size, unit, threshold, names)


def _pckh(found: Matched, truth: Truth, thresholds: Sequence[float], compat: str) -> list[Score]:
    distance = pck.normalised(found.joints, truth.as_known_to(found), truth.head)
    each = [pck.pckh(distance, truth.skeleton, threshold=t, compat=compat) for t in thresholds]
    limbs = pck.pckh(
        distance, truth.skeleton, threshold=thresholds[0], names=pck.LIMB_JOINTS, compat=compat
    )
    names = pck.scored_joints(truth.skeleton, compat)
    return [
        each[0],
        limbs,
        unweighted(each[0], names),
        *each[1:],
        pck.pckh_auc(distance, truth.skeleton),
    ]


def _pck_torso(
    found: Matched, truth: Truth, thresholds: Sequence[float], compat: str
) -> list[Score]:
    joints, skeleton = truth.as_known_to(found), truth.skeleton
    quirk = "cpm-flic" if compat == "cpm-flic" else ""
    return [
        pck.pck_torso(found.joints, joints, skeleton, threshold=t, compat=quirk) for t in thresholds
    ]


def _pck_box(found: Matched, truth: Truth, thresholds: Sequence[float], _: str) -> list[Score]:
    joints = truth.as_known_to(found)
    return [pck.pck_box(found.joints, joints, truth.skeleton, threshold=t) for t in thresholds]


def _pcp(found: Matched, truth: Truth, thresholds: Sequence[float], _: str) -> list[Score]:
    joints = truth.as_known_to(found)
    return [
        pcp(found.joints, joints, truth.skeleton, threshold=t, strict=strict, observer=observer)
        for t in thresholds
        for observer in (False, True)
        for strict in (True, False)
    ]


def _oks(found: Matched, truth: Truth, _: Sequence[float], __: str) -> list[Score]:
    joints = truth.as_known_to(found)
    return [mean_oks(found.joints, joints, truth.area, truth.skeleton, how=found.rule)]


def _pictures(found: Matched, truth: Truth, everything: Predictions | None) -> list[PosePicture]:
    """The pictures of the data set as COCO's scorer takes them."""
    if everything is None or everything.pictures is None:
        met = np.flatnonzero(np.isfinite(found.joints).all(-1).any(-1))
        everything = Predictions(
            "",
            found.joints[met],
            found.scores[met],
            truth.skeleton,
            tuple(truth.samples[int(i)].picture.name for i in met),
        )
    everything = in_skeleton(everything, truth.skeleton)
    boxes, joints = boxes_of(everything), truth.as_known_to(found)
    extent = boxes[:, 2].astype(np.float64) * boxes[:, 3]
    own = np.stack([sample.box for sample in truth.samples])
    pictures = []
    for name, theirs, ours in places_of(everything, truth.samples, tuple(truth.rest)):
        rest = truth.rest.get(name, ())
        nobody = np.full((len(rest), *joints.shape[1:]), np.nan, np.float32)
        pictures.append(
            PosePicture(
                everything.joints[theirs],
                everything.scores[theirs],
                extent[theirs],
                np.concatenate([joints[ours], nobody]),
                np.append(truth.area[ours], [person.area for person in rest]),
                np.concatenate([own[ours], *([person.box[None] for person in rest])]),
                np.array([False] * len(ours) + [person.crowd for person in rest], bool),
            )
        )
    return pictures


_SCORERS = {
    "pckh": _pckh,
    "pck-torso": _pck_torso,
    "pck-box": _pck_box,
    "pcp": _pcp,
    "oks": _oks,
}


def person_scores(
    detector: Detector,
    pictures: Sequence[PersonPicture],
    *,
    progress: Progress[PersonPicture] = iter,
    together: Callable[[list[tuple[Picture, Picture]]], list[tuple[Picture, Picture]]] = list,
) -> list[Score]:
    """Recall at the detector's threshold, and AP over all its scores, people above 64 px tall.

    `together` adds what other processes found in their share of the pictures.
    """
    lowest = Detector(detector.runtime, detector.spec, threshold=0.02)
    found = []
    for picture in progress(pictures):
        boxes, scores = lowest.detect(load_image(picture.picture))
        counted = picture.boxes[:, 3] > _TALL
        kept = scores >= detector.threshold
        found.append((
            Picture(boxes, scores, picture.boxes, counted, picture.ignore),
            Picture(boxes[kept], scores[kept], picture.boxes, counted, picture.ignore),
        ))  # fmt: skip
    found = together(found)
    recall, _ = detection_scores([sure for _, sure in found])
    _, precision = detection_scores([every for every, _ in found])
    scale = f"people above {_TALL:g} px"
    return [
        Score(f"{recall.rule}, score >= {detector.threshold:g}, {scale}", recall.value),
        Score(f"{precision.rule}, {scale}", precision.value),
    ]
