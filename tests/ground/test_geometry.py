import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from humanpose import geometry
from humanpose.geometry import Crop

SIZE = (48, 64)


def lit(x: int, y: int, width: int = 90, height: int = 70) -> np.ndarray:
    """A black picture with one white 5x5 patch."""
    image = np.zeros((height, width, 3), np.uint8)
    image[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = 255
    return image


def centre_of_light(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@given(
    x=st.integers(20, 60),
    y=st.integers(20, 50),
    scale=st.floats(0.8, 1.3),
    rotation=st.floats(-180, 180),
    flip=st.booleans(),
)
def test_lit_patch_and_joint_travel_together(x, y, scale, rotation, flip):
    box = np.array([x - 12, y - 12, 24, 24], np.float32)
    crop = geometry.augmented_crop(
        geometry.crop_of_box(box, SIZE), scale=scale, rotation=rotation, flip=flip
    )
    found = centre_of_light(crop.cut(lit(x, y)))
    assert np.abs(found - crop.to_crop(np.array([x, y], np.float32))).max() < 0.15


@pytest.mark.parametrize("factor", [3, 4, 5, 6, 8, 12, 13])
def test_lit_patch_survives_a_strong_shrinking(factor):
    image = np.zeros((600, 700, 3), np.uint8)
    image[300:340, 200:240] = 255
    crop = geometry.crop_of_picture((700, 600), (700 // factor, 600 // factor))
    found = centre_of_light(crop.cut(image))
    assert np.abs(found - crop.to_crop(np.array([219.5, 319.5], np.float32))).max() < 0.15


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[::2] = 255  # one bilinear sample would see black or white, never grey
    small = geometry.crop_of_picture((640, 640), (80, 80)).cut(stripes)
    assert np.abs(small[5:-5, 5:-5].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("factor", [3, 3.5, 6, 7])
def test_stripes_too_fine_for_the_crop_leave_no_beat(factor):
    period = 4 if factor < 4 else 8  # a halved picture still has them, its warp would not
    stripes = np.zeros((840, 840, 3), np.uint8)
    stripes[np.arange(840) % period < period // 2] = 255
    size = (round(840 / factor),) * 2
    small = geometry.crop_of_picture((840, 840), size).cut(stripes)[5:-5, 5:-5].astype(int)
    assert np.abs(small - 127).max() <= 26


def test_golden_position_of_a_box():
    # 100 x 200 box at (10, 20), context 1.25, input 48 x 64: the width is the tighter side of
    # neither; height decides: scale = 64 / 200 / 1.25, centre (60, 120) -> (24, 32).
    crop = geometry.crop_of_box(np.array([10, 20, 100, 200], np.float32), SIZE)
    assert np.allclose(crop.matrix, [[0.256, 0, 24 - 60 * 0.256], [0, 0.256, 32 - 120 * 0.256]])
    half = geometry.crop_of_box(np.array([10, 20, 100, 200], np.float32), SIZE, centre="(w-1)/2")
    assert np.allclose(half.matrix[:, 2], crop.matrix[:, 2] - 0.5)


def test_counter_clockwise_in_picture_view():
    crop = geometry.augmented_crop(Crop(np.eye(2, 3), (11, 11)), rotation=90)
    right_of_middle = np.array([8, 5], np.float32)
    assert np.allclose(crop.to_crop(right_of_middle), [5, 2], atol=1e-5)  # above it


@given(
    x=st.floats(-50, 300), y=st.floats(-50, 300), w=st.floats(1, 400), h=st.floats(1, 400),
    rotation=st.floats(-180, 180), flip=st.booleans(),
)  # fmt: skip
def test_to_crop_and_back(x, y, w, h, rotation, flip):
    crop = geometry.augmented_crop(
        geometry.crop_of_box(np.array([x, y, w, h], np.float32), SIZE),
        rotation=rotation,
        flip=flip,
        shift=(0.1, -0.2),
    )
    points = np.array([[x, y], [x + w, y + h / 3]], np.float32)
    assert np.allclose(crop.to_picture(crop.to_crop(points)), points, atol=0.02)


def test_flip_twice_is_nothing():
    crop = geometry.crop_of_box(np.array([3, 4, 50, 60], np.float32), SIZE)
    twice = geometry.augmented_crop(geometry.augmented_crop(crop, flip=True), flip=True)
    assert np.allclose(twice.matrix, crop.matrix)


def test_box_of_joints_ignores_missing_ones():
    joints = np.array([[10, 5], [np.nan, np.nan], [30, 45]], np.float32)
    assert geometry.box_of_joints(joints, margin=0.1).tolist() == [6, 1, 28, 48]
    assert np.isnan(geometry.box_of_joints(joints[1:2])).all()


def test_iou_by_hand_and_empty():
    a = np.array([[0, 0, 10, 10], [20, 20, 5, 5]], np.float32)
    b = np.array([[5, 0, 10, 10]], np.float32)
    assert np.allclose(geometry.iou(a, b), [[50 / 150], [0]])
    assert geometry.iou(a[:0], b).shape == (0, 1)


def test_suppress_keeps_the_best_and_the_distant():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [50, 50, 10, 10]], np.float32)
    scores = np.array([0.5, 0.9, 0.3], np.float32)
    assert geometry.nms(boxes, scores, threshold=0.5).tolist() == [1, 2]
    assert geometry.nms(boxes[:0], scores[:0], threshold=0.5).tolist() == []
