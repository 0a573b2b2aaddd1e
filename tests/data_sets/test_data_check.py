import json

import cv2
import numpy as np
import pytest
from makers.data import hrnet_entry, write_hrnet

from humanpose.data.check import findings, swapped
from humanpose.data.readers import read
from humanpose.errors import FormatError
from humanpose.images import image_size


def jpeg(width: int, height: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def joints(*changes: tuple[int, tuple[float, float]]) -> list[list[float]]:
    """A person seen from the front, 1-based, 16 joints of MPII."""
    table = [
        [40, 190], [40, 150], [40, 110], [60, 110], [60, 150], [60, 190], [50, 110], [50, 50],
        [50, 45], [50, 20], [20, 110], [25, 80], [35, 50], [65, 50], [75, 80], [80, 110],
    ]  # fmt: skip
    for joint, place in changes:
        table[joint] = list(place)
    return table


@pytest.fixture
def mpii(tmp_path):
    """A folder with a good picture and a function that writes its people."""
    annot = write_hrnet(tmp_path)
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg(100, 200))

    def write(*entries: dict[str, object]):
        people = [hrnet_entry(joints=joints(), joints_vis=[1] * 16) | entry for entry in entries]
        (annot / "train.json").write_text(json.dumps(people))
        return tmp_path

    return write


def found(folder, **options) -> dict[str, tuple[str, int]]:
    return {f.what: (f.level, len(f.where)) for f in findings(read("mpii", folder), **options)}


def test_a_good_set_has_no_findings(mpii):
    assert found(mpii({}, {"joints": joints((0, (41, 190)))})) == {}


def test_what_is_missing_and_what_is_odd_is_found(mpii):
    turned = joints((12, (65, 50)), (13, (35, 50)))  # the shoulders exchanged, not the hips
    folder = mpii(
        {},
        {"image": "gone.jpg"},
        {"image": "broken.jpg"},
        {"joints": joints((0, (40, 210)))},  # 10 px below the picture, 5 % of its height
        {"joints": joints((0, (40, 202)))},  # within the margin
        {"joints": turned},
        {"joints_vis": [0] * 16},
        {"joints": [[50 + i, 50] for i in range(8)] * 2},
        {"headbox": [[5, 5], [5, 5]], "joints": joints((0, (42, 190)))},
        {},
    )
    (folder / "images" / "broken.jpg").write_bytes(b"no picture")
    (folder / "annot" / "valid.json").write_text(json.dumps([hrnet_entry()]))
    assert found(folder) == {
        "the picture is not there": ("error", 1),
        "the picture is unreadable": ("error", 1),
        "the head size is not above zero": ("error", 1),
        "the head size is not known": ("warning", 1),
        "no joint is annotated": ("warning", 1),
        "a joint lies outside the picture": ("warning", 1),
        "left and right are likely swapped": ("warning", 1),
        "the box is under 16 px": ("warning", 1),
        "the person comes twice in its picture": ("warning", 1),
        "the picture is in two splits": ("warning", 1),
    }


def test_half_a_picture_shows_only_when_it_is_decoded(mpii):
    folder = mpii({})
    (folder / "images" / "a.jpg").write_bytes(jpeg(100, 200)[:-200])
    assert found(folder) == {}
    assert found(folder, pictures=True) == {"the picture is unreadable": ("error", 1)}


def test_annotations_alone_are_a_warning(mpii):
    folder = mpii({})
    (folder / "images" / "a.jpg").unlink()
    assert found(folder) == {"the picture is not there": ("warning", 1)}


def test_swapped_does_not_suspect_people_seen_from_the_side_or_behind(mpii):
    behind = [[100 - x, y] for x, y in joints()]
    narrow = joints((12, (51, 50)), (13, (49, 50)))
    folder = mpii({}, {"joints": behind}, {"joints": narrow}, {"joints_vis": [1] * 12 + [0] * 4})
    assert not any(swapped(sample) for sample in read("mpii", folder))


def test_image_size_is_that_of_the_upright_picture(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == (30, 40)
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(FormatError, match=r"b\.jpg"):
        image_size(tmp_path / "b.jpg")


def test_the_command_counts_reports_and_fails_on_errors(mpii, cli, tmp_path):
    folder = mpii({}, {})
    report = tmp_path / "report.json"
    code, out, _ = cli("data", "check", f"mpii={folder}", "--json", report)
    assert code == 0 and "train            2 persons in       1 pictures, 16.0 joints" in out
    assert "warning: the person comes twice in its picture: 1 of 2 (a.jpg: train/1)" in out
    (entry,) = json.loads(report.read_text())["sets"]
    assert entry["splits"] == {"train": {"persons": 2, "pictures": 1, "joints": 32}}
    assert entry["joints"]["head_top"] == 2
    assert entry["findings"][0]["where"] == ["a.jpg: train/1"]
    code, _, err = cli("data", "check", f"mpii={folder}", "--json", report)
    assert code == 74 and "--force" in err
    mpii({}, {"image": "gone.jpg"})
    code, out, _ = cli("data", "check", "-q", f"coco={folder}", f"mpii={folder}")
    assert code == 2 and len(out.splitlines()) == 2  # a set that cannot be read does not end it
    assert "coco:  error:" in out and "mpii:  error: the picture is not there: 1 of 2" in out
    code, out, _ = cli("data", "check", f"flic={folder}", "--compat", "oc")
    assert code == 2 and "compat is 'cpm'" in out


def test_real_sets_pass(cli, data):
    code, out, _ = cli("data", "check", f"lspet={data / 'lspet'}", f"coco={data / 'coco'}")
    assert code == 0 and "8,500 persons" in out and "7,705 persons" in out
