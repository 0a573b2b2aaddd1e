"""The whole picture's way through a person network, and back into the picture."""

import numpy as np
import pytest

from humanpose import PoseEstimator
from humanpose.geometry import iou
from humanpose.images import load_image
from humanpose.infer.detector import Detector, fitting
from humanpose.skeleton import BODY19
from humanpose.spec import ModelSpec

SPEC = ModelSpec("p", "person", "person", {}, BODY19, (352, 352), crop="whole", decode="boxes")


class Finder:
    """A `Runtime` whose one person is whatever is white."""

    name, precision = "numpy", "float32"

    def __init__(self):
        self.shapes = []

    def run(self, crops):
        self.shapes.append(crops.shape)
        y, x = np.nonzero(crops[0].min(-1) > 190)
        low, high = (x.min() - 0.5, y.min() - 0.5), (x.max() + 0.5, y.max() + 0.5)
        box = (*low, high[0] - low[0], high[1] - low[1], 0.9)
        return {"boxes": np.array([[box]], np.float32)}


@pytest.mark.parametrize(
    ("picture", "shape"),
    [
        ((640, 480), (256, 352)),  # 264 rows of picture; 256, with it a thirtieth smaller
        ((480, 640), (352, 256)),
        ((1920, 1080), (192, 352)),  # 198
        ((1056, 864), (288, 352)),  # 288: not a row of padding
        ((1056, 900), (288, 352)),  # 300
        ((1056, 930), (320, 352)),  # 310: at 288 it would be a fourteenth smaller
        ((500, 500), (352, 352)),
    ],
)
def test_a_picture_is_padded_no_further_than_it_must_be_and_boxes_come_back(picture, shape):
    width, height = picture
    image = np.zeros((height, width, 3), np.uint8)
    box = (width // 2, height // 5, width // 4, height // 2)
    image[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 255
    finder = Finder()
    found, scores = Detector(finder, SPEC).detect(image)
    assert finder.shapes == [(1, *shape, 3)]
    pixel = max(height / shape[0], width / shape[1])
    assert np.abs(found - (box[0] - 0.5, box[1] - 0.5, *box[2:])).max() < 1.5 * pixel
    assert scores.tolist() == [pytest.approx(0.9)]


def test_inputs_are_neither_too_small_nor_too_large():
    assert fitting((2000, 10), (352, 352), 32) == (352, 32)
    assert fitting((10, 2000), (96, 64), 32) == (32, 64)
    assert fitting((5000, 5), (352, 352), 32) == (352, 32)
    assert fitting((640, 480), (416, 416), 416) == (416, 416)  # it takes no other


def test_without_padding_the_same_people_are_found(photo):
    image = load_image(photo)
    height, width = image.shape[:2]
    assert height != width
    above, beside = max(0, width - height) // 2, max(0, height - width) // 2
    square = np.pad(image, ((above, above), (beside, beside), (0, 0)), constant_values=128)
    detector = PoseEstimator(precision="float32").finder.detector
    boxes, _ = detector.detect(image)
    padded, _ = detector.detect(square)
    padded -= np.float32([beside, above, 0, 0])
    assert iou(boxes, padded)[0, 0] > 0.9  # the best of each; spectators follow
