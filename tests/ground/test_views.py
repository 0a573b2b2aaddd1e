"""Views of people: what each shows, in pictures of the promised size."""

from dataclasses import replace

import numpy as np
import pytest

from humanpose.draw import SIDE_COLOURS, VIEWS, WITH_MAPS, DrawStyle, draw_people
from humanpose.errors import InputError
from humanpose.geometry import Crop
from humanpose.skeleton import COCO17
from humanpose.types import Frame, Person


@pytest.fixture
def frame() -> Frame:
    """One person on grey; each joint's map of stage 1 is empty, of stage 2 a dot at the joint."""
    rng = np.random.default_rng(1)
    joints = rng.uniform((60, 40), (250, 200), (17, 2)).astype(np.float32)
    cells = Crop(np.array([[0.25, 0, 0], [0, 0.25, 0]]), (81, 61))
    maps = np.zeros((2, 17, 61, 81), np.float16)
    for j, (x, y) in enumerate(np.rint(joints / 4).astype(int)):
        maps[1, j, y - 1 : y + 2, x - 1 : x + 2] = 1
    person = Person(
        joints, np.ones(17, np.float32), np.array([50, 30, 210, 180], np.float32), 0.9,
        track=3, skeleton=COCO17, maps=maps, cells=cells,
    )  # fmt: skip
    return Frame(np.full((243, 325, 3), 90, np.uint8), people=(person,))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("people", [True, False])
def test_every_view_has_its_size_and_leaves_the_frame_alone(frame, view, people):
    frame = frame if people else replace(frame, people=())
    before = frame.image.copy()
    look = DrawStyle(view, legend=True)
    drawn = look.draw(frame)
    assert drawn.dtype == np.uint8 and drawn.shape[1::-1] == look.size(325, 243)
    np.testing.assert_array_equal(frame.image, before)
    assert people == bool((np.ptp(drawn.astype(int), axis=-1) > 60).any())  # colour is people


def test_boxes_and_skeleton_differ_by_the_box(frame):
    boxes, plain = DrawStyle("boxes").draw(frame), DrawStyle("skeleton").draw(frame)
    np.testing.assert_array_equal(plain, draw_people(frame.image, frame.people, boxes=False))
    assert (boxes[30, 100] != plain[30, 100]).any()


def test_side_by_side_is_the_picture_and_then_the_drawing(frame):
    both = DrawStyle("side-by-side").draw(frame)
    np.testing.assert_array_equal(both[:, :325], frame.image)
    np.testing.assert_array_equal(both[:, 325:], DrawStyle("boxes").draw(frame))


def test_grid_shows_each_joint_in_its_own_cell(frame):
    columns, rows = 5, 4  # 17 joints
    grid = DrawStyle("heatmaps").draw(frame).astype(int)
    width, height = 325 // columns, 243 // rows
    for j, (x, y) in enumerate(frame.people[0].joints):
        row, column = divmod(j, columns)
        scale = min(width / 325, height / 243)
        left = column * width + (width - round(325 * scale)) // 2
        top = row * height + (height - round(243 * scale)) // 2
        around = grid[int(top + y * scale) - 1 :, int(left + x * scale) - 1 :][:3, :3]
        assert np.ptp(around, axis=-1).max() > 60, COCO17.joints[j]


def test_stages_come_in_order_and_the_joints_last(frame):
    sheet = DrawStyle("stages").draw(frame).astype(int)  # 2 x 2: stage 1, stage 2, joints
    colour = np.ptp(sheet, axis=-1) > 60
    assert not colour[:121, :162].any() and colour[:121, 162:].any() and colour[121:, :162].any()


def test_without_maps_their_views_show_the_joints(frame):
    bare = replace(frame, people=(replace(frame.people[0], maps=None, cells=None),))
    for view in WITH_MAPS:
        drawn = DrawStyle(view).draw(bare).astype(int)
        assert (np.ptp(drawn, axis=-1) > 60).any() == (view == "stages")


def test_legend_names_the_sides_in_their_colours(frame):
    far = replace(frame, people=(replace(frame.people[0], joints=frame.people[0].joints * np.nan),))
    drawn = DrawStyle("skeleton", legend=True).draw(far)[-60:, :80].reshape(-1, 3).astype(int)
    for colour in SIDE_COLOURS.values():
        assert (np.abs(drawn - colour).max(1) < 12).any()
    assert (DrawStyle("skeleton").draw(far) == 90).all()


def test_an_unknown_view_is_refused_by_name():
    with pytest.raises(InputError, match="view 'xray' is not one of boxes, skeleton"):
        DrawStyle("xray")
