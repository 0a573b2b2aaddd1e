import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from humanpose import PoseEstimator
from humanpose.errors import InputError
from humanpose.infer.options import Kalman, TrackingOptions
from humanpose.infer.smooth import smoothed
from humanpose.infer.track import Tracker
from humanpose.skeleton import BODY19, LSP14
from humanpose.types import Frame, Person

# A standing person, 19 joints in a box of 0.4 x 1.
STANDING = np.array(
    [[0.2, 0.09], [0.22, 0.07], [0.18, 0.07], [0.25, 0.08], [0.15, 0.08], [0.32, 0.2], [0.08, 0.2],
     [0.37, 0.35], [0.03, 0.35], [0.38, 0.5], [0.02, 0.5], [0.27, 0.52], [0.13, 0.52], [0.27, 0.74],
     [0.13, 0.74], [0.27, 0.96], [0.13, 0.96], [0.2, 0.17], [0.2, 0.0]], np.float32,
)  # fmt: skip


def walker(x, y=100.0, *, height=200.0, score=0.6, joint_score=0.8, seed=0, skeleton=BODY19):
    """A person whose box begins at x, y, as a network with some noise sees it."""
    noise = np.random.default_rng(seed).normal(size=(20, 2)).astype(np.float32) * 0.006 * height
    joints = (STANDING * height + [x, y] + noise[:19])[: len(skeleton.joints)].astype(np.float32)
    box = np.array([*(np.array([x, y]) + noise[19]), 0.4 * height, height], np.float32)
    scores = np.full(len(joints), joint_score, np.float32)
    return Person(joints, scores, box, score, skeleton=skeleton)


def numbers(people):
    return [p.track for p in people]


@pytest.mark.parametrize("rate", [10.0, 30.0])
@pytest.mark.parametrize("hidden", [0.0, 0.7])
def test_two_who_cross_keep_their_numbers(rate, hidden):
    """One walks behind the other and is not found while `hidden` seconds pass."""
    tracker = Tracker(sure=0.2)
    who: dict[str, set[int | None]] = {"front": set(), "behind": set()}
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.7, 1.3, int(6 * rate)) / rate)
    for i, time in enumerate(times):
        front = walker(100 * time, seed=i)
        behind = walker(600 - 100 * time, 85, height=170, seed=1000 + i)
        gone = abs(time - 3) < hidden / 2
        people = (front,) if gone else (front, behind)[:: rng.choice([-1, 1])]
        for person in tracker.update(people, float(time)):
            who["front" if person.box is front.box else "behind"].add(person.track)
    assert sorted(map(list, who.values())) == [[1], [2]]


@pytest.mark.parametrize("rate", [5.0, 60.0])
@pytest.mark.parametrize(("away", "known"), [(1.0, True), (3.0, False)])
def test_how_long_someone_is_remembered_is_real_time(rate, away, known):
    tracker = Tracker()
    for i in range(int(2 * rate)):
        (out,) = tracker.update([walker(50 + 60 * i / rate, seed=i)], i / rate)
    last = (int(2 * rate) - 1) / rate
    for i in range(1, int(away * rate)):
        assert tracker.update([], last + i / rate) == ()
    (back,) = tracker.update([walker(50 + 60 * (last + away), seed=9)], last + away)
    assert out.track == 1 and back.track == (1 if known else 2)


def test_a_number_is_never_used_again():
    tracker = Tracker()
    given = [tracker.update([walker(100 * k)], 10.0 * k)[0].track for k in range(5)]
    assert given == [1, 2, 3, 4, 5]
    given = [tracker.update([walker(100)], t)[0].track for t in (3.0, 3.1, 1000.0, 0.0)]
    assert given == [6, 6, 7, 8]  # jumps back and ahead: all are new


