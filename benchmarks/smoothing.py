"""Jitter and lag of the smoothing methods, beside each other: a heavy filter always wins on one.

    python benchmarks/smoothing.py [VIDEO ...]

Made-up motions, of which the truth is known: smooth ones, swings of 0.25 s, runs that stop dead,
seen with the noise of the built-in network (measured on standing people) and now and then wholly
wrong. Then real videos, where "from raw" is how far the output lies from what was measured.
Jitter is the mean acceleration in pixels per frame^2, of joints with scores above 0.3.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from humanpose import PoseEstimator
from humanpose.infer.options import Kalman, OneEuro, Rts, Smoothing
from humanpose.infer.smooth import smoothed
from humanpose.skeleton import BODY19
from humanpose.types import F32, F64, Frame, Person

METHODS: dict[str, Smoothing | None] = {
    "none": None,
    "kalman": Kalman(),
    "one-euro": OneEuro(),
    "rts": Rts(),
    "kalman, compat 2018": Kalman(compat="2018"),
}
SIZE = 250.0  # body size, pixels
RATE = 30.0  # frames/s
SURE = 0.3
MOTIONS = ("smooth", "swings", "stops")
_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)


def motions(times: F64, rng: np.random.Generator) -> F64:
    """(T, 19, 2) true places; joint j moves by MOTIONS[j % 3]."""
    out = np.empty((len(times), 19, 2))
    for joint in range(19):
        for axis in range(2):
            kind, sign = MOTIONS[joint % 3], rng.choice([-1, 1])
            if kind == "smooth":
                slow, fast = rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.3)  # Hz
                waves = (np.sin(2 * np.pi * f * times + rng.uniform(0, 6)) for f in (slow, fast))
                move = sum(rng.uniform(0.05, 0.15) * wave for wave in waves)
            elif kind == "swings":  # there and back, each with the least jerk, every 1.5 s
                u = np.clip((times[:, None] - np.arange(0.7, times[-1], 1.5)) / 0.25, 0, 1)
                each = u**3 * (10 - 15 * u + 6 * u**2)
                there = (-1.0) ** np.arange(each.shape[1])
                move = sign * rng.uniform(0.3, 0.7) * (each * there).sum(1)
            else:  # 1 s at 0.8 body sizes/s, 1 s still, and back
                phase = (times + rng.uniform(0, 4)) % 4
                move = sign * 0.8 * np.clip(np.minimum(phase, 3 - phase), 0, 1)
            out[:, joint, axis] = rng.uniform(100, 400) + SIZE * move
    return out


def measured(truth: F64, rng: np.random.Generator) -> tuple[F32, F32]:
    """Joints and scores as a network might find them."""
    scores = np.clip(rng.beta(8, 2, truth.shape[:2]), 0.15, 0.98)
    noise = rng.normal(size=truth.shape) * (0.0045 * SIZE / scores)[..., None]
    wrong = rng.random(scores.shape) < 0.08 * (1 - scores)
    noise += np.where(wrong[..., None], rng.normal(size=truth.shape) * 0.15 * SIZE, 0)
    scores = np.where(wrong, 0.6 * scores, scores)
    return (truth + noise).astype(np.float32), scores.astype(np.float32)


def frames_of(joints: F32, scores: F32, times: F64) -> list[Frame]:
    """Frames with one person of track 1."""
    box = np.array([0, 0, SIZE, SIZE], np.float32)
    return [
        Frame(_NO_IMAGE, i, float(t), "", (Person(joints[i], scores[i], box, 1.0, 1, BODY19),))
        for i, t in enumerate(times)
    ]


def jitter(joints: F64, scores: F32) -> float:
    """Mean acceleration of joints (T, J, 2), pixels per frame^2."""
    away = np.linalg.norm(joints[2:] - 2 * joints[1:-1] + joints[:-2], axis=-1)
    sure = scores > SURE
    counted = sure[2:] & sure[1:-1] & sure[:-2] & np.isfinite(away)
    return float(away[counted].mean())


def lag(joints: F64, truth: F64, times: F64) -> float:
    """Milliseconds by which `truth` has to come later to lie nearest to `joints`."""

    def apart(shift: float) -> float:
        late = [
            np.interp(times - shift, times, truth[:, j, a])
            for j in range(truth.shape[1])
            for a in range(2)
        ]
        off = np.stack(late, -1).reshape(len(times), -1, 2) - joints
        return float(np.nanmean(np.linalg.norm(off, axis=-1)[30:-10]))  # after any start-up

    return 1000 * min(np.arange(-0.05, 0.3, 0.002), key=apart)


def synthetic() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(0, 20, 1 / RATE)
    truth = motions(times, rng)
    frames = frames_of(*measured(truth, rng), times)
    scores = np.stack([f.people[0].scores for f in frames])
    print(f"Made-up motions, {RATE:.0f} frames/s, body size {SIZE:.0f} px")
    print(f"{'':20} jitter  of raw" + "".join(f"   {m:>8}: error    lag" for m in MOTIONS))
    usual = jitter(np.stack([f.people[0].joints for f in frames]).astype(float), scores)
    for name, method in METHODS.items():
        out = [f.people[0] for f in smoothed(frames, method)]
        joints = np.stack([p.joints for p in out]).astype(float)
        row = f"{name:20} {jitter(joints, scores):6.2f} {jitter(joints, scores) / usual:6.0%} "
        for k in range(len(MOTIONS)):
            part, true = joints[:, k::3], truth[:, k::3]
            error = np.nanmean(np.linalg.norm(part - true, axis=-1))
            row += f"   {error:12.2f} px {lag(part, true, times):3.0f} ms"
        print(row)
    print(f"{'the truth':20} {jitter(truth, scores):6.2f}\n")


def tracks_of(frames: Iterable[Frame]) -> dict[int, list[Person]]:
    """Each track's people, in order."""
    tracks: dict[int, list[Person]] = defaultdict(list)
    for frame in frames:
        for person in frame.people:
            if person.track is not None:
                tracks[person.track].append(person)
    return tracks


def of_video(path: Path) -> None:
    stream = PoseEstimator().stream(path)
    frames = [replace(frame, image=_NO_IMAGE) for frame in stream]
    print(f"{path.name}: {len(frames)} frames, tracks {[*tracks_of(frames)]}")
    print(f"{'':20} jitter  of raw   from raw: mean   95 %   worst of the first 10 frames")
    usual = 0.0
    for name, method in METHODS.items():
        jitters, lengths, aways, starts = [], [], [], []
        for people in tracks_of(smoothed(frames, method)).values():
            joints = np.stack([p.joints for p in people]).astype(float)
            raw = np.stack([p.joints if p.raw is None else p.raw for p in people])
            scores = np.stack([p.scores for p in people])
            if len(people) > 2:
                jitters.append(jitter(joints, scores))
                lengths.append(len(people))
            away = np.where(scores > SURE, np.linalg.norm(joints - raw, axis=-1), np.nan)
            aways.append(away[np.isfinite(away)])
            starts.append(np.nanmax(away[:10]))
        mean = float(np.average(jitters, weights=lengths))
        usual = usual or mean
        away = np.concatenate(aways)
        print(
            f"{name:20} {mean:6.2f} {mean / usual:6.0%}   {away.mean():12.2f} px"
            f"{np.percentile(away, 95):7.2f} {max(starts):12.2f} px"
        )
    print()


def main(videos: Sequence[str]) -> None:
    synthetic()
    for video in videos:
        of_video(Path(video))


if __name__ == "__main__":
    main(sys.argv[1:])
