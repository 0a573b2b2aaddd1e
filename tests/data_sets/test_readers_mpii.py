import json

import h5py
import numpy as np
import pytest
from makers.data import hrnet_entry, write_detections, write_h5, write_hrnet, write_release
from scipy.io import savemat

from humanpose.data.readers import read
from humanpose.errors import FormatError, InputError
from humanpose.skeleton import MPII16


def test_the_release_with_its_odd_cases(tmp_path):
    write_release(tmp_path)
    whole, bare, test = read("mpii", tmp_path)
    assert whole.skeleton == MPII16 and whole.picture == tmp_path / "images" / "a.jpg"
    assert [s.origin[1] for s in (whole, bare, test)] == ["1/1", "3/2", "4/1"]
    assert [s.split for s in (whole, bare, test)] == ["train", "train", "test"]
    assert whole.joints[9].tolist() == [30.5, 1.25] and whole.joints[14].tolist() == [-8, 99]
    assert np.flatnonzero(whole.visible).tolist() == [0, 8, 9, 14, 15]
    assert whole.visible[[0, 8, 9, 14, 15]].tolist() == [1, 2, 2, 1, 2]
    assert whole.head_size == pytest.approx(0.6 * 50)
    assert whole.centre.tolist() == [50, 80] and whole.scale == 2
    assert np.flatnonzero(bare.visible).tolist() == [6]
    assert bare.centre is None and np.isnan(bare.scale)
    # Joints of the test part are withheld: its box is as tall as the scale says.
    assert not test.visible.any() and test.box.tolist() == [-150, -120, 400, 400]


def test_a_validation_list_beside_the_release_makes_the_split(tmp_path):
    write_release(tmp_path)
    write_detections(tmp_path / "detections.mat", ((3, 2),))
    assert [s.split for s in read("mpii", tmp_path)] == ["train", "validation", "test"]


def test_detections_take_picture_names_from_valid_h5_beside_them(tmp_path):
    file = tmp_path / "detections.mat"
    write_detections(file, ((8, 1), (7, 1)))
    assert [s.picture.name for s in read("mpii", file)] == [
        "release-00008.jpg",
        "release-00007.jpg",
    ]
    write_h5(tmp_path / "valid.h5")
    samples = read("mpii", file)
    assert [s.picture.name for s in samples] == ["1.jpg", "0.jpg"]
    assert [s.origin[1] for s in samples] == ["8/1", "7/1"]
    assert {s.split for s in samples} == {"validation"}


def test_valid_h5_has_its_shift_and_its_factor_undone(tmp_path):
    write_h5(tmp_path / "valid.h5")
    first, second = read("mpii", tmp_path)
    assert np.isnan(first.joints[3]).all() and first.visible[3] == 0
    assert first.scale == 2 and first.centre.tolist() == [100, 70]  # 101 - 15 x 2 - 1
    assert second.head_size == pytest.approx(30) and second.origin == ("mpii", "8/1")


@pytest.mark.parametrize(
    "changes",
    [
        {"part": None},
        {"part": np.zeros((2, 14, 2))},
        {"scale": np.zeros(3)},
        {"imgname": np.array(["a", "b"], object)},
        {"scale": np.zeros(2, "S3")},
        {"part": np.full((2, 16, 2), 1e30)},
        {"imgname": np.array(["../a.jpg", "b.jpg"], "S13")},
        {"imgname": np.array(["/etc/a.jpg", "b.jpg"], "S13")},
        {"imgname": np.array(["C:\\a.jpg", "b.jpg"], "S13")},
        {"imgname": np.array(["", "b.jpg"], "S13")},
    ],
)
def test_a_false_valid_h5_is_one_clear_error(tmp_path, changes):
    write_h5(tmp_path / "valid.h5", **changes)
    with pytest.raises(FormatError, match=r"valid\.h5: "):
        read("mpii", tmp_path)


def test_links_and_huge_tables_in_an_h5_are_refused(tmp_path):
    file, other = tmp_path / "valid.h5", tmp_path / "other.h5"
    write_h5(other)
    for name, bad in (("part", "external"), ("normalize", "soft"), ("scale", "huge")):
        write_h5(file, **{name: None})
        with h5py.File(file, "a") as out:
            if bad == "huge":  # a few kB that claim to be 80 GB
                out.create_dataset(name, (10_000_000_000,), "f8", chunks=(1 << 20,))
            else:
                link = {"external": h5py.ExternalLink(other, name), "soft": h5py.SoftLink("/part")}
                out[name] = link[bad]
        with pytest.raises(FormatError, match=rf"valid\.h5: damaged.*{name}"):
            read("mpii", file)


