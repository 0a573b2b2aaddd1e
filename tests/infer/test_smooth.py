import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from humanpose.errors import InputError
from humanpose.infer import smooth
from humanpose.infer.options import Kalman, OneEuro, Rts, TrackingOptions, described
from humanpose.infer.smooth import Smoother, smoothed
from humanpose.skeleton import BODY19
from humanpose.types import Frame, Person

SIZE = 200.0
BOX = np.array([0, 0, SIZE, SIZE], np.float32)
IMAGE = np.zeros((4, 4, 3), np.uint8)


def person(joints, scores=0.9, track=1, box=BOX):
    joints = np.asarray(joints, np.float32)
    scores = np.broadcast_to(np.asarray(scores, np.float32), len(joints)).copy()
    return Person(joints, scores, box, 0.9, track, BODY19)


def still(n=19):
    return np.stack([np.linspace(50, 150, n), np.linspace(150, 50, n)], 1)


def run(smoothing, places, times, scores=0.9):
    """Joints (T, J, 2) that come out of `places` (T, J, 2)."""
    scores = np.broadcast_to(np.asarray(scores, np.float32), np.shape(places)[:2])
    frames = (
        Frame(IMAGE, i, float(t), "", (person(places[i], scores[i]),)) for i, t in enumerate(times)
    )
    return np.stack([f.people[0].joints for f in smoothed(frames, smoothing)]).astype(float)


def noisy_motion(rate=30.0, seconds=8.0, seed=0):
    """(times, truth, measured): smooth motion of 19 joints with the noise of the built-in net."""
    rng = np.random.default_rng(seed)
    times = np.arange(0, seconds, 1 / rate)
    phase, speed = rng.uniform(0, 6, (2, 19, 2))
    truth = 100 + 0.2 * SIZE * np.sin(2 * np.pi * (0.3 + speed / 12) * times[:, None, None] + phase)
    return times, truth, truth + rng.normal(size=truth.shape) * 0.006 * SIZE


def jitter(joints):
    return np.linalg.norm(joints[2:] - 2 * joints[1:-1] + joints[:-2], axis=-1).mean()


ALL = [Kalman(), OneEuro(), Rts()]


def test_the_2018_filter_gives_the_figures_of_its_demo():
    out = run(Kalman(compat="2018"), np.full((17, 1, 2), 200.0), np.arange(17) / 30)
    assert np.round(out[:8, 0, 0]).tolist() == [0, 6, 27, 77, 145, 204, 239, 254]
    assert abs(out[15, 0, 0] - 200) > 2 > abs(out[16, 0, 0] - 200)


def test_the_2018_filter_is_opencvs():
    _, _, places = noisy_motion(seconds=2)
    theirs = cv2.KalmanFilter(4, 2)
    theirs.transitionMatrix = np.eye(4, dtype=np.float32) + np.eye(4, k=2, dtype=np.float32)
    theirs.measurementMatrix = np.eye(2, 4, dtype=np.float32)
    theirs.processNoiseCov = 0.03 * np.eye(4, dtype=np.float32)
    theirs.measurementNoiseCov = np.eye(2, dtype=np.float32)
    expected = []
    for place in places[:, 3].astype(np.float32):
        theirs.correct(place[:, None])
        expected.append(theirs.predict()[:2, 0].copy())
    ours = run(Kalman(compat="2018"), places, np.zeros(len(places)))[:, 3]
    assert np.abs(ours - expected).max() < 1e-2


@pytest.mark.parametrize("smoothing", ALL, ids=lambda s: type(s).__name__)
def test_it_starts_where_the_joint_is_and_leaves_a_still_one_alone(smoothing):
    places = np.repeat(still()[None], 20, axis=0)
    out = run(smoothing, places, np.arange(20) / 30)
    assert np.abs(out - places).max() < 1e-3


