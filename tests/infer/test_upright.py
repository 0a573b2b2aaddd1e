"""Upright crops of people who are not upright."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from humanpose import PoseEstimator
from humanpose.api import load_model
from humanpose.errors import InputError
from humanpose.geometry import crop_of_box, tilts
from humanpose.images import load_image
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import installed, read_spec, weights_path
from humanpose.infer.topdown import TopDown
from humanpose.infer.tta import TestTimeAugmentation, torso_of, upright_crop
from humanpose.skeleton import COCO17, MPII16, Skeleton

# A standing person, and its box.
STANDING = np.array(
    [
        *([100, 48], [90, 30], [110, 30], [78, 44], [122, 44]),  # face
        *([80, 70], [120, 70], [70, 105], [130, 105], [66, 140], [134, 140]),  # arms
        *([88, 140], [112, 140], [86, 190], [114, 190], [84, 240], [116, 240]),  # legs
    ],
    np.float32,
)
COLOURS = [(r, g, b) for r in (85, 170, 255) for g in (85, 170, 255) for b in (85, 255)][:17]


def turned(joints, degrees, middle=(140.0, 140.0)):
    """Turned clockwise, in picture view, about `middle`."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((joints - middle) @ turn.T + middle).astype(np.float32)


def box_of(joints):
    low, high = joints.min(0) - 8, joints.max(0) + 8
    return np.concatenate([low, high - low]).astype(np.float32)


@pytest.mark.parametrize("degrees", [-170, -90, -30, 0, 45, 90, 179])
def test_the_tilt_is_that_of_the_torso(degrees):
    joints = turned(STANDING, degrees)[None]
    sure = np.ones((1, 17), np.float32)
    np.testing.assert_allclose(tilts(joints, sure, torso_of(COCO17)), [degrees], atol=0.01)


def test_hips_or_shoulders_with_low_scores_give_no_tilt():
    joints = np.stack([turned(STANDING, 90)] * 3)
    scores = np.ones((3, 17), np.float32)
    scores[1, 11:13] = 0.05
    scores[2, 5:7] = 0.05
    np.testing.assert_allclose(tilts(joints, scores, torso_of(COCO17)), [90, 0, 0], atol=0.01)


def test_a_skeleton_without_hips_has_no_torso():
    assert torso_of(COCO17).tolist() == [[5, 6], [11, 12]]
    names = torso_of(MPII16)
    assert [MPII16.joints[i] for i in names.ravel()] == [
        "left_shoulder", "right_shoulder", "left_hip", "right_hip",
    ]  # fmt: skip
    arm = Skeleton("arm", ("left_shoulder", "right_shoulder", "left_wrist"), (), ())
    assert torso_of(arm).shape == (0, 2)


@pytest.mark.parametrize("degrees", [-100, 75, 90, 180])
def test_the_second_crop_shows_the_person_upright_and_as_large_as_it_can(degrees, spec):
    joints = turned(STANDING, degrees)
    first = crop_of_box(box_of(joints), (192, 256))
    crop = upright_crop(first, joints, degrees, spec)
    seen = crop.to_crop(joints)
    scale = 256 / 1.25 / 210  # of the joints' height, 30 ... 240
    expected = (STANDING - [100, 135]) * scale + [96, 128]
    np.testing.assert_allclose(seen, expected, atol=0.01)
    assert crop.size == (192, 256)


def test_a_crop_of_joints_in_one_place_is_not_a_speck(spec):
    first = crop_of_box(np.array([0, 0, 100, 200], np.float32), (192, 256))
    heap = np.full((17, 2), 60, np.float32)
    crop = upright_crop(first, heap, 90, spec)
    zoom = np.sqrt(np.linalg.det(crop.matrix[:, :2]) / np.linalg.det(first.matrix[:, :2]))
    assert zoom == pytest.approx(1.6)
    np.testing.assert_allclose(crop.to_crop(heap[0]), [96, 128], atol=1e-3)


class UprightOnly:
    """A pose network by colours; of people who are not upright it sees the joints dimly."""

    name, precision = "dots", "float32"

    def __init__(self):
        self.calls: list[int] = []

    def run(self, crops):
        self.calls.append(len(crops))
        return {"maps": np.stack([self._maps(crop) for crop in crops])}

    def _maps(self, crop):
        maps, middles = np.zeros((17, 64, 48), np.float32), {}
        y, x = np.mgrid[:64, :48] * 4 + 1.5
        for joint, colour in enumerate(COLOURS):
            rows, columns = np.nonzero(np.abs(crop.astype(int) - colour).max(-1) < 4)
            if len(rows):
                middles[joint] = np.median(columns), np.median(rows)
                away = (x - middles[joint][0]) ** 2 + (y - middles[joint][1]) ** 2
                maps[joint] = np.exp(-away / (2 * 6.0**2))
        across, up = np.subtract(middles[5], middles[11])
        return maps * (1.0 if -up > abs(across) else 0.4)


