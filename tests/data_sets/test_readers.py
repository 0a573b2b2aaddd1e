import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from humanpose.data.readers import read
from humanpose.errors import FormatError, InputError, MissingExtraError
from humanpose.skeleton import COCO17, LSP14


def write_lspet(folder: Path, n: int = 3) -> np.ndarray:
    """A tiny set in the original layout; returns its table (14, 3, n), 1-based."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    table = rng.uniform(1, 100, (14, 3, n))
    table[:, 2] = 1
    table[3, 2, 0] = 0  # one joint not annotated
    table[:, 2, -1] = 0  # a picture without joints
    savemat(folder / "joints.mat", {"joints": table})
    return table


def write_coco(folder: Path, changes: dict[str, object] | None = None) -> Path:
    (folder / "images").mkdir(parents=True)
    keypoints = [float(v) for i in range(17) for v in (10 + i, 20 + i, 2)]
    keypoints[:3] = [0.0, 0.0, 0.0]
    person = {
        "id": 5, "image_id": 22, "iscrowd": 0, "num_keypoints": 16, "keypoints": keypoints,
        "bbox": [8, 18, 30, 40], "area": 700.0,
    }  # fmt: skip
    crowd = person | {"id": 6, "iscrowd": 1}
    bare = person | {"id": 7, "num_keypoints": 0}
    other = person | {"id": 8, "image_id": 23}
    content = {
        "images": [{"id": 22, "file_name": "a.jpg"}, {"id": 23, "file_name": "b.jpg"}],
        "annotations": [person | (changes or {}), crowd, bare, other],
    }
    file = folder / "person_keypoints_tiny.json"
    file.write_text(json.dumps(content))
    return file


def test_lspet_comes_back_zero_based_with_gaps_and_split(tmp_path):
    table = write_lspet(tmp_path)
    samples = read("lspet", tmp_path)
    assert len(samples) == 2  # the empty one is left out
    first = samples[0]
    assert first.skeleton == LSP14 and first.picture.name == "im00001.jpg"
    assert np.isnan(first.joints[3]).all() and first.visible[3] == 0
    assert np.allclose(first.joints[0], table[0, :2, 0] - 1, atol=1e-4)
    low, high = np.nanmin(first.joints, 0), np.nanmax(first.joints, 0)
    margin = 0.1 * (high - low).max()
    assert np.allclose(first.box, [*(low - margin), *(high - low + 2 * margin)], atol=1e-3)


def test_lspet_of_another_shape_or_damaged_is_one_clear_error(tmp_path):
    (tmp_path / "images").mkdir()
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((3, 14, 5))})
    with pytest.raises(FormatError, match=r"joints\.mat: joints are \(3, 14, 5\)"):
        read("lspet", tmp_path)
    savemat(tmp_path / "joints.mat", {"other": np.zeros(3)})
    with pytest.raises(FormatError, match=r"joints\.mat: damaged or not what it should be"):
        read("lspet", tmp_path)
    (tmp_path / "joints.mat").write_bytes(b"MATLAB 5.0" + bytes(range(256)) * 4)
    with pytest.raises(FormatError, match=r"joints\.mat: damaged"):
        read("lspet", tmp_path)


def test_lspet_needs_its_folder(tmp_path):
    with pytest.raises(InputError, match="no folder images/"):
        read("lspet", tmp_path)


def test_coco_leaves_out_crowds_and_persons_without_keypoints(tmp_path):
    file = write_coco(tmp_path)
    for path in (file, tmp_path):
        samples = read("coco", path)
        assert [s.origin for s in samples] == [("coco", "5"), ("coco", "8")]
    first, second = samples
    assert first.skeleton == COCO17 and first.picture == tmp_path / "images" / "a.jpg"
    assert np.isnan(first.joints[0]).all() and first.joints[1].tolist() == [11, 21]
    assert first.box.tolist() == [8, 18, 30, 40] and first.area == 700
    assert (first.split, second.split) == ("validation", "train")  # 22 is divisible by 11


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoints": [1, 2, 2]},
        {"image_id": 99},
        {"bbox": ["a"]},
        {"bbox": [1, 2, 3, float("nan")]},
    ],
)
def test_coco_names_the_annotation_at_fault(tmp_path, changes):
    file = write_coco(tmp_path, changes)
    with pytest.raises(FormatError, match=rf"{file.name}: annotation 5 is not COCO keypoints"):
        read("coco", tmp_path)


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"images": 3}', "[" * 100_000])
def test_coco_refuses_what_is_not_coco(tmp_path, text):
    (tmp_path / "person_keypoints.json").write_text(text)
    with pytest.raises(FormatError, match=r"person_keypoints\.json"):
        read("coco", tmp_path)


def test_coco_without_or_with_two_files_asks_for_one(tmp_path):
    with pytest.raises(InputError, match="no person_keypoints"):
        read("coco", tmp_path)
    for name in ("person_keypoints_a.json", "person_keypoints_b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="several person_keypoints"):
        read("coco", tmp_path)


def test_unknown_set_is_named(tmp_path):
    with pytest.raises(InputError, match="unknown data set 'mnist'; there are: coco, flic, "):
        read("mnist", tmp_path)


def test_real_sets_have_the_documented_size_and_split(data):
    lspet, coco = read("lspet", data / "lspet"), read("coco", data / "coco")
    assert len(lspet) == 9000 and sum(s.split == "validation" for s in lspet) == 500
    assert len(coco) == 8470 and sum(s.split == "validation" for s in coco) == 765
    assert len({s.picture for s in coco}) == 3193
    assert all(s.picture.exists() for s in lspet[::500] + coco[::500])


def test_without_scipy_the_extra_is_named(tmp_path, monkeypatch):
    write_lspet(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"scipy is not installed.*humanpose\[data\]"):
        read("lspet", tmp_path)
