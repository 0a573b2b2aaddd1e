"""Files of predictions: what is read, whose person each prediction is, and MPII's submission."""

import json

import h5py
import numpy as np
import pytest
from makers.evaluate import samples, struct, structs
from scipy.io import loadmat, savemat

from humanpose.data.readers.coco import load_annotations
from humanpose.errors import FormatError, InputError
from humanpose.evaluate.predictions import (
    SUFFIXES,
    Predictions,
    ignored_people,
    match,
    read_predictions,
)
from humanpose.evaluate.submission import write_submission
from humanpose.results import coco_annotations, coco_categories, coco_image, header, to_line
from humanpose.skeleton import COCO17, FLIC9, LSP14, MPII16
from humanpose.types import Frame, Person, Sample


def arrays(n: int = 5, joints: int = 16) -> np.ndarray:
    """1-based predictions (n, joints, 2), one missing as (0, 0), one as NaN."""
    found = np.random.default_rng(0).uniform(1, 300, (n, joints, 2))
    found[0, 0] = 0
    found[1, 1] = np.nan
    return found


@pytest.mark.parametrize("form", ["h5", "turned h5", "mat", "turned mat", "mat 7.3"])
def test_preds_come_in_either_order_of_axes_and_count_from_one(tmp_path, form):
    table = arrays()
    turned = np.transpose(table, (2, 1, 0))
    stored = turned if "turned" in form or "7.3" in form else table
    path = tmp_path / ("preds.h5" if form.endswith("h5") else "preds.mat")
    if form.endswith("mat"):
        savemat(path, {"preds": stored, "other": np.zeros(3)})
    else:
        # MATLAB's version 7.3 is HDF5 behind a block of its own.
        with h5py.File(path, "w", userblock_size=512 if "7.3" in form else 0) as file:
            file["preds"] = stored
    found = read_predictions(path)
    assert found.skeleton == MPII16 and found.joints.shape == (5, 16, 2)
    assert np.isnan(found.joints[0, 0]).all() and np.isnan(found.joints[1, 1]).all()
    assert found.joints[2] == pytest.approx(table[2] - 1, abs=1e-4)
    assert found.pictures is None and (found.scores == 1).all()


def test_cpms_released_predictions_of_lsp_and_flic(tmp_path):
    for joints, skeleton, kind in ((14, LSP14, np.uint8), (9, FLIC9, np.uint16)):
        table = np.nan_to_num(arrays(7, joints)).clip(0, 255).astype(kind)
        savemat(tmp_path / "p.mat", {"prediction_all": np.transpose(table, (1, 2, 0))})
        found = read_predictions(tmp_path / "p.mat")
        assert found.skeleton == skeleton
        assert np.array_equal(found.joints[2], table[2].astype(np.float32) - 1)


def test_two_people_are_not_taken_for_x_and_y(tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["preds"] = arrays(2)
    assert read_predictions(tmp_path / "p.h5").joints.shape == (2, 16, 2)


def test_what_is_no_file_of_predictions_is_named_in_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("1 2")
    savemat(tmp_path / "none.mat", {"other": np.zeros(3)})
    savemat(tmp_path / "shape.mat", {"preds": np.zeros((4, 15, 2))})
    savemat(tmp_path / "text.mat", {"preds": np.array(["a"])})
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 600)
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"x" * 600)
    (tmp_path / "number.json").write_text("5")
    (tmp_path / "short.json").write_text('[{"image_id": 1, "keypoints": [1, 2, 3], "score": 1}]')
    (tmp_path / "nan.json").write_text(
        json.dumps([{"image_id": 1, "keypoints": [1] * 51, "score": float("nan")}])
    )
    far = [{"image_id": 1, "keypoints": [1e39, 1, 1] * 17, "score": 1}]
    (tmp_path / "far.json").write_text(json.dumps(far))
    for name, said in (
        ("gone.h5", "no such file"),
        ("gone.json", "no such file"),
        ("gone.jsonl", "no such file"),
        ("far.json", "a joint lies beyond 100,000 pixels"),
        ("a.txt", ", ".join(SUFFIXES)),
        ("none.mat", "no array preds or prediction_all"),
        ("shape.mat", r"preds is \(4, 15, 2\)"),
        ("text.mat", "no table of numbers"),
        ("broken.h5", "damaged"),
        ("broken.mat", "damaged"),
        ("number.json", "neither COCO's list"),
        ("short.json", "neither COCO's list"),
        ("nan.json", "a score is not a number"),
    ):
        with pytest.raises(InputError, match=said) as raised:
            read_predictions(tmp_path / name)
        assert name in str(raised.value) and "\n" not in str(raised.value)


