"""Samples shown: the joints lie where they should."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose.draw import SIDE_COLOURS
from humanpose.geometry import augmented_crop, crop_of_box
from humanpose.images import load_image
from humanpose.lab.contact_sheet import chosen, drawn, samples_of
from humanpose.lab.packing import PackRecipe, build
from humanpose.lab.view import View
from humanpose.skeleton import COCO17


@pytest.fixture
def coco(tmp_path: Path) -> str:
    """Twenty people with 4 to 13 joints in twenty grey pictures."""
    rng = np.random.default_rng(2)
    (tmp_path / "coco" / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(20):
        path = tmp_path / "coco" / "images" / f"{i:04}.png"
        grey = np.full((200, 150, 3), 128, np.uint8)
        path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())
        images.append({"id": i, "file_name": path.name})
        table = np.zeros((17, 3))
        known = rng.permutation(17)[: 4 + i % 10]
        table[known] = np.column_stack(
            [rng.uniform(30, 120, (len(known), 2)), np.full(len(known), 2)]
        )
        entry = {
            "id": 900 + i, "image_id": i, "keypoints": table.ravel().tolist(), "area": 9000,
            "num_keypoints": len(known), "bbox": [30, 30, 90, 90], "iscrowd": 0,
        }  # fmt: skip
        annotations.append(entry)
    content = {"images": images, "annotations": annotations}
    (tmp_path / "coco" / "person_keypoints.json").write_text(json.dumps(content))
    return f"coco={tmp_path / 'coco'}"


@pytest.mark.parametrize(
    "view", [View(), View(flip=True), View(rotate=50), View(rotate=-70, flip=True)]
)
def test_joints_are_drawn_where_they_lie_and_in_their_sides_colour(coco, view):
    """After a mirror the left wrist is where the right one was, and drawn as a left one."""
    for sample in samples_of([coco]):
        image = drawn(sample, view).astype(int)
        crop = crop_of_box(sample.box, (240, 320), context=1.25)
        places = augmented_crop(crop, rotation=view.rotate, flip=view.flip).to_crop(sample.joints)
        for j, (x, y) in enumerate(np.nan_to_num(places, nan=-1)):
            side = COCO17.side(int(COCO17.flip_index[j]) if view.flip else j)
            near = np.linalg.norm(places - (x, y), axis=1) < 14  # others may be drawn over it
            if 2 < x < 237 and 2 < y < 317 and near.sum() == 1:
                found = image[round(float(y)), round(float(x))]
                # A limb of another side may cross the joint: what is on top is a side's colour.
                colours = np.array([SIDE_COLOURS[side], *SIDE_COLOURS.values()])
                assert np.abs(colours - found).sum(1).min() < 60
                if j in (0, 9, 10, 15, 16):  # ends of limbs, drawn last
                    assert np.abs(colours[0] - found).sum() < 60


def test_a_sheet_and_its_choice_of_samples(cli, coco, tmp_path):
    code, out, _ = cli("data", "show", coco, "--joints", "6..9", "-o", tmp_path / "s.png")
    assert code == 0 and "8 persons" in out
    assert load_image(tmp_path / "s.png").shape == (2 * 320, 4 * 240, 3)
    code, _, err = cli("data", "show", coco, "-o", tmp_path / "s.png")
    assert code == 74 and "--force" in err
    code, out, _ = cli("data", "show", coco, "--count", "5", "-o", tmp_path / "s.jpg", "--force")
    assert code == 0 and "5 persons" in out
    validation = ("--split", "validation", "--force")
    assert "2 persons" in cli("data", "show", coco, "-o", tmp_path / "s.png", *validation)[1]
    for more, said in (
        (("--joints", "x"), "--joints x"),
        (("--data-set", "lsp"), "has a picture"),
        (("-o", str(tmp_path / "s.gif")), "must end in"),
    ):
        code, _, err = cli("data", "show", coco, "-o", tmp_path / "t.png", *more)
        assert code in (2, 74) and said in err and err.count("\n") == 1


def test_pictures_that_are_not_here_are_counted(cli, coco, tmp_path):
    for i in range(3):
        (tmp_path / "coco" / "images" / f"{i:04}.png").unlink()
    _, out, _ = cli("data", "show", coco, "--count", "0", "-o", tmp_path / "s.png")
    assert "17 persons" in out and "3 more have no picture" in out


def test_a_pack_is_shown_as_its_data_set_is(cli, coco, tmp_path):
    pack = tmp_path / "people & more.json"
    build(PackRecipe(data=[coco]), pack)
    code, out, _ = cli("data", "show", pack, "-o", tmp_path / "p.png", "--count", "0", "--flip")
    assert code == 0 and "20 persons" in out
    view = View(flip=True)
    from_pack, from_set = chosen(samples_of([str(pack)]), view), chosen(samples_of([coco]), view)
    for packed, sample in zip(from_pack[0], from_set[0], strict=True):
        assert packed.origin == sample.origin
        assert np.abs(drawn(packed, view).astype(int) - drawn(sample, view)).mean() < 3


def test_all_data_sets_can_be_shown(cli, data, tmp_path):
    sets = [f"{name}={data / name}" for name in ("lspet", "coco", "mpii_small", "mpii")]
    sets[2:] = [entry.replace("mpii_small=", "mpii=") for entry in sets[2:]]
    for i, entry in enumerate(sets):
        code, out, _ = cli("data", "show", entry, "--count", "6", "-o", tmp_path / f"{i}.png")
        assert code == 0 and f"{5 if i == 3 else 6} persons" in out
