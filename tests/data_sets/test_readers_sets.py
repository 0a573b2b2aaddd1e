import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from makers.data import structs, write_flic, write_lsp
from scipy.io import savemat

from humanpose.data.readers import read
from humanpose.data.readers.common import head_size_of_joints
from humanpose.data.readers.lsp import head_boxes
from humanpose.errors import FormatError, InputError, LimitError
from humanpose.skeleton import COCO17, FLIC9, LSP14


def write_labelme(file: Path, *objects: tuple[str, str, list[tuple[float, float]]]) -> None:
    """Objects are (name, deleted, points)."""
    entries = "".join(
        f"<object><name>{name}</name><deleted>{deleted}</deleted><verified>0</verified><polygon>"
        + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points)
        + "</polygon></object>"
        for name, deleted, points in objects
    )
    size = "<imagesize><nrows>9</nrows><ncols>9</ncols></imagesize>"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation><filename>{file.stem}.jpg</filename>{entries}{size}</annotation>")


def test_lsp_hides_what_its_flag_marks(tmp_path):
    table = write_lsp(tmp_path, n=1002)
    for path in (tmp_path, tmp_path / "joints.mat"):
        samples = read("lsp", path)
        first = samples[0]
        assert first.skeleton == LSP14 and first.picture == tmp_path / "images" / "im0001.jpg"
        assert np.allclose(first.joints, table[:2, :, 0].T - 1, atol=1e-5)
        assert first.visible[4] == 1 and np.delete(first.visible, 4).tolist() == [2] * 13
        assert [s.split for s in samples[998:]] == ["train", "train", "test", "test"]
    readme = read("lsp", tmp_path, compat="readme")[0]
    assert readme.visible[4] == 2 and np.delete(readme.visible, 4).tolist() == [1] * 13
    with pytest.raises(InputError, match="compat is 'readme', not 'other'"):
        read("lsp", tmp_path, compat="other")
    with pytest.raises(InputError, match="read in one way only"):
        read("coco", tmp_path, compat="readme")


def test_lsp_refuses_the_shape_of_lspet(tmp_path):
    (tmp_path / "images").mkdir()
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((14, 3, 5))})
    with pytest.raises(FormatError, match=r"joints are \(14, 3, 5\), not 3 x 14 x N"):
        read("lsp", tmp_path)


def test_lsp_takes_head_boxes_where_they_are_drawn(tmp_path):
    write_lsp(tmp_path)
    file = tmp_path / "Annotations" / "lsp" / "im0001.xml"
    write_labelme(file, ("head", "0", [(11, 21), (41, 21), (41, 61), (11, 61)]))
    drawn, other = read("lsp", tmp_path)
    assert drawn.head_size == pytest.approx(0.6 * 50)
    assert other.head_size == pytest.approx(head_size_of_joints(other.joints, LSP14))
    head, neck = (other.joints[LSP14.index(name)] for name in ("head_top", "neck"))
    assert other.head_size == pytest.approx(0.75 * np.linalg.norm(head - neck))


def test_labelme_boxes_span_the_polygon_of_what_is_not_deleted(tmp_path):
    skewed = [(20, 5), (31, 15), (19, 26), (8, 16)]  # points 1 and 3 alone give a 1 px sliver
    write_labelme(tmp_path / "im0001.xml", ("head", "0", skewed))
    # Several objects: the old parser kept the box of the file before.
    stray, mended = [(90, 90), (99, 99)], [(51, 61), (71, 61), (71, 91)]
    write_labelme(tmp_path / "im0002.xml", ("head", "1", stray), ("head", "0", mended))
    write_labelme(tmp_path / "im0003.xml", ("head", "1", stray))
    write_labelme(tmp_path / "sub" / "im0004.xml", ("head", "0", mended), ("ball", "0", stray))
    boxes = {name: box.tolist() for name, box in head_boxes(tmp_path).items()}
    assert boxes == {
        "im0001": [8, 5, 23, 21], "im0002": [51, 61, 20, 30], "im0004": [51, 61, 20, 30],
    }  # fmt: skip


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>'


@pytest.mark.parametrize("text", ["<annotation>", "", BOMB, "<a><object><polygon><pt/>"])
def test_labelme_refuses_what_is_not_or_would_grow(tmp_path, text):
    (tmp_path / "im0001.xml").write_text(text)
    with pytest.raises(FormatError, match=r"im0001\.xml"):
        head_boxes(tmp_path)