def test_rows_belong_to_the_part_or_to_the_whole_set():
    whole = samples(4, split="train") + samples(6)
    part = whole[4:]
    table = np.stack([sample.joints for sample in whole])
    for rows in (table, table[4:]):
        found = Predictions("p", rows, np.ones(len(rows), np.float32), MPII16)
        matched = match(found, part, whole)
        assert np.array_equal(matched.joints, table[4:])
        assert matched.matched == 6 and matched.rule == "matched by row" and matched.known.all()
    found = Predictions("p.h5", table[:5], np.ones(5, np.float32), MPII16)
    with pytest.raises(InputError, match=r"p\.h5 has 5 rows, but 6 persons .* \(or 10, all"):
        match(found, part, whole)


def results_of(people: list[Sample], **more: object) -> list[dict]:
    rows = np.stack([sample.joints for sample in people])
    flat = np.concatenate([rows, np.ones((*rows.shape[:2], 1))], axis=2).reshape(len(rows), -1)
    return [
        {"image_id": int(sample.picture.stem), "category_id": 1, "keypoints": row.tolist(),
         "score": 0.5, **{k: v(sample) for k, v in more.items()}}
        for sample, row in zip(people, flat, strict=True)
    ]  # fmt: skip


def test_coco_results_go_by_the_number_of_the_picture_and_by_iou(tmp_path):
    people = samples(6, COCO17)
    content = results_of(people[::-1])[:-1]  # in another order, the first person is missing
    content.append({**content[0], "image_id": 77})  # a picture that the set does not have
    content[0]["keypoints"][0:3] = [0, 0, 0]
    (tmp_path / "r.json").write_text(json.dumps(content))
    found = read_predictions(tmp_path / "r.json")
    assert found.numbered and found.pictures[-1] == "77"
    matched = match(found, people, people)
    assert matched.rule == "matched by IoU >= 0.5, one to one" and matched.matched == 5
    assert np.isnan(matched.joints[0]).all() and matched.scores[0] == 0
    assert np.isnan(matched.joints[5, 0]).all()
    assert np.array_equal(matched.joints[3], people[3].joints)
    strangers = [{**entry, "image_id": 1000} for entry in content]
    (tmp_path / "r.json").write_text(json.dumps(strangers))
    with pytest.raises(InputError, match=r"none of its pictures is in the data set \(COCO's"):
        match(read_predictions(tmp_path / "r.json"), people, people)


def test_iou_is_one_to_one_and_the_greatest_first():
    (person, other, _) = samples(3, COCO17)
    close = person.joints + 3
    joints = np.stack([close, person.joints, other.joints + 1000])
    found = Predictions(
        "p", joints, np.array([0.9, 0.1, 0.5], np.float32), COCO17, (person.picture.name,) * 3
    )
    matched = match(found, [person, other], [person, other])
    assert np.array_equal(matched.joints[0], person.joints) and matched.matched == 1
    assert matched.scores[0] == np.float32(0.1)
    nobody = Predictions("p", joints[:0], np.zeros(0, np.float32), COCO17, ())
    matched = match(nobody, [person, other], [person, other])
    assert matched.matched == 0 and np.isnan(matched.joints).all()


def frames_of(people: list[Sample]) -> list[dict]:
    frames = {}
    for sample in people:
        person = Person(sample.joints, np.ones(len(sample.joints), np.float32), sample.box, 0.5,
                        skeleton=sample.skeleton)  # fmt: skip
        frames.setdefault(sample.picture.name, []).append(person)
    image = np.zeros((400, 400, 3), np.uint8)
    return [
        Frame(image, i, 0.0, f"folder/{name}", tuple(group)).to_dict()
        for i, (name, group) in enumerate(frames.items())
    ]


def test_our_record_and_our_json_give_the_same_people(tmp_path):
    people = samples(6)
    frames = frames_of(people)
    frames[0]["people"][1]["joints"][2] = None
    lines = [header(MPII16, [], "folder"), *frames]
    (tmp_path / "r.jsonl").write_bytes(b"".join(map(to_line, lines)))
    content = {
        "categories": coco_categories(MPII16),
        "images": [coco_image(frame, i) for i, frame in enumerate(frames)],
        "annotations": [a for i, f in enumerate(frames) for a in coco_annotations(f, 10 * i, i)],
    }
    (tmp_path / "r.json").write_text(json.dumps(content))
    for name in ("r.jsonl", "r.json"):
        found = read_predictions(tmp_path / name)
        assert found.skeleton == MPII16 and not found.numbered
        matched = match(found, people, people)
        assert matched.matched == 6 and "IoU" in matched.rule
        assert np.isnan(matched.joints[1, 2]).all()
        assert matched.joints[4] == pytest.approx(people[4].joints, abs=0.01)