def test_raw_is_what_was_measured_and_strangers_are_left_alone():
    known, stranger = person(still(), track=4), person(still() + 9, track=None)
    smoother = Smoother(Kalman())
    smoother.update((known,), 0.0)
    moved = replace(known, joints=known.joints + 8)
    out, other = smoother.update((moved, stranger), 1 / 30)
    assert out.raw is moved.joints and other is stranger
    assert (out.joints < moved.joints).all() and out.track == 4
    assert out.scores.tolist() == moved.scores.tolist() and out.box is moved.box


@pytest.mark.parametrize(("rate", "less"), [(10.0, 0.98), (30.0, 0.8), (120.0, 0.5)])
def test_noise_shrinks_at_every_frame_rate_and_no_error_grows(rate, less):
    times, truth, measured = noisy_motion(rate)
    raw = np.linalg.norm(measured - truth, axis=-1).mean()
    errors = {}
    for smoothing in ALL:
        out = run(smoothing, measured, times)
        errors[type(smoothing)] = np.linalg.norm(out - truth, axis=-1).mean()
        assert jitter(out) < less * jitter(measured), smoothing
    assert errors[Rts] < less * raw and errors[Rts] < errors[Kalman] < 0.98 * raw
    assert errors[OneEuro] < 1.2 * raw  # it trades lag for calm


@pytest.mark.parametrize("smoothing", ALL, ids=lambda s: type(s).__name__)
def test_a_larger_picture_of_the_same_motion_is_steadied_alike(smoothing):
    times, _, measured = noisy_motion(seconds=2)
    small = run(smoothing, measured, times)
    frames = (
        Frame(IMAGE, i, t, "", (person(3 * m, box=3 * BOX),))
        for i, (t, m) in enumerate(zip(times, measured, strict=True))
    )
    large = np.stack([f.people[0].joints for f in smoothed(frames, smoothing)])
    assert np.abs(large - 3 * small).max() < 1e-3


def test_the_kalman_filter_follows_an_even_motion_through_uneven_times():
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.01, 0.2, 80))
    truth = still()[None] + np.array([120.0, -60.0]) * times[:, None, None]
    out = run(Kalman(), truth, times)
    assert np.abs(out - truth)[10:].max() < 0.5
    even = run(Kalman(), truth, np.linspace(times[0], times[-1], 80))  # the same, times ignored
    assert np.abs(even - truth)[10:].max() > 5 * np.abs(out - truth)[10:].max()


def test_a_joint_of_low_score_moves_little():
    places = np.repeat(still()[None], 21, axis=0)
    places[-1] += 30
    moved = []
    for score in (0.9, 0.5, 0.2):
        scores = np.full((21, 19), 0.9)
        scores[-1] = score
        moved.append(run(Kalman(), places, np.arange(21) / 30, scores)[-1] - places[0])
    high, middle, low = (m.mean() for m in moved)
    assert 30 > high > 2 * middle > 10 * low > 0


@pytest.mark.parametrize("gap", ["score", "place"])
def test_through_a_gap_a_joint_is_predicted_then_missing_then_begins_anew(gap):
    times = np.arange(60) / 30
    truth = still()[None] + np.array([90.0, 30.0]) * times[:, None, None]
    places, scores = truth.copy(), np.full((60, 19), 0.9, np.float32)
    away = slice(20, 45)  # 0.83 s without joint 2
    places[away, 2] = np.nan if gap == "place" else 0.0
    scores[away, 2] = 0.0 if gap == "place" else 0.02
    places[45:, 2] += 40
    frames = [Frame(IMAGE, i, t, "", (person(places[i], scores[i]),)) for i, t in enumerate(times)]
    for smoothing in (Kalman(), Rts()):
        out = [f.people[0] for f in smoothed(frames, smoothing)]
        joint = np.stack([p.joints[2] for p in out])
        held = int(smoothing.hold * 30)
        assert np.abs(joint[20 : 19 + held] - truth[20 : 19 + held, 2]).max() < 2
        assert np.isnan(joint[20 + held : 45]).all()
        assert all(p.scores[2] == 0 for p in out[20 + held : 45])
        assert np.abs(joint[45:] - places[45:, 2]).max() < 1  # nothing of the old speed or place
        others = np.delete(np.stack([p.joints for p in out]), 2, axis=1)
        assert np.isfinite(others).all()