def test_a_newcomer_gets_a_number_when_certain_or_seen_three_times():
    tracker = Tracker(sure=0.2)
    weak = [walker(50, score=0.3, joint_score=0.4, seed=i) for i in range(4)]
    seen = [tracker.update([person, walker(400, seed=i)], i / 10) for i, person in enumerate(weak)]
    assert [numbers(people) for people in seen] == [[None, 1], [None, 1], [2, 1], [2, 1]]
    assert seen[0][0].joints is weak[0].joints  # reported all the same
    # Seen as often, but not in the frames between: strangers.
    tracker = Tracker(sure=0.2)
    for i, person in enumerate(weak):
        assert numbers(tracker.update([person], 1.0 * i)) == [None]
        tracker.update([], 1.0 * i + 0.5)


def test_a_doubtful_find_goes_on_with_a_track_and_starts_none():
    tracker = Tracker(sure=0.2)
    for i in range(5):
        tracker.update([walker(50 + 3 * i, seed=i)], i / 10)
    doubtful = walker(65, score=0.1, joint_score=0.4)
    stranger = walker(400, score=0.19)
    (out,) = tracker.update([stranger, doubtful], 0.5)
    assert out.track == 1 and out.joints is doubtful.joints
    for i in range(10):
        assert numbers(tracker.update([stranger, walker(65)], 0.6 + i / 10)) == [1]


def test_false_finds_get_no_number():
    """Weak boxes here and there; one that stays, whose joints nobody can see."""
    rng = np.random.default_rng(0)
    tracker = Tracker(sure=0.2)
    for i in range(300):
        x, y = rng.uniform(0, 1500, 2)
        flicker = walker(x, y, score=0.4, joint_score=0.4, seed=i)
        chair = walker(2500, score=0.3, joint_score=0.1, seed=i)
        assert numbers(tracker.update([flicker, chair], i / 30)) == [None, None]


def test_two_boxes_on_one_person_are_one_track():
    tracker = Tracker(sure=0.2)
    for i in range(20):
        whole = walker(50, seed=i)
        half = replace(whole, box=whole.box * np.array([1, 1, 1, 0.5], np.float32), score=0.5)
        assert numbers(tracker.update([whole, half], i / 10)) == [1, None]


def test_a_skeleton_without_constants_and_unsure_joints_are_tracked_too():
    tracker = Tracker()
    for i in range(20):
        people = [
            walker(10 * i, seed=i, skeleton=LSP14),
            walker(400 - 10 * i, 400, seed=i, skeleton=LSP14),
        ]
        people[1].joints[3] = np.nan
        people[1].scores[3] = 0
        assert numbers(tracker.update(people, i / 10)) == [1, 2]


def test_who_comes_with_a_number_keeps_it():
    tracker = Tracker()
    tracker.update([walker(0), walker(300)], 0.0)
    swapped = [replace(walker(300), track=1), replace(walker(0), track=2)]
    assert numbers(tracker.update(swapped, 0.1)) == [1, 2]
    assert tracker.settled
    assert [p.box[0] for p in tracker.expected(0.1)] == pytest.approx([300, 0], abs=4)
    tracker.update([walker(300)], 0.2)
    assert not tracker.settled
    assert tracker.expected(5.0) == ()


def test_settings_that_do_not_go_together_are_refused():
    assert (
        TrackingOptions().method(live=False) is None
        and TrackingOptions().method(live=True) == Kalman()
    )
    assert TrackingOptions(track=False).method(live=True) is None
    for wrong in ({"track": False, "smoothing": "rts"}, {"track": False, "detect_every": 2}):
        with pytest.raises(InputError, match="need tracking"):
            TrackingOptions(**wrong)
    with pytest.raises(InputError, match="choose from none"):
        TrackingOptions(smoothing="median")
    with pytest.raises(InputError, match="detect_every must be at least 1"):
        TrackingOptions(detect_every=0)


@pytest.fixture(scope="module")
def estimator():
    return PoseEstimator(precision="float32")


@pytest.fixture
def calls(estimator, monkeypatch):
    """Grows by one with each call of the detector."""
    seen, detect = [], estimator.finder.detector.detect
    monkeypatch.setattr(
        estimator.finder.detector, "detect", lambda *a: seen.append(1) or detect(*a)
    )
    return seen