def test_hrnet_json_in_all_its_files(tmp_path):
    unplaced = hrnet_entry(center=[-1.0, -1.0], scale=-1.0)
    test = {"image": "t.jpg", "center": [101.0, 101.0], "scale": 1.0}
    annot = write_hrnet(tmp_path, train=[hrnet_entry()], valid=[unplaced], test=[test])
    train, valid, hidden = read("mpii", tmp_path)
    assert [s.split for s in (train, valid, hidden)] == ["train", "validation", "test"]
    assert train.picture == tmp_path / "images" / "a.jpg"
    assert np.isnan(train.joints[0]).all() and train.joints[1].tolist() == [10, 20]
    assert train.centre.tolist() == [50, 80] and train.scale == 1.5
    # No head box: 0.6 of the diagonal of which neck - head top are 0.8.
    assert train.head_size == pytest.approx(0.75 * 2**0.5)
    assert valid.centre is None and np.isnan(valid.scale)
    assert not hidden.visible.any() and hidden.box.tolist() == [0, 0, 200, 200]
    assert read("mpii", annot / "valid.json")[0].split == "validation"


def test_gt_valid_beside_valid_json_wins(tmp_path):
    annot = write_hrnet(tmp_path, valid=[hrnet_entry(), hrnet_entry()])
    places = np.random.default_rng(0).uniform(1, 99, (16, 2, 2))
    missing = np.zeros((16, 2))
    missing[5, 1] = 1
    boxes = np.array([[[1, 1], [1, 1]], [[4, 31], [5, 41]]], float)  # corner, axis, person
    content = {"pos_gt_src": places, "jnt_missing": missing, "headboxes_src": boxes}
    savemat(annot / "gt_valid.mat", content)
    first, second = read("mpii", tmp_path)
    assert np.allclose(first.joints, places[:, :, 0] - 1, atol=1e-5) and first.visible.all()
    assert np.flatnonzero(second.visible == 0).tolist() == [5]
    assert (first.head_size, second.head_size) == pytest.approx((0.6 * 5, 0.6 * 50))
    write_hrnet(tmp_path, valid=[hrnet_entry()])
    with pytest.raises(FormatError, match=r"gt_valid\.mat: 2 persons, not .*valid\.json's 1"):
        read("mpii", tmp_path)


@pytest.mark.parametrize(
    "change", [{"joints": [[1, 2]]}, {"scale": "tall"}, {"center": None}, {"joints_vis": [1, 2]}]
)
def test_hrnet_json_names_the_entry_at_fault(tmp_path, change):
    write_hrnet(tmp_path, train=[hrnet_entry(), hrnet_entry(**change)])
    with pytest.raises(FormatError, match=r"train\.json: entry 1 is not a person"):
        read("mpii", tmp_path)


def test_a_folder_or_file_that_is_not_mpii(tmp_path):
    with pytest.raises(InputError, match="is this MPII"):
        read("mpii", tmp_path)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(InputError, match=r"comes as \.json, \.mat or \.h5"):
        read("mpii", tmp_path / "a.txt")
    savemat(tmp_path / "detections.mat", {"other": 1})
    with pytest.raises(FormatError, match="neither RELEASE nor annolist"):
        read("mpii", tmp_path)
    with pytest.raises(InputError, match=r"gone\.json does not exist"):
        read("mpii", tmp_path / "gone.json")


def test_the_two_public_validation_files_agree(data):
    # Head top and neck of the .h5 are truncated to whole pixels; 38,430 joints are scored.
    exact = read("mpii", data / "mpii" / "annotations_valid.mat")
    h5 = read("mpii", data / "mpii" / "valid.h5")
    assert len(exact) == len(h5) == 2958
    joints, rounded = (np.stack([s.joints for s in samples]) for samples in (exact, h5))
    annotated = np.isfinite(joints).all(-1)
    assert annotated.sum(0).tolist() == [
        2115, 2485, 2889, 2888, 2478, 2119, 2878, 2932, 2932, 2932, 2928, 2935, 2944, 2944, 2932,
        2909,
    ]  # fmt: skip
    assert np.delete(annotated, [6, 7], axis=1).sum() == 38_430
    assert (annotated == np.isfinite(rounded).all(-1)).all()
    difference = np.nanmax(np.abs(joints - rounded), axis=(0, 2))
    assert (np.delete(difference, [8, 9]) == 0).all() and (difference[[8, 9]] < 1).all()
    for a, b in zip(exact, h5, strict=True):
        assert (a.origin, a.picture, a.split) == (b.origin, b.picture, b.split)
        assert (a.visible == b.visible).all() and (a.centre == b.centre).all()
        assert a.scale == pytest.approx(b.scale) and a.head_size == pytest.approx(b.head_size)


def test_the_small_set_lies_on_the_exact_annotations(data):
    exact = read("mpii", data / "mpii" / "annotations_valid.mat")
    small = data / "mpii_small" / "annot" / "valid.json"
    samples, entries = read("mpii", small), json.loads(small.read_text())
    assert len(samples) == 144
    for sample, entry in zip(samples, entries, strict=True):
        whole, origin = exact[entry["valid_row"]], entry["original"]
        factor = np.array(origin["factor"])
        # It was scaled by pixel areas: the picture's corner, at -0.5, stays where it is.
        back = (sample.joints + 0.5) / factor - 0.5 + np.array(origin["offset"])
        assert np.nanmax(np.abs(back - whole.joints)) < 0.03
        assert (np.isnan(sample.joints) == np.isnan(whole.joints)).all()
        assert sample.head_size == pytest.approx(whole.head_size * factor.mean(), rel=1e-3)
        assert sample.scale == pytest.approx(whole.scale * factor.mean(), rel=1e-3)