def test_sides_that_are_exchanged_for_some_frames_are_changed_back():
    """Knees and ankles, 80 px apart, in motion; for longer than `hold` the network is believed."""
    left, right = (
        [BODY19.index(f"{side}_{joint}") for joint in ("knee", "ankle")]
        for side in ("left", "right")
    )
    times = np.arange(90) / 30
    truth = still()[None] + np.array([60.0, 30.0]) * times[:, None, None]
    truth[:, left] += 80
    places = truth.copy()
    for exchanged in (slice(30, 33), slice(60, 90)):
        for one, other in zip(left, right, strict=True):
            places[exchanged, one], places[exchanged, other] = (
                truth[exchanged, other],
                truth[exchanged, one],
            )
    for smoothing in (Kalman(), Rts()):
        out = run(smoothing, places, times)
        held = 60 + int(30 * smoothing.hold)
        assert np.abs(out - truth)[5 : held - 2].max() < 2
        assert np.abs(out - places)[held + 2 :].max() < 2


def test_one_euro_holds_a_joint_for_a_while():
    places = np.repeat(still()[None], 30, axis=0)
    scores = np.full((30, 19), 0.9)
    scores[10:, 2] = 0.0
    places[10:, 2] = np.nan
    out = run(OneEuro(), places, np.arange(30) / 30, scores)[:, 2]
    assert np.abs(out[10:19] - still()[2]).max() < 1e-3 and np.isnan(out[20:]).all()


@pytest.mark.parametrize("smoothing", ALL, ids=lambda s: type(s).__name__)
def test_odd_times_do_no_harm(smoothing):
    """The same time again, a jump ahead, a jump back: figures stay sane and begin anew."""
    times = np.array([0, 1, 1, 1, 2, 3, 300, 301, 302, 10, 11, 11, 12]) / 30
    places = np.repeat(still()[None], len(times), axis=0)
    places[6:9] += 500
    places[9:] -= 300
    frames = [Frame(IMAGE, i, t, "", (person(places[i]),)) for i, t in enumerate(times)]
    out = list(smoothed(frames, smoothing))
    assert [f.index for f in out] == list(range(len(times)))
    assert np.abs(np.stack([f.people[0].joints for f in out]) - places).max() < 1e-2


def test_a_track_that_was_away_begins_anew():
    smoother = Smoother(Kalman())
    for i in range(10):
        smoother.update((person(still() + 5 * i),), i / 30)
    back = person(still() + 300)
    (out,) = smoother.update((back,), 2.0)
    assert np.abs(out.joints - back.joints).max() < 1e-3


def test_rts_is_the_most_likely_motion():
    """Against the dense least-squares solution of the same model, one coordinate at a time."""
    times, _, measured = noisy_motion(rate=20, seconds=0.9)
    scores = np.random.default_rng(3).uniform(0.3, 1, measured.shape[:2])
    settings = Rts()
    out = run(settings, measured, times, scores)
    scores = scores.astype(np.float32).astype(float)
    measured = measured.astype(np.float32).astype(float)
    for joint in (0, 7):
        std = settings.noise * SIZE / scores[:, joint] ** 2
        n = len(times)
        rows, right = [], []
        for k in range(n):  # unknowns: place and speed of every frame
            row = np.zeros(2 * n)
            row[2 * k] = 1
            rows.append(row / std[k])
            right.append(measured[k, joint, 0] / std[k])
        start = np.zeros(2 * n)
        start[1] = 1
        rows.append(start / (2.0 * SIZE))
        right.append(0.0)
        for k in range(1, n):
            dt = times[k] - times[k - 1]
            noise = np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
            weight = np.linalg.inv(np.linalg.cholesky(noise * (settings.agility * SIZE) ** 2))
            step = np.zeros((2, 2 * n))
            step[:, 2 * k : 2 * k + 2] = np.eye(2)
            step[:, 2 * k - 2 : 2 * k] = -np.array([[1, dt], [0, 1]])
            rows.extend(weight @ step)
            right.extend([0.0, 0.0])
        best = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
        assert np.abs(out[:, joint, 0] - best[::2]).max() < 1e-3


