"""Who is who over time: finds joined to tracks; boxes from the last pose, the detector resting.

Times are seconds of any spacing, in order; how long a person may be out of sight is counted in
them, not in frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from humanpose.geometry import box_of_joints, iou, similarity
from humanpose.infer.topdown import PeopleFinder
from humanpose.types import F32, F64, Frame, Person

_MEMORY = 1.5  # seconds out of sight after which a person is forgotten
_DOUBT = 0.25  # the same for a newcomer without a number; unless seen in the frame before
_SIGHTS = 3  # of a doubtful newcomer, before it gets a number
_BELIEVED, _CERTAIN = 0.25, 0.5  # belief in a find: that counts as a sight; that is enough alone
_ALIKE, _QUITE_ALIKE = 0.2, 0.3  # least likeness of a track and a sure find, and a doubtful one
_SAME = 0.8  # similarity above which two finds are the same person's joints
_SPEED_TIME = 0.3  # seconds over which a track's speed is averaged
_FADE = 1.0  # seconds in which the speed of a person out of sight falls to 37 %
_SIGMA = 0.07  # of every joint, COCO's mean, where the skeleton has no constants
_SHOWN = 0.2  # joints below this score do not tell where a person is
_SHRUNK = 0.7  # IoU of the joints' box with the box before, below which joints have been lost
_DROP = 0.75  # share of the mean joint score after a detection, below which they have been too
_MARGIN = 0.05  # a person reaches so far beyond its joints, as a share of their longer side


@dataclass(slots=True)
class _Track:
    """One person over time; `number` is None until the find is believed."""

    person: Person
    time: float
    number: int | None = None
    sights: int = 0
    speed: F64 = field(default_factory=lambda: np.zeros(2))  # of the box's middle, pixels / s

    def see(self, person: Person, time: float) -> None:
        step = time - self.time
        if step > 0:
            moved = (_middle(person.box) - _middle(self.person.box)) / step
            self.speed -= math.expm1(-step / _SPEED_TIME) * (moved - self.speed)
        self.person, self.time = person, time

    def at(self, time: float) -> Person:
        """Move the person on at its speed, which fades: out of sight it may have stopped."""
        lasts = _FADE * -math.expm1(-max(time - self.time, 0.0) / _FADE)
        shift = (self.speed * lasts).astype(np.float32)
        box = np.concatenate([self.person.box[:2] + shift, self.person.box[2:]])
        joints = self.person.joints + shift
        return replace(self.person, joints=joints, box=box, track=self.number)


class Tracker:
    """Numbers people, from 1; a number is never used again.

    Sure finds are joined to tracks first, then doubtful ones to those that are left (ByteTrack,
    Zhang et al., ECCV 2022), each time by the assignment that makes them most alike in all. A
    newcomer gets a number when it is certain or was seen three times; until then its track is
    None.

    Args:
        sure: person score below which a find is doubtful: it can go on with a track, not start one.
    """

    def __init__(self, *, sure: float = 0.0) -> None:
        self._sure = sure
        self._tracks: list[_Track] = []
        self._time = -math.inf
        self._last = 0

    @property
    def settled(self) -> bool:
        """Return whether all people of late have numbers and were seen in the last update."""
        seen = [t.number is not None and t.time == self._time for t in self._tracks]
        return bool(seen) and all(seen)

    def expected(self, time: float) -> tuple[Person, ...]:
        """Return the numbered people where they should be at `time`, less those forgotten then."""
        return tuple(
            t.at(time)
            for t in self._tracks
            if t.number is not None and abs(time - t.time) <= _MEMORY
        )

    def update(self, people: Sequence[Person], time: float) -> tuple[Person, ...]:
        """Return `people` of the next frame with tracks, in order; doubtful strangers are left out.

        Args:
            people: found in the frame; one who comes with the number of a track has it.
            time: of the frame, seconds. After a jump of more than `_MEMORY`, forwards or back,
                all are new.
        """
        before, self._time = self._time, time
        self._tracks = [
            t
            for t in self._tracks
            if abs(time - t.time) <= _MEMORY
            and (t.number is not None or t.time == before or abs(time - t.time) <= _DOUBT)
        ]
        known = [t for t in self._tracks if t.number is not None]
        found = {i: t for i, p in enumerate(people) for t in known if t.number == p.track}
        sure = [i for i, person in enumerate(people) if person.score >= self._sure]
        doubtful = [i for i, person in enumerate(people) if person.score < self._sure]
        new = [t for t in self._tracks if t.number is None]
        for tracks, which, least in (
            (known, sure, _ALIKE),
            (known, doubtful, _QUITE_ALIKE),
            (new, sure, _QUITE_ALIKE),
        ):
            left = [t for t in tracks if all(t is not other for other in found.values())]
            found.update(_joined(left, people, [i for i in which if i not in found], time, least))
        for i in sure:
            if i not in found and not any(_same(people[i], people[k]) for k in found):
                found[i] = _Track(people[i], time)
                self._tracks.append(found[i])
        for i, track in found.items():
            self._see(track, people[i], time)
        kept = sorted({*sure, *found})
        return tuple(
            replace(people[i], track=found[i].number if i in found else None) for i in kept
        )

    def _see(self, track: _Track, person: Person, time: float) -> None:
        track.see(person, time)
        belief = math.sqrt(max(person.score, 0.0) * float(person.scores.mean()))
        track.sights += belief >= _BELIEVED
        if track.number is None and (belief >= _CERTAIN or track.sights >= _SIGHTS):
            self._last += 1
            track.number = self._last


def _joined(
    tracks: list[_Track], people: Sequence[Person], which: list[int], time: float, least: float
) -> dict[int, _Track]:
    """Return index in `people` -> its track, for those of `which` that are alike enough to one."""
    if not tracks or not which:
        return {}
    from scipy.optimize import linear_sum_assignment  # 0.2 s, that pictures need not wait for

    alike = _likeness([t.at(time) for t in tracks], [people[i] for i in which])
    rows, columns = linear_sum_assignment(np.where(alike >= least, alike, 0.0), maximize=True)
    return {
        which[column]: tracks[row]
        for row, column in zip(rows, columns, strict=True)
        if alike[row, column] >= least
    }


def _likeness(expected: Sequence[Person], people: Sequence[Person]) -> F64:
    """Return (T, N) in [0, 1]: mean of the IoU of the boxes and the OKS of the joints.

    Joints count by their scores: those of a pose that is not sure of itself say little.
    """
    boxes = np.stack([p.box for p in expected])
    near = iou(boxes, np.stack([p.box for p in people]))
    oks, trust = _oks(expected, people)
    return np.asarray((near + trust * oks) / (1 + trust), np.float64)


def _oks(expected: Sequence[Person], people: Sequence[Person]) -> tuple[F64, F64]:
    """Return (T, N) similarity of the joints and how far it can be trusted, both in [0, 1]."""
    skeleton = people[0].skeleton
    sigmas = np.array(skeleton.sigmas or [_SIGMA] * len(skeleton.joints))
    area = np.stack([p.box[2] * p.box[3] for p in expected])[:, None]
    each = similarity(
        np.stack([p.joints for p in people]),
        np.stack([p.joints for p in expected])[:, None],
        area,
        sigmas,
    )
    scores = np.stack([p.scores for p in expected])[:, None] * np.stack([p.scores for p in people])
    weight = np.where(np.isnan(each), 0.0, np.sqrt(scores))
    total = (weight * np.nan_to_num(each)).sum(-1)
    return total / np.maximum(weight.sum(-1), 1e-9), weight.mean(-1)


def _same(a: Person, b: Person) -> bool:
    """Return whether two finds have the joints of one and the same person."""
    return bool(_oks([a], [b])[0][0, 0] > _SAME)


def _middle(box: F32) -> F64:
    return np.asarray(box[:2] + box[2:] / 2, np.float64)


class VideoTracker:
    """Frames one after another -> the same with numbered people.

    Doubtful finds are kept only where a person is expected whom no sure find shows. With `every`
    above 1 the detector rests in between: boxes come from the last pose, moved on. It runs at
    once when a person is lost, doubtful or new, and for every frame without people.

    Args:
        finder: finds the people of one frame.
        every: frames from one run of the detector to the next.
    """

    def __init__(self, finder: PeopleFinder, *, every: int = 1) -> None:
        self._finder = finder
        self._every = every
        self._tracker = Tracker(sure=finder.threshold)
        self._rest = 0  # frames for which the detector may still rest
        self._usual: dict[int | None, float] = {}  # number -> mean joint score when detected

    def __call__(self, frame: Frame) -> Frame:
        """Return `frame` with the people found in it; call it in the order of time."""
        people = self._from_last(frame) if self._rest > 0 else None
        self._rest -= 1
        if people is None:
            people = self._finder.find(frame.image, self._tracker.expected(frame.time))
            people = self._tracker.update(people, frame.time)
            self._usual = {p.track: float(p.scores.mean()) for p in people}
            self._rest = self._every - 1 if self._tracker.settled else 0
        return replace(frame, people=people)

    def _from_last(self, frame: Frame) -> tuple[Person, ...] | None:
        """Return the people found where they are expected; None if that leaves a doubt."""
        expected = self._tracker.expected(frame.time)
        if not expected:
            return None
        size = (frame.image.shape[1], frame.image.shape[0])
        before = np.stack([p.box for p in expected])
        boxes = np.stack([_shown_box(p, size) for p in expected])
        if not _alike(boxes, before):
            return None
        placed = [replace(p, box=box) for p, box in zip(expected, boxes, strict=True)]
        found = self._finder.find(frame.image, placed, detect=False)
        people = [replace(person, box=_shown_box(person, size)) for person in found]
        if (
            not _alike(np.stack([p.box for p in people]), before)
            or any(p.scores.mean() < _DROP * self._usual[p.track] for p in people)
            or any(_same(a, b) for i, a in enumerate(people) for b in people[:i])
        ):
            return None  # of the last: two boxes have slid onto one person
        return self._tracker.update(people, frame.time)


def _alike(boxes: F32, before: F32) -> bool:
    """Return whether each box (N, 4) still shows the person that was there before, not a part."""
    return bool((np.diagonal(iou(boxes, before)) > _SHRUNK).all())


def _shown_box(person: Person, size: tuple[int, int]) -> F32:
    """Return the box (4,) around joints that are seen, within the picture; no size without any."""
    seen = np.where((person.scores >= _SHOWN)[:, None], person.joints, np.nan)
    x, y, width, height = np.nan_to_num(box_of_joints(seen, margin=_MARGIN))
    low = np.clip([x, y], 0, size)
    high = np.clip([x + width, y + height], 0, size)
    return np.concatenate([low, high - low]).astype(np.float32)