def test_labelme_refuses_a_point_without_place_and_a_huge_file(tmp_path):
    file = tmp_path / "im0001.xml"
    for x in ("", "nan", "1e9", "left"):
        write_labelme(file, ("head", "0", [(x, 1), (5, 5)]))
        with pytest.raises(FormatError, match=r"im0001\.xml"):
            head_boxes(tmp_path)
    file.write_bytes(b" " * (17 << 20))
    with pytest.raises(LimitError, match=r"im0001\.xml"):
        head_boxes(tmp_path)


def test_flic_keeps_nine_joints_and_its_own_left_and_right(tmp_path):
    coords = write_flic(tmp_path)
    first, second = read("flic", tmp_path)
    assert first.skeleton == FLIC9 and first.picture == tmp_path / "images" / "film-1.jpg"
    assert (first.joints == coords[:, [0, 1, 2, 3, 4, 5, 6, 9, 16]].T - 1).all()
    assert (first.split, second.split) == ("train", "test")
    assert first.origin == ("flic", "1") and np.isnan(first.head_size)
    assert first.centre.tolist() == [30, 50] and first.scale == pytest.approx(1.1)
    assert second.joints[3, 0] > second.joints[0, 0]  # left alone
    observed = read("flic", tmp_path, compat="cpm")
    assert (observed[0].joints == first.joints).all()
    assert (observed[1].joints == second.joints[FLIC9.flip_index]).all()
    with pytest.raises(InputError, match="compat is 'cpm', not 'oc'"):
        read("flic", tmp_path, compat="oc")


def test_flic_refuses_another_struct(tmp_path):
    savemat(tmp_path / "examples.mat", {"examples": structs([{"coords": np.zeros((2, 3))}])})
    with pytest.raises(FormatError, match=r"examples\.mat: damaged"):
        read("flic", tmp_path)


def coco_file(file: Path, categories: object = None, **person: object) -> None:
    annotation = {"id": 5, "image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 99.0}
    annotation |= {"keypoints": [10.0, 20.0, 2] * 17} | person
    content = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [annotation]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | ({"categories": categories} if categories else {})))


def test_coco_as_it_is_distributed(tmp_path):
    for part in ("train2017", "val2017"):
        (tmp_path / part).mkdir()
        coco_file(tmp_path / "annotations" / f"person_keypoints_{part}.json")
    samples = read("coco", tmp_path)
    assert [s.split for s in samples] == ["train", "validation"]
    assert [s.picture.parent.name for s in samples] == ["train2017", "val2017"]