def test_one_euro_is_the_papers():
    """Against the scalar filter of the paper, on a joint that moves along x only."""
    s = OneEuro()
    times, _, measured = noisy_motion(seconds=2)
    measured[..., 1] = 0
    values = measured[:, 4, 0].astype(np.float32).astype(float)

    def alpha(cutoff, step):
        return 1 / (1 + 1 / (2 * math.pi * cutoff) / step)

    place, speed, expected = values[0], 0.0, [values[0]]
    for k in range(1, len(values)):
        step = times[k] - times[k - 1]
        a = alpha(s.speed_cutoff, step)
        speed = a * (values[k] - place) / step + (1 - a) * speed
        a = alpha(s.min_cutoff + s.beta * abs(speed) / SIZE, step)
        place = a * values[k] + (1 - a) * place
        expected.append(place)
    assert np.abs(run(s, measured, times)[:, 4, 0] - expected).max() < 1e-3


def test_rts_frames_come_a_second_late_in_order_and_all_of_them():
    taken = []

    def source():
        for i in range(200):
            taken.append(i)
            yield Frame(IMAGE, i, i / 25, "", (person(still() + i),) if i % 50 < 40 else ())

    got = []
    for frame in smoothed(source(), Rts(lag=1.0)):
        got.append(frame.index)
        assert taken[-1] - frame.index <= 26
    assert got == list(range(200))


def test_what_waits_for_rts_is_bounded(monkeypatch):
    """Also where the times stand still, and by the size of the pictures."""
    monkeypatch.setattr(smooth, "_MOST_BYTES", 10 * IMAGE.nbytes)
    for time in (lambda i: 0.0, lambda i: i / 1000):
        taken, got = 0, 0

        def source(time=time):
            nonlocal taken
            for i in range(50):
                taken += 1
                yield Frame(IMAGE, i, time(i), "", (person(still()),))

        for frame in smoothed(source(), Rts()):
            assert frame.index == got and taken - got <= 12
            got += 1
        assert got == 50


def test_frames_before_an_error_of_the_source_come_out():
    def source():
        for i in range(7):
            yield Frame(IMAGE, i, i / 25, "", (person(still()),))
        raise OSError("disk gone")

    got = []
    with pytest.raises(OSError, match="disk gone"):
        got.extend([])
        for frame in smoothed(source(), Rts()):
            got.append(frame.index)
    assert got == list(range(7))


@pytest.mark.parametrize("smoothing", ALL, ids=lambda s: type(s).__name__)
def test_people_are_steadied_each_by_themselves(smoothing):
    times, _, measured = noisy_motion(seconds=2)
    alone = run(smoothing, measured, times)
    frames = (
        Frame(IMAGE, i, t, "", (person(m + 400, track=7), person(m, track=1))[:: (-1) ** i])
        for i, (t, m) in enumerate(zip(times, measured, strict=True))
    )
    for frame, expected in zip(smoothed(frames, smoothing), alone, strict=True):
        one, other = sorted(frame.people, key=lambda p: p.track)
        assert np.abs(one.joints - expected).max() < 1e-3
        assert np.abs(other.joints - expected - 400).max() < 0.05


def test_methods_are_named_and_described():
    assert TrackingOptions(smoothing="none").method(live=True) is None and described(None) is None
    assert described(TrackingOptions(smoothing="rts").method(live=False)) == {
        "method": "rts", "noise": 0.005, "agility": 2.0, "hold": 0.3, "lag": 1.0
    }  # fmt: skip
    assert described(Kalman(compat="2018"))["compat"] == "2018"
    with pytest.raises(InputError, match="smoothing 'average': choose from none, kalman"):
        TrackingOptions(smoothing="average")
    with pytest.raises(InputError, match="is '2018', not '2017'"):
        Kalman(compat="2017")