def test_the_detector_rests_while_everybody_is_where_the_last_pose_says(estimator, calls, data):
    from humanpose.media.sources.video import VideoSource

    with VideoSource(data / "videos" / "dance.mp4") as video:
        frames = [frame for frame, _ in zip(video, range(40), strict=False)]
    every, rested = (list(map(estimator.follower(n), frames)) for n in (1, 8))
    assert len(calls) == 40 + 5
    for one, other in zip(every, rested, strict=True):
        (a,), (b,) = one.people, other.people
        assert a.track == b.track == 1
        sure = np.minimum(a.scores, b.scores) > 0.5
        assert np.median(np.linalg.norm(a.joints - b.joints, axis=1)[sure]) < 0.03 * a.box[3]
        apart = a.box - b.box
        assert np.abs(apart).max() < 0.3 * a.box[3]


@pytest.fixture(scope="module")
def dancer(data):
    """A picture of one person."""
    from humanpose.media.sources.video import VideoSource

    with VideoSource(data / "videos" / "dance.mp4") as video:
        return next(iter(video)).image


def test_the_detector_is_called_at_once_when_somebody_is_lost(estimator, calls, dancer):
    image = dancer
    grey = np.full_like(image, 128)
    seen = [image] * 6 + [grey] * 4 + [image] * 6
    follow = estimator.follower(100)
    found, called = [], []
    for i, picture in enumerate(seen):
        before = len(calls)
        found.append([p.track for p in follow(Frame(picture, i, i / 30)).people])
        called.append(len(calls) > before)
    assert found == [[1]] * 6 + [[]] * 4 + [[1]] * 6
    assert called == [True] + 5 * [False] + 5 * [True] + 5 * [False]


def test_a_doubtful_box_is_looked_at_where_somebody_is_expected(estimator, dancer, monkeypatch):
    frames = [Frame(dancer, i, i / 30) for i in range(2)]
    follow = estimator.follower()
    (first,) = follow(frames[0]).people
    monkeypatch.setattr(estimator.finder.detector, "threshold", 1.3 * first.score)
    (again,) = follow(frames[1]).people
    assert again.track == first.track
    assert estimator.follower()(frames[0]).people == ()


def test_with_a_limit_those_who_are_followed_stay(estimator, dancer, monkeypatch):
    """Two dancers; which of them is found more surely changes."""
    options = replace(estimator.finder.options, max_people=1)
    monkeypatch.setattr(estimator.finder, "options", options)
    follow = estimator.follower()
    blurred = cv2.GaussianBlur(dancer, (0, 0), 8)
    pictures = [np.concatenate(pair, axis=1) for pair in ((dancer, blurred), (blurred, dancer))]
    best = [estimator(picture).people[0].box[0] for picture in pictures]
    assert abs(best[0] - best[1]) > 200
    boxes = []
    for i in range(6):
        (person,) = follow(Frame(pictures[i % 2], i, i / 30)).people
        assert person.track == 1
        boxes.append(person.box)
    assert np.abs(np.array(boxes) - boxes[0]).max() < 40


def test_predict_tracks_smooths_and_says_so(cli, data, tmp_path):
    video = data / "videos" / "dance.mp4"
    options = ("--save", "jsonl", "--frames", "20", "-q")
    assert cli("predict", video, *options, "-o", tmp_path / "a")[0] == 0
    assert cli("predict", video, *options, "-o", tmp_path / "b", "--smoothing", "rts")[0] == 0
    assert cli("predict", video, *options, "-o", tmp_path / "c", "--no-track")[0] == 0
    read = {
        name: list(map(json.loads, (tmp_path / name / "dance.jsonl").read_text().splitlines()))
        for name in "abc"
    }
    assert read["a"][0]["smoothing"] is None and read["c"][0]["smoothing"] is None
    assert read["b"][0]["smoothing"]["method"] == "rts" and read["b"][0]["smoothing"]["lag"] == 1.0
    for name, track in (("a", 1), ("b", 1), ("c", None)):
        assert [frame["index"] for frame in read[name][1:-1]] == list(range(20))
        assert {person["track"] for f in read[name][1:-1] for person in f["people"]} == {track}
    assert all("raw" in person for f in read["b"][1:-1] for person in f["people"])
    assert not any("raw" in person for f in read["a"][1:-1] for person in f["people"])
    code, _, err = cli(
        "predict", video, "--no-track", "--smoothing", "kalman", "-o", tmp_path / "d"
    )
    assert code == 2 and "need tracking" in err and not (tmp_path / "d").exists()


