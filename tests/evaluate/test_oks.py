"""COCO's scores, of joints and of boxes, held against pycocotools."""

import json
from collections import defaultdict

import numpy as np
import pytest

from humanpose.evaluate.metrics.detection import Picture, average_precision, detection_scores
from humanpose.evaluate.metrics.oks import PosePicture, keypoint_ap, mean_oks, oks, similarities
from humanpose.skeleton import COCO17, LSP14

NONE = np.zeros((0, 4), np.float32)


def people(n: int, skeleton=COCO17) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 200, (n, len(skeleton.joints), 2)).astype(np.float32)


def official(images: list[int], anns: list[dict], dets: list[dict], kind: str):
    """pycocotools' scorer of `dets` against `anns`, one category."""
    coco = pytest.importorskip("pycocotools.coco").COCO
    coco_eval = pytest.importorskip("pycocotools.cocoeval").COCOeval
    truth = coco()
    truth.dataset = {
        "images": [{"id": i} for i in images], "annotations": anns, "info": {},
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
    judge = official(list(range(12)), anns, dets, "keypoints")
    judge.evaluate()
    theirs = [judge.computeOks(i, 1)[0, 0] for i in range(12)]
    assert np.allclose(oks(similarities(found, truth, area, COCO17)), theirs, atol=1e-6)


def coco_with_all_cases(data) -> tuple[dict, list[dict]]:
    """The shared COCO persons, some made crowds or jointless, and perturbed finds of them."""
    content = json.loads((data / "coco" / "person_keypoints.json").read_text())
    rng = np.random.default_rng(0)
    known = {image["id"] for image in content["images"][:900]}
    anns = [ann for ann in content["annotations"] if ann["image_id"] in known]
    dets = []
    for ann in anns:
        joints = np.array(ann["keypoints"], float).reshape(17, 3)
        kind = rng.random()
        if kind < 0.05:
            ann["iscrowd"] = 1
        elif kind < 0.1:
            ann["num_keypoints"], ann["keypoints"] = 0, [0] * 51
        for _ in range(rng.integers(0, 3)):
            found = joints.copy()
            found[:, :2] += rng.normal(0, rng.choice([1, 3, 8, 20]), (17, 2))
            found[:, 2] = 1
            # Two decimals: many finds have the same score, and their order must not matter.
            dets.append({
                "image_id": ann["image_id"], "category_id": 1, "score": round(rng.random(), 2),
                "keypoints": found.ravel().tolist(),
            })  # fmt: skip
    images = [image for image in content["images"] if image["id"] in known]
    return {"images": images, "annotations": anns}, dets


def pose_pictures(content: dict, dets: list[dict]) -> list[PosePicture]:
    """The same in our form, pictures in the order of their ids as COCOeval has them."""
    truth, found = defaultdict(list), defaultdict(list)
    for ann in content["annotations"]:
        truth[ann["image_id"]].append(ann)
    for det in dets:
        found[det["image_id"]].append(det)
    pictures = []
    for number in sorted(image["id"] for image in content["images"]):
        there, here = truth[number], found[number]
        table = np.array([ann["keypoints"] for ann in there], float).reshape(-1, 17, 3)
        ours = np.array([det["keypoints"] for det in here], float).reshape(-1, 17, 3)[..., :2]
        pictures.append(PosePicture(
            ours,
            np.array([det["score"] for det in here]),
            np.ptp(ours, axis=1).prod(-1) if here else np.zeros(0),
            np.where(table[..., 2:] > 0, table[..., :2], np.nan),
            np.array([ann["area"] for ann in there]),
            np.array([ann["bbox"] for ann in there]).reshape(-1, 4),
            np.array([bool(ann["iscrowd"]) for ann in there], bool),
        ))  # fmt: skip
    return pictures


def test_keypoint_ap_equals_the_official_scorer(data, capsys):
    content, dets = coco_with_all_cases(data)
    judge = official([i["id"] for i in content["images"]], content["annotations"], dets,
                     "keypoints")  # fmt: skip
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    ours = keypoint_ap(pose_pictures(content, dets), COCO17)
    assert [score.value for score in ours] == pytest.approx(judge.stats, abs=1e-6)
    assert ours[0].rule == "keypoint AP" and ours[-1].rule == "keypoint AR, large people"
    assert 0.1 < ours[0].value < 0.9


def test_keypoint_ap_without_people_or_finds():
    nobody = PosePicture(
        np.zeros((0, 17, 2)), np.zeros(0), np.zeros(0), people(1, COCO17), np.array([5000.0]),
        np.array([[0.0, 0, 200, 200]]), np.array([False]),
    )  # fmt: skip
    scores = keypoint_ap([nobody], COCO17)
    assert scores[0].value == 0 and scores[5].value == 0
    assert np.isnan(scores[4].value)  # nobody is large
    with pytest.raises(ValueError, match="no OKS constants"):
        similarities(people(1, LSP14), people(1, LSP14), np.ones(1), LSP14)


def test_mean_oks_of_the_truth_is_one_and_of_nothing_zero():
    truth = people(3, COCO17)
    area = np.full(3, 5000.0)
    assert mean_oks(similarities(truth, truth, area, COCO17), COCO17).value == 1
    nothing = np.full_like(truth, np.nan)
    score = mean_oks(similarities(nothing, truth, area, COCO17), COCO17)
    assert score.value == 0 and (score.per_joint == 0).all() and (score.count == 3).all()
    assert np.isnan(mean_oks(similarities(truth, nothing, area, COCO17), COCO17).value)


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
    judge = official(list(range(40)), anns, dets, "bbox")
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