def picture_of(*people):
    image = np.zeros((280, 280 * len(people), 3), np.uint8)
    for joints in people:
        for (x, y), colour in zip(joints, COLOURS, strict=True):
            cv2.circle(image, (round(float(x)), round(float(y))), 5, colour, -1)
    return image


@pytest.fixture
def spec():
    found = load_model("fast", InferenceOptions(cache=""))[1]
    return replace(found, skeleton=COCO17, name="dots", options={})


def test_only_who_is_not_upright_is_looked_at_again_and_seen_better(spec):
    people = [
        turned(STANDING, degrees) + np.array([280 * i, 0], np.float32)
        for i, degrees in enumerate((0, 90, 20))
    ]
    image, boxes = picture_of(*people), np.stack([box_of(joints) for joints in people])
    once, twice = UprightOnly(), UprightOnly()
    before = TopDown(once, spec, InferenceOptions(tta="none")).estimate(image, boxes)
    after = TopDown(twice, spec, InferenceOptions(tta="upright=45")).estimate(image, boxes)
    assert once.calls == [3] and twice.calls == [3, 1]
    for i in (0, 2):
        np.testing.assert_array_equal(after[i].joints, before[i].joints)
    assert before[1].scores.mean() < 0.41
    assert after[1].scores.mean() == pytest.approx((0.4 + 1) / 2, abs=0.05)
    for joints, person in zip(people, after, strict=True):
        assert np.abs(person.joints - joints).max() < 1.0


def test_maps_of_a_second_look_lie_where_the_person_is(spec):
    joints = turned(STANDING, 180)
    way = InferenceOptions(tta="upright=45", keep_maps=True)
    (person,) = TopDown(UprightOnly(), spec, way).estimate(picture_of(joints), box_of(joints)[None])
    assert person.maps is not None and person.cells is not None
    cells = person.cells.to_crop(joints)
    peaks = [np.unravel_index(each.argmax(), each.shape) for each in person.maps[-1]]
    assert np.abs(np.array(peaks)[:, ::-1] - cells).max() < 0.6
    assert cells[5, 1] < cells[11, 1]  # upright there


def test_who_asks_for_a_second_look_that_cannot_be_is_told(spec):
    crossed = replace(spec, skeleton=Skeleton("arm", ("left_wrist",), (), ()), name="arm")
    for about, way, words in (
        (crossed, InferenceOptions(tta="upright=45"), "without shoulders and hips"),
        (spec, InferenceOptions(tta="upright=45", compat="hrnet"), "with compat"),
        (spec, InferenceOptions(tta="upright=45", crop="picture-height"), "picture's height"),
    ):
        with pytest.raises(InputError, match=f"no upright crop .*{words}"):
            TopDown(UprightOnly(), about, way)
    with pytest.raises(InputError, match="write 0 to 180"):
        InferenceOptions(tta="upright=200")


@pytest.mark.parametrize(
    "text", ["none", "flip", "scales=0.8:1:1.25", "upright=30", "flip,scales=demo,upright=62.5"]
)
def test_an_augmentation_is_written_as_it_is_read(text):
    assert str(TestTimeAugmentation.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["flop", "flip=1", "scales", "upright", "flip,flip", "upright=x", "upright=nan", ","]
)
def test_an_unknown_augmentation_is_refused(text):
    with pytest.raises(InputError, match="tta"):
        InferenceOptions(tta=text)


def test_a_built_in_network_looks_twice_at_a_gymnast_turned_by_a_quarter(photo):
    """It agrees better with itself: joints of the photograph and of the same one turned."""
    image = load_image(photo)
    height = len(image)
    usual = PoseEstimator("fast", precision="float32", cache="")
    single = PoseEstimator("fast", precision="float32", cache="", tta="none")
    (box,) = (person.box for person in usual(image).people[:1])
    wanted = usual.estimate(image, box[None])[0]
    sure = wanted.scores > 0.3
    lying = np.ascontiguousarray(np.rot90(image, -1))  # clockwise: x, y come to height - 1 - y, x
    turned_box = np.array([height - box[1] - box[3], box[0], box[3], box[2]], np.float32)
    away = {}
    for name, estimator in (("usual", usual), ("single", single)):
        (person,) = estimator.estimate(lying, turned_box[None])
        back = np.stack([person.joints[:, 1], height - 1 - person.joints[:, 0]], -1)
        away[name] = np.linalg.norm(back - wanted.joints, axis=-1)[sure].mean() / box[3]
    assert away["usual"] < 0.8 * away["single"] and away["usual"] < 0.05


def test_the_built_in_networks_carry_their_augmentation():
    options = InferenceOptions(cache="")
    found = {name: load_model(name, options)[1].tta for name in installed()}
    own = "upright=60"
    assert found == {"accurate": f"flip,{own}", "balanced": own, "fast": own, "person": ""}
    for name in ("fast", "balanced"):
        path = weights_path(name)
        assert load_model(path, options)[1].tta == read_spec(path).tta == own
        assert read_spec(path.with_suffix(".int8.onnx")).tta == own
