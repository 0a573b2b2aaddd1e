import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from humanpose.metrics.detection import Picture, average_precision, detection_scores
from humanpose.metrics.oks import mean_oks, oks
from humanpose.metrics.pck import LIMB_JOINTS, pck_torso
from humanpose.skeleton import COCO17, LSP14, MPII16, convert

NONE = np.zeros((0, 4), np.float32)


def people(n: int = 4, skeleton=LSP14, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    joints = rng.uniform(0, 200, (n, len(skeleton.joints), 2)).astype(np.float32)
    joints[:, skeleton.index("left_shoulder")] = (100, 50)
    joints[:, skeleton.index("right_hip")] = (100, 150)  # torso of 100 px: 0.2 is 20 px
    return joints


def test_pck_by_hand():
    truth = people(2)
    found = truth.copy()
    found[0, LSP14.index("left_wrist")] += (20, 0)  # exactly on the threshold: a hit
    found[1, LSP14.index("left_wrist")] += (20.1, 0)  # beyond it
    found[0, LSP14.index("right_knee")] = np.nan  # missing: a miss
    found[0, LSP14.index("neck")] = 1e6  # not a limb joint
    truth[1, LSP14.index("right_ankle")] = np.nan  # not annotated: not counted
    score = pck_torso(found, truth, LSP14)
    assert score.rule == "PCK@0.2 torso, 12 limb joints"
    assert score.value == pytest.approx((23 - 2) / 23)
    assert score.per_joint[LSP14.index("left_wrist")] == 0.5
    assert score.per_joint[LSP14.index("neck")] == 0.5
    assert score.count[LSP14.index("right_ankle")] == 1


def test_persons_without_torso_or_with_a_tiny_one_are_left_out():
    truth = people(3)
    truth[0, LSP14.index("right_hip")] = np.nan
    truth[1, LSP14.index("right_hip")] = truth[1, LSP14.index("left_shoulder")] + 2
    score = pck_torso(truth, truth, LSP14)
    assert score.count.max() == 1 and score.value == 1
    assert np.isnan(pck_torso(truth[:2], truth[:2], LSP14).value)


@given(move=st.floats(-1000, 1000), seed=st.integers(0, 50))
def test_pck_does_not_care_about_place_scale_or_order_of_joints(move, seed):
    truth = people(5, seed=seed)
    found = truth + np.random.default_rng(seed).normal(0, 15, truth.shape).astype(np.float32)
    base = pck_torso(found, truth, LSP14).value
    # Doubling is exact in floating point, a shift is not: the threshold may lie just on a joint.
    assert pck_torso(found * 2, truth * 2, LSP14).value == base
    assert pck_torso(found + move, truth + move, LSP14).value == pytest.approx(base, abs=0.02)
    there = convert(found, LSP14, MPII16), convert(truth, LSP14, MPII16)
    assert pck_torso(*there, MPII16).value == base


def test_pck_grows_with_the_threshold():
    truth = people(20)
    found = truth + np.random.default_rng(3).normal(0, 20, truth.shape).astype(np.float32)
    values = [pck_torso(found, truth, LSP14, threshold=t).value for t in (0.05, 0.1, 0.2, 0.5)]
    assert values == sorted(values) and values[0] < values[-1]


def test_limb_joints_are_twelve():
    assert len(set(LIMB_JOINTS)) == 12


def official(images: int, anns: list[dict], dets: list[dict], kind: str):
    """pycocotools' scorer of `dets` against `anns`, one category."""
    coco = pytest.importorskip("pycocotools.coco").COCO
    coco_eval = pytest.importorskip("pycocotools.cocoeval").COCOeval
    truth = coco()
    truth.dataset = {
        "images": [{"id": i} for i in range(images)], "annotations": anns, "info": {},
        "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    truth.createIndex()
    return coco_eval(truth, truth.loadRes(dets), kind)


def test_oks_equals_the_official_scorer():
    """pycocotools' own computeOks on random persons, annotated joints missing here and there."""
    rng = np.random.default_rng(0)
    truth = people(12, COCO17)
    truth[rng.random((12, 17)) < 0.3] = np.nan
    truth[:, 3] = (40, 40)  # everyone has at least one joint
    found = np.nan_to_num(truth, nan=7.0) + rng.normal(0, 8, truth.shape).astype(np.float32)
    area = rng.uniform(500, 30000, 12)
    anns, dets = [], []
    for i in range(12):
        known = ~np.isnan(truth[i]).any(-1)
        flat = np.concatenate([np.nan_to_num(truth[i]), 2.0 * known[:, None]], 1).ravel()
        ours = np.concatenate([found[i], np.ones((17, 1))], 1).ravel()
        anns.append({
            "id": i + 1, "image_id": i, "category_id": 1, "keypoints": flat.tolist(),
            "num_keypoints": int(known.sum()), "area": float(area[i]), "iscrowd": 0,
            "bbox": [0, 0, 200, 200],
        })  # fmt: skip
        dets.append({"image_id": i, "category_id": 1, "keypoints": ours.tolist(), "score": 1.0})
    judge = official(12, anns, dets, "keypoints")
    judge.evaluate()
    theirs = [judge.computeOks(i, 1)[0, 0] for i in range(12)]
    assert np.allclose(oks(found, truth, area, COCO17), theirs, atol=1e-6)


def test_mean_oks_of_the_truth_is_one_and_of_nothing_zero():
    truth = people(3, COCO17)
    area = np.full(3, 5000.0)
    assert mean_oks(truth, truth, area, COCO17).value == 1
    nothing = np.full_like(truth, np.nan)
    score = mean_oks(nothing, truth, area, COCO17)
    assert score.value == 0 and (score.per_joint == 0).all() and (score.count == 3).all()
    assert np.isnan(mean_oks(truth, nothing, area, COCO17).value)


def picture(boxes, scores, truth, counted=None, ignore=None) -> Picture:
    truth = np.array(truth, np.float32).reshape(-1, 4)
    return Picture(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        truth,
        np.ones(len(truth), bool) if counted is None else np.array(counted),
        NONE if ignore is None else np.array(ignore, np.float32),
    )


A, B, FAR = [0, 0, 10, 10], [100, 0, 10, 10], [300, 300, 9, 9]


def test_detection_by_hand():
    # One person found, a second find of the same person is false, one person is missed.
    recall, ap = detection_scores([picture([A, A], [0.9, 0.8], [A, B])])
    assert recall.value == 0.5
    assert ap.value == pytest.approx(51 / 101)  # precision 1 up to recall 0.5
    # A better-scored false find halves the precision.
    _, ap = detection_scores([picture([FAR, A], [0.9, 0.8], [A])])
    assert ap.value == pytest.approx(0.5)


def test_people_not_counted_and_places_to_ignore_cost_nothing():
    recall, ap = detection_scores(
        [picture([A, B, FAR], [0.9, 0.8, 0.7], [A, B], [True, False], [[290, 290, 40, 40]])]
    )
    assert recall.value == 1 and ap.value == pytest.approx(1)


def test_ap_equals_the_official_scorer():
    """pycocotools at IoU 0.5 on random pictures."""
    rng = np.random.default_rng(5)
    pictures, anns, dets = [], [], []
    for i in range(40):
        truth = np.concatenate([rng.uniform(0, 200, (4, 2)), rng.uniform(20, 80, (4, 2))], 1)
        found = truth[:3] + rng.normal(0, 6, (3, 4))
        found = np.concatenate([found, rng.uniform(10, 90, (3, 4))]).astype(np.float32)
        scores = np.sort(rng.uniform(0, 1, 6).astype(np.float32))[::-1]
        found = found[rng.permutation(6)]
        pictures.append(picture(found, scores, truth))
        for box in truth:
            anns.append({
                "id": len(anns) + 1, "image_id": i, "category_id": 1, "bbox": box.tolist(),
                "area": float(box[2] * box[3]), "iscrowd": 0,
            })  # fmt: skip
        for box, score in zip(found, scores, strict=True):
            dets.append({
                "image_id": i, "category_id": 1, "bbox": box.tolist(), "score": float(score)
            })  # fmt: skip
    judge = official(40, anns, dets, "bbox")
    judge.evaluate()
    judge.accumulate()
    theirs = judge.eval["precision"][0, :, 0, 0, 2].mean()
    recall, ap = detection_scores(pictures)
    assert ap.value == pytest.approx(theirs, abs=1e-6)
    assert recall.value == pytest.approx(judge.eval["recall"][0, 0, 0, 2], abs=1e-6)


def test_nothing_found_is_zero_and_nothing_to_find_an_error():
    recall, ap = detection_scores([picture([], [], [A])])
    assert recall.value == 0 and ap.value == 0
    assert average_precision(np.zeros(0), 3) == 0
    with pytest.raises(ValueError, match="no annotated person"):
        detection_scores([picture([A], [0.5], [])])