def test_ones_own_keypoints_make_a_skeleton(tmp_path):
    names = ["nose", "Left paw", "Right paw", "l_ear", "r_ear", "tail_left", "leftover"]
    horse = {"id": 3, "name": "horse", "keypoints": names, "skeleton": [[1, 2], [1, 3]]}
    rider = {"id": 4, "name": "rider"}  # boxes only
    points = [10.0, 20.0, 2] * 6 + [0, 0, 0]
    file = tmp_path / "horses.json"
    coco_file(file, [horse, rider], keypoints=points, category_id=3)
    content = json.loads(file.read_text())
    first = content["annotations"][0]
    del first["bbox"], first["area"]  # as some tools write it
    content["annotations"].append({"id": 6, "image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]})
    file.write_text(json.dumps(content))
    (sample,) = read("coco", file)
    assert sample.skeleton.joints == tuple(names) and sample.skeleton.name == "horse7"
    assert sample.skeleton.pairs == ((1, 2), (3, 4)) and sample.skeleton.sigmas is None
    assert sample.skeleton.limbs == ((0, 1), (0, 2))
    assert sample.box.tolist() == [10, 20, 0, 0] and np.flatnonzero(sample.visible == 0) == [6]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 1, "keypoints": ["a", "a"]}], "name comes twice"),
        ([{"id": 1, "keypoints": ["a"], "skeleton": [[1, 9]]}], "beyond 1"),
        ([{"id": 1, "keypoints": ["a"]}, {"id": 2, "keypoints": ["b"]}], "different keypoints"),
        ([{"keypoints": ["a"]}], "not one of keypoints"),
        ([7], "not one of keypoints"),
    ],
)
def test_false_categories_are_one_clear_error(tmp_path, categories, message):
    coco_file(tmp_path / "own.json", categories)
    with pytest.raises(FormatError, match=rf"own\.json.*{message}"):
        read("coco", tmp_path / "own.json")


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "b\\..\\..\\a.jpg", "C:/a.jpg", ""])
def test_picture_names_stay_in_the_folder(tmp_path, name):
    coco_file(tmp_path / "own.json")
    content = json.loads((tmp_path / "own.json").read_text())
    content["images"][0]["file_name"] = name
    (tmp_path / "own.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="is not the name of a picture in the set"):
        read("coco", tmp_path / "own.json")


def write_yolo(folder: Path, settings: str, line: str, picture: str = "images/train/a.jpg") -> Path:
    labels = folder / picture.replace("images", "labels").replace(".jpg", ".txt")
    for file in (folder / picture, labels):
        file.parent.mkdir(parents=True, exist_ok=True)
    content = cv2.imencode(".jpg", np.zeros((50, 100, 3), np.uint8))[1].tobytes()
    (folder / picture).write_bytes(content)
    labels.write_text(line)
    (folder / "data.yaml").write_text(settings)
    return labels


THREE = "train: images/train\nkpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nnames: {0: person}\n"
PERSON = "0 0.5 0.5 0.4 0.8 0.25 0.5 2 0.5 0.5 1 0 0 0\n"


def test_yolo_lines_become_pixels(tmp_path):
    write_yolo(tmp_path, f"path: ../somewhere/else\n{THREE}", f"{PERSON}\n{PERSON}")
    (tmp_path / "images" / "train" / "nobody.jpg").write_bytes(b"not looked at")
    for path in (tmp_path, tmp_path / "data.yaml"):
        first, second = read("yolo", path)
    assert first.joints[:2].tolist() == [[25, 25], [50, 25]] and np.isnan(first.joints[2]).all()
    assert first.visible.tolist() == [2, 1, 0] and first.split == "train"
    assert np.allclose(first.box, [30, 5, 40, 40])
    assert first.skeleton.pairs == ((1, 2),) and first.skeleton.joints[1] == "joint_1"
    assert [s.origin[1] for s in (first, second)] == ["a/1", "a/2"]


def test_yolo_with_names_lists_and_two_numbers_a_joint(tmp_path):
    settings = "path: .\nval: list.txt\nkpt_shape: [3, 2]\nflip_idx: [0, 2, 1]\n"
    settings += "kpt_names:\n  0: [nose, right_eye, left_eye]\n"
    write_yolo(tmp_path, settings, "0 0.5 0.5 0.4 0.8 0.25 0.5 0.5 0.5 0 0\n", "images/v/a.jpg")
    (tmp_path / "list.txt").write_text("./images/v/a.jpg\n")
    (sample,) = read("yolo", tmp_path)
    assert sample.skeleton.joints == ("nose", "right_eye", "left_eye")
    assert sample.skeleton.pairs == ((2, 1),)  # the left one first, as its name says
    assert sample.visible.tolist() == [2, 2, 0] and sample.split == "validation"


def test_yolo_with_seventeen_joints_is_coco(tmp_path):
    flip = COCO17.flip_index.tolist()
    settings = f"train: ../images/train\nkpt_shape: [17, 3]\nflip_idx: {flip}\n"
    write_yolo(tmp_path, settings, "0 0.5 0.5 0.4 0.8 " + "0.5 0.5 2 " * 17)
    assert read("yolo", tmp_path)[0].skeleton == COCO17


@pytest.mark.parametrize(
    ("settings", "line", "message"),
    [
        ("train: [", PERSON, r"data\.yaml: not YAML"),
        ("train: images/train", PERSON, "no kpt_shape"),
        (THREE.replace("[3, 3]", "[3, 4]"), PERSON, "not a YOLO-pose set"),
        (THREE.replace("[0, 2, 1]", "[1, 2, 0]"), PERSON, "does not exchange joints in pairs"),
        (THREE + "kpt_names: [[a, b]]", PERSON, "2 kpt_names for 3 joints"),
        (THREE.replace("images/train", "/etc"), PERSON, "'/etc' is not the name"),
        (THREE.replace("images/train", "a/../../b"), PERSON, "is not the name"),
        (THREE.replace("images/train", "images/other"), PERSON, "is not there"),
        (THREE, "0 1 2\n", r"a\.txt, line 1: not a person \(3 numbers, not 14\)"),
        (THREE, PERSON + PERSON.replace("0.25", "left"), r"a\.txt, line 2: not a person"),
        (THREE, PERSON.replace("0.25", "nan"), r"a\.txt, line 1: not a person"),
        (THREE, PERSON.replace("0.25", "1e9"), r"a\.txt: a joint lies beyond"),
        (THREE, "", "no labelled person"),
    ],
)
def test_a_false_yolo_set_is_one_clear_error(tmp_path, settings, line, message):
    write_yolo(tmp_path, settings, line)
    with pytest.raises(InputError, match=message):
        read("yolo", tmp_path)
