"""Joints smoothed over time, one filter per track.

Times are seconds of any spacing and lengths are shares of the person's size, so that one setting
serves every frame rate and resolution. `Person.joints` become the smoothed ones, `Person.raw`
holds what was measured.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from humanpose.geometry import box_of_joints
from humanpose.infer.options import Kalman, OneEuro, Rts, Smoothing
from humanpose.skeleton import Skeleton
from humanpose.types import F32, F64, Frame, Person

_LEAST_SCORE = 0.05  # a joint below it was not seen: its place says nothing
_START_SPEED = 2.0  # body sizes per second: a new joint may move as fast as this
_SIZE_TIME = 1.0  # seconds over which the person's size is averaged
_REACH, _BURST = 0.05, 3.0  # body sizes, and those per second: a joint farther off is surprising
_FORGET = 10.0  # seconds after which the filter of a track that is gone is dropped
# What may wait for the RTS smoother, whatever the times say: 240 frames, half a GiB of pictures.
_MOST_FRAMES, _MOST_BYTES = 240, 1 << 29

Bools = NDArray[np.bool_]


class Smoother:
    """Smooths people as they come; for Rts, which needs later frames, see `smoothed`."""

    def __init__(self, smoothing: Kalman | OneEuro) -> None:
        self._smoothing = smoothing
        self._filters: dict[int, _Filter] = {}

    def update(self, people: tuple[Person, ...], time: float) -> tuple[Person, ...]:
        """Smooth those of `people`, from Tracker.update, with a track; `time` of the frame in s."""
        for track in [t for t, f in self._filters.items() if abs(time - f.time) > _FORGET]:
            del self._filters[track]
        return tuple(self._smoothed(person, time) for person in people)

    def _smoothed(self, person: Person, time: float) -> Person:
        if person.track is None:
            return person
        if person.track not in self._filters:
            kind = _OneEuro if isinstance(self._smoothing, OneEuro) else _Kalman
            if isinstance(self._smoothing, Kalman) and self._smoothing.compat == "2018":
                kind = _Kalman2018
            self._filters[person.track] = kind(self._smoothing, person.skeleton)
        return self._filters[person.track].update(person, time)


def smoothed(frames: Iterable[Frame], smoothing: Smoothing | None) -> Iterator[Frame]:
    """Yield all `frames` in order, joints smoothed; with Rts each is `lag` seconds late."""
    if smoothing is None:
        yield from frames
    elif isinstance(smoothing, Rts):
        yield from _late(frames, smoothing)
    else:
        smoother = Smoother(smoothing)
        for frame in frames:
            yield replace(frame, people=smoother.update(frame.people, frame.time))


def _late(frames: Iterable[Frame], smoothing: Rts) -> Iterator[Frame]:
    filters: dict[int, _Kalman] = {}
    waiting: deque[Frame] = deque()
    failure: Exception | None = None
    try:
        for frame in frames:
            while waiting and frame.time < waiting[-1].time:  # jumped back: release these
                yield _released(waiting.popleft(), filters)
            for person in frame.people:
                if person.track is not None:
                    fresh = _Kalman(smoothing, person.skeleton)
                    filters.setdefault(person.track, fresh).update(person, frame.time)
            waiting.append(frame)
            most = min(_MOST_FRAMES, _MOST_BYTES // max(frame.image.nbytes, 1))
            while frame.time - waiting[0].time >= smoothing.lag or len(waiting) > most + 1:
                yield _released(waiting.popleft(), filters)
            for track in [t for t, f in filters.items() if not f.steps]:
                if abs(frame.time - filters[track].time) > smoothing.hold:
                    del filters[track]
    except Exception as error:  # of the source: what came before it is good and goes first
        failure = error
    while waiting:
        yield _released(waiting.popleft(), filters)
    if failure is not None:
        raise failure


def _released(frame: Frame, filters: dict[int, _Kalman]) -> Frame:
    people = (p if p.track is None else filters[p.track].release(p) for p in frame.people)
    return replace(frame, people=tuple(people))


class _Filter:
    """State that the filters of one track share: times of seen joints, size of the person."""

    def __init__(self, smoothing: Any, skeleton: Skeleton) -> None:
        self.settings = smoothing
        self.time = -math.inf
        self.size = 1.0
        self.seen = np.full(len(skeleton.joints), -math.inf)

    def update(self, person: Person, time: float) -> Person:
        """Smooth `person`, from this measurement and those before."""
        if time < self.time:  # the source jumped back
            self.seen[:] = -math.inf
        # After more than `hold` every joint begins anew, however much more it was.
        step = min(max(time - self.time, 0.0), self.settings.hold)
        self.time = time
        measured = np.isfinite(person.joints).all(1) & (person.scores >= _LEAST_SCORE)
        lost = time - self.seen > self.settings.hold
        box = person.box if np.isfinite(person.box).all() else box_of_joints(person.joints)
        size = math.sqrt(max(float(np.nan_to_num(box[2] * box[3])), 1.0))
        share = 1.0 if lost.all() else 1 - math.exp(-step / _SIZE_TIME)
        self.size += share * (size - self.size)
        points = np.where(measured[:, None], person.joints, 0).astype(np.float64)
        places, believed = self.advance(points, person.scores, step, measured, lost)
        self.seen[believed] = time
        return _moved(person, places, believed | ~lost)

    def advance(
        self, points: F64, scores: F32, step: float, measured: Bools, lost: Bools
    ) -> tuple[F64, Bools]:
        """Return joints (J, 2), anything where missing, and whether each measurement is believed.

        Args:
            points: (J, 2) measured places, picture pixels.
            scores: (J,).
            step: seconds since the last call.
            measured: (J,) whether a joint was seen now.
            lost: (J,) whether it had not been seen for long, or never.
        """
        raise NotImplementedError


def _moved(person: Person, places: F64, known: Bools) -> Person:
    """Move joints to `places`, missing where not `known`; the measured ones stay as raw."""
    joints = np.where(known[:, None], places, np.nan).astype(np.float32)
    scores = np.where(known, person.scores, 0).astype(np.float32)
    return replace(person, joints=joints, scores=scores, raw=person.joints)


class _OneEuro(_Filter):
    """places and speeds: (J, 2), pixels and pixels per second."""

    def advance(
        self, points: F64, scores: F32, step: float, measured: Bools, lost: Bools
    ) -> tuple[F64, Bools]:
        """See _Filter."""
        s = self.settings
        new = (measured & lost)[:, None]
        if not hasattr(self, "places"):
            self.places, self.speeds = points, np.zeros_like(points)
        moved = (points - self.places) / max(step, 1e-9)
        speeds = self.speeds + _share(s.speed_cutoff, step) * (moved - self.speeds)
        fast = np.linalg.norm(speeds, axis=1, keepdims=True) / self.size
        places = self.places + _share(s.min_cutoff + s.beta * fast, step) * (points - self.places)
        go_on = (measured & ~lost)[:, None]
        self.places = np.where(new, points, np.where(go_on, places, self.places))
        self.speeds = np.where(new, 0.0, np.where(go_on, speeds, self.speeds))
        return self.places, measured


def _share(cutoff: Any, step: float) -> Any:
    """Return the weight of a new value in a first-order low-pass filter of `cutoff` Hz."""
    turn = 2 * math.pi * cutoff * step
    return turn / (turn + 1)


class _Step(NamedTuple):
    """One frame of a track, as the backward pass of the RTS smoother needs it."""

    mean: F64  # (J, 2, 2) with its measurement
    ahead: F64  # (J, 2, 2) what was predicted for it from the frame before
    gain: F64  # (J, 2, 2) share of what is learned about it that goes to the frame before
    linked: Bools  # (J,) whether the filter came from the frame before; else it began here
    known: Bools  # (J,)


class _Kalman(_Filter):
    """mean (J, 2, 2): place and speed (rows) in x and y (columns). cov (J, 2, 2): of place and
    speed, one for x and y, whose noises are alike.

    Networks exchange left and right for some frames, and the mean of both sides is neither. So two
    joints of a pair that are far from where they should be, but each where the other should be,
    are changed back; after `hold` seconds the network is believed.
    """

    def __init__(self, smoothing: Any, skeleton: Skeleton) -> None:
        super().__init__(smoothing, skeleton)
        joints = len(skeleton.joints)
        self.mean = np.zeros((joints, 2, 2))
        self.cov = np.tile(np.eye(2), (joints, 1, 1))
        self.other = skeleton.flip_index
        self.steps: deque[_Step] = deque()  # for Rts: those that are not released yet

    def advance(
        self, points: F64, scores: F32, step: float, measured: Bools, lost: Bools
    ) -> tuple[F64, Bools]:
        """See _Filter."""
        s = self.settings
        # White acceleration over one step.
        noise = np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
        noise *= (s.agility * self.size) ** 2
        ahead, spread = _predicted(self.mean, self.cov, step, noise)
        # Measured on standing people: the median error goes with 1 / score, the root of the mean
        # square, which counts exchanged limbs, with 1 / score^3.
        variance = (s.noise * self.size / np.maximum(scores, _LEAST_SCORE) ** 2) ** 2
        go_on, new = measured & ~lost, measured & lost
        reach = (_REACH + _BURST * step) * self.size + 3 * np.sqrt(spread[:, 0, 0] + variance)
        far = np.linalg.norm(points - ahead[:, 0], axis=1) > reach
        fits = np.linalg.norm(points[self.other] - ahead[:, 0], axis=1) <= reach
        crossed = go_on & far & fits
        crossed &= crossed[self.other]
        points = np.where(crossed[:, None], points[self.other], points)
        variance = np.where(crossed, variance[self.other], variance)
        mean, cov = _corrected(ahead, spread, points, variance, go_on)
        mean[new, 0], mean[new, 1] = points[new], 0.0
        cov[new] = np.diag([0.0, (_START_SPEED * self.size) ** 2])
        cov[new, 0, 0] = variance[new]
        if isinstance(s, Rts):
            gain = self.cov @ _ahead(step).T @ np.linalg.inv(spread)
            self.steps.append(_Step(mean, ahead, gain, ~lost, measured | ~lost))
        self.mean, self.cov = mean, cov
        return mean[:, 0], measured & ~crossed

    def release(self, person: Person) -> Person:
        """Smooth `person`, the earliest that was not released, with all later frames."""
        mean = self.steps[-1].mean
        for i in range(len(self.steps) - 1, 0, -1):
            later = self.steps[i]
            learned = later.gain @ (mean - later.ahead)
            mean = self.steps[i - 1].mean + np.where(later.linked[:, None, None], learned, 0.0)
        return _moved(person, mean[:, 0], self.steps.popleft().known)


class _Kalman2018(_Kalman):
    def update(self, person: Person, time: float) -> Person:
        """See _Filter; neither times nor scores matter here."""
        if not math.isfinite(self.time):
            self.cov[:] = 0.0
        self.time = time
        seen = np.isfinite(person.joints.sum(axis=1))
        points = np.where(seen[:, None], person.joints, 0).astype(np.float64)
        self.mean, self.cov = _corrected(self.mean, self.cov, points, np.ones(len(seen)), seen)
        self.mean, self.cov = _predicted(self.mean, self.cov, 1.0, 0.03 * np.eye(2))
        return _moved(person, self.mean[:, 0], np.ones(len(seen), bool))


def _ahead(step: float) -> F64:
    return np.array([[1.0, step], [0.0, 1.0]])


def _predicted(mean: F64, cov: F64, step: float, noise: F64) -> tuple[F64, F64]:
    """Predict the state after `step` units of time, which add `noise` (2, 2)."""
    ahead = _ahead(step)
    return ahead @ mean, ahead @ cov @ ahead.T + noise


def _corrected(mean: F64, cov: F64, points: F64, variance: F64, use: Bools) -> tuple[F64, F64]:
    """Take measured `points` (J, 2) of `variance` (J,) into the state where `use` (J,)."""
    gain = cov[:, :, 0] / (cov[:, 0, 0] + variance)[:, None]
    gain = np.where(use[:, None], gain, 0.0)
    off = points - mean[:, 0]
    mean = mean + gain[:, :, None] * off[:, None, :]
    return mean, cov - gain[:, :, None] * cov[:, None, 0, :]