def test_records_that_name_annotations_need_no_boxes(tmp_path):
    people = samples(6)
    frames = frames_of(people)
    names = iter(sample.origin[1] for sample in people[::-1])
    for person in (p for frame in frames for p in frame["people"]):
        person["annotation"], person["box"] = next(names), None
    lines = [header(MPII16, [], "folder"), *frames]
    (tmp_path / "r.jsonl").write_bytes(b"".join(map(to_line, lines)))
    matched = match(read_predictions(tmp_path / "r.jsonl"), people, people)
    assert matched.rule == "matched by annotation" and matched.matched == 6
    assert matched.joints[0] == pytest.approx(people[5].joints, abs=0.01)


def test_joints_of_another_skeleton_are_known_by_name():
    people = samples(2, LSP14)
    table = np.stack([sample.joints for sample in samples(2)])
    matched = match(Predictions("p", table, np.ones(2, np.float32), MPII16), people, people)
    assert matched.joints.shape == (2, 14, 2) and matched.known.all()
    neck = matched.joints[0, LSP14.index("neck")]
    assert np.array_equal(neck, table[0, MPII16.index("upper_neck")])
    coco = match(Predictions("p", np.zeros((2, 17, 2), np.float32), np.ones(2, np.float32), COCO17),
                 people, people)  # fmt: skip
    assert coco.known.sum() == 12


def test_what_coco_scores_ignore(tmp_path):
    joints = [1, 2, 2] * 17
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 11, 22)],
        "annotations": [
            {"id": 1, "image_id": 11, "iscrowd": 1, "bbox": [0, 0, 9, 9], "keypoints": joints},
            {"id": 2, "image_id": 11, "num_keypoints": 0, "bbox": [1, 1, 4, 4], "area": 7},
            {"id": 3, "image_id": 11, "num_keypoints": 17, "bbox": [0, 0, 9, 9]},
            {"id": 4, "image_id": 1, "num_keypoints": 0, "bbox": [1, 1, 4, 4]},
        ],
    }
    path = tmp_path / "person_keypoints.json"
    path.write_text(json.dumps(content))
    found = ignored_people(load_annotations(tmp_path), "validation")
    assert sorted(found) == ["11.jpg", "22.jpg"] and not found["22.jpg"]
    assert [(each.crowd, each.area) for each in found["11.jpg"]] == [(True, 81.0), (False, 7.0)]
    assert len(ignored_people(load_annotations(tmp_path), "all")) == 3
    content["annotations"][1].pop("bbox")
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="not a COCO keypoints file"):
        ignored_people(load_annotations(tmp_path), "all")


def test_the_submission_has_the_shape_of_the_releases_test_part(tmp_path):
    rectangle = struct(scale=1.0, objpos=struct(x=10.0, y=20.0))
    release = struct(
        annolist=structs(
            struct(annorect=structs(rectangle)),
            struct(annorect=structs(rectangle, rectangle, rectangle)),
            struct(annorect=np.zeros((0, 0))),
            struct(annorect=structs(rectangle)),
        ),
        img_train=np.array([[1, 0, 0, 0]]),
        single_person=np.array([[np.zeros((0, 0))], [np.array([[1], [3]])], [np.zeros((0, 0))],
                                [np.array([[1]])]], object),
    )  # fmt: skip
    savemat(tmp_path / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    people = samples(5)[3:]  # "2/1", "2/2"
    joints = np.stack([sample.joints for sample in people])
    joints[0, MPII16.index("thorax")] = np.nan
    joints[1] = np.nan
    joints[1, 0] = (4, 5)
    out = tmp_path / "pred_keypoints_mpii.mat"
    assert write_submission(out, tmp_path, people, joints) == (2, 3)
    pred = loadmat(out, squeeze_me=True, struct_as_record=False)["pred"]
    assert len(pred) == 3 and len(pred[0].annorect) == 3
    points = pred[0].annorect[0].annopoints.point
    assert [point.id for point in points] == list(range(16))
    assert (points[5].x, points[5].y) == pytest.approx(tuple(joints[0, 5] + 1))
    middle = joints[0, MPII16.index("left_shoulder")] + joints[0, MPII16.index("right_shoulder")]
    assert points[7].x == pytest.approx(middle[0] / 2 + 1)
    only = pred[0].annorect[1].annopoints.point
    assert (only.x, only.y, only.id) == (5, 6, 0)
    assert pred[0].annorect[2].annopoints.size == 0
    assert pred[2].annorect.annopoints.size == 0
    with pytest.raises(InputError, match="not a test picture of"):
        write_submission(out, tmp_path, samples(1), joints[:1])
    with pytest.raises(InputError, match="no such file"):
        write_submission(out, tmp_path / "gone", people, joints)