PASSES = [(65, 200), (235, 445), (510, 690), (755, 865), (935, 1190), (1230, 1350)]


def finds(estimator, path):
    """What follower() sees of each frame, without the pictures."""
    small = np.zeros((1, 1, 3), np.uint8)
    return [replace(frame, image=small) for frame in estimator.stream(path)]


def tracked(frames):
    """Numbered afresh."""
    tracker = Tracker(sure=0.2)
    return [
        replace(f, people=tracker.update([replace(p, track=None) for p in f.people], f.time))
        for f in frames
    ]


def spans(frames):
    """Track -> indices of its frames."""
    out: dict[int, list[int]] = {}
    for frame in frames:
        for person in frame.people:
            if person.track is not None:
                out.setdefault(person.track, []).append(frame.index)
    return out


@pytest.mark.slow
def test_the_dancer_is_one_person_and_the_kalman_filter_steadies_her(estimator, data):
    frames = finds(estimator, data / "videos" / "dance.mp4")
    assert {k: len(v) for k, v in spans(frames).items()} == {1: 545}
    raw = np.stack([f.people[0].joints for f in frames]).astype(float)
    out = np.stack([f.people[0].joints for f in smoothed(frames, Kalman())]).astype(float)
    sure = np.stack([f.people[0].scores for f in frames]) > 0.3
    three = sure[2:] & sure[1:-1] & sure[:-2]
    jitter = [
        np.linalg.norm(j[2:] - 2 * j[1:-1] + j[:-2], axis=-1)[three].mean() for j in (raw, out)
    ]
    away = np.linalg.norm(out - raw, axis=-1)
    print(f"\njitter {jitter[0]:.2f} -> {jitter[1]:.2f}, {away[sure].mean():.2f} px from raw")
    assert jitter[1] <= 0.6 * jitter[0]
    assert away[sure].mean() < 2
    assert away[:10][sure[:10]].max() < 3  # no swing at the start
    # A second without her anywhere does not end the track.
    for start in range(20, 500, 24):
        gone = [replace(f, people=()) if start <= f.index < start + 30 else f for f in frames]
        assert set(spans(tracked(gone))) == {1}, start


@pytest.mark.slow
def test_every_walker_is_one_person_also_when_lost_and_among_false_finds(estimator, data):
    frames = finds(estimator, data / "videos" / "walkers.mp4")

    def assert_one_each(found):
        assert len(found) == len(PASSES)
        for (start, end), (number, seen) in zip(PASSES, found.items(), strict=True):
            assert abs(seen[0] - start) <= 10, number
            assert abs(seen[-1] - end) <= 15, number

    assert_one_each(spans(frames))
    rng = np.random.default_rng(0)
    # In the middle of each pass nobody is found for 0.9 s; weak boxes come and go all the time.
    lost = {i for start, end in PASSES for i in range((start + end) // 2, (start + end) // 2 + 9)}
    disturbed = []
    for frame in frames:
        people = () if frame.index in lost else frame.people
        x, y = rng.uniform(0, 600), rng.uniform(0, 300)
        false = walker(x, y, height=150, score=0.35, joint_score=0.3, seed=frame.index)
        people = (*people, false) if rng.random() < 0.2 else people
        disturbed.append(replace(frame, people=people))
    assert_one_each(spans(tracked(disturbed)))


@pytest.mark.slow
def test_a_resting_detector_finds_the_same_walkers(estimator, calls, data):
    frames = list(estimator.stream(data / "videos" / "walkers.mp4", detect_every=5))
    found = spans(frames)
    assert len(found) == len(PASSES)
    assert sum(map(len, found.values())) > 1000 and len(calls) < 700
