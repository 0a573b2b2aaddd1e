import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from humanpose.draw import SIDE_COLOURS, contact_sheet, draw_people
from humanpose.skeleton import COCO17, HAND21, Skeleton
from humanpose.types import U8, Person

TRIO = Skeleton("trio", ("nose", "left_hand", "right_hand"), ((0, 1), (0, 2)), ((1, 2),))
NAN = float("nan")


def person(joints: list[list[float]], scores: list[float], **changes: object) -> Person:
    values: dict[str, object] = {"box": np.full(4, NAN, np.float32), "score": 0.5, "skeleton": TRIO}
    return Person(np.array(joints, np.float32), np.array(scores, np.float32), **(values | changes))  # type: ignore[arg-type]


def has(image: U8, side: str) -> bool:
    return bool((image == SIDE_COLOURS[side]).all(-1).any())


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_sides_have_colours_with_a_dark_edge(ground: int) -> None:
    image = np.full((100, 140, 3), ground, np.uint8)
    before = image.copy()
    got = draw_people(image, [person([[70, 20], [120, 80], [20, 80]], [1, 1, 1])])
    assert (image == before).all() and got is not image and got.dtype == np.uint8
    assert got[80, 120].tolist() == list(SIDE_COLOURS["left"])
    assert got[80, 20].tolist() == list(SIDE_COLOURS["right"])
    assert got[20, 70].tolist() == list(SIDE_COLOURS["middle"])
    # Halfway along the limbs: the side of the end that has one.
    assert got[50, 95].tolist() == list(SIDE_COLOURS["left"])
    assert got[50, 45].tolist() == list(SIDE_COLOURS["right"])
    row = got[50, 85:105].astype(int).sum(-1)
    assert row.min() < 150  # the outline


def test_joint_lands_on_its_pixel() -> None:
    image = np.zeros((81, 81, 3), np.uint8)
    got = draw_people(image, [person([[40.5, 20.25], [NAN, NAN], [NAN, NAN]], [1, 0, 0])])
    weight = (got == SIDE_COLOURS["middle"]).all(-1)
    rows, columns = np.nonzero(weight)
    assert abs(columns.mean() - 40.5) < 0.5 and abs(rows.mean() - 20.25) < 0.5


def test_weak_and_missing_joints_and_their_limbs_are_left_out() -> None:
    image = np.zeros((100, 140, 3), np.uint8)
    joints = [[70, 20], [120, 80], [20, 80]]
    weak = draw_people(image, [person(joints, [1, 0.2, 1])])
    assert not has(weak, "left") and has(weak, "right")
    assert has(draw_people(image, [person(joints, [1, 0.2, 1])], min_score=0.1), "left")
    missing = draw_people(image, [person([joints[0], [NAN, NAN], joints[2]], [1, 1, 1])])
    assert (missing == weak).all()
    nobody = draw_people(image, [person(joints, [0, 0, 0])])
    assert not nobody.any() and not draw_people(image, []).any()


def test_box_and_label_can_be_left_out() -> None:
    image = np.zeros((100, 140, 3), np.uint8)
    joints = [[NAN, NAN]] * 3
    box = np.array([20, 30, 60, 50], np.float32)
    plain = draw_people(image, [person(joints, [0, 0, 0], box=box)])
    assert plain[30, 50].max() > 200 and plain[60, 20].max() > 200 and plain[60, 50].max() == 0
    tracked = draw_people(image, [person(joints, [0, 0, 0], box=box, track=12)])
    assert tracked[:30].sum() > plain[:30].sum() > 0  # "#12" beside the score
    assert not draw_people(image, [person(joints, [0, 0, 0], box=box)], boxes=False).any()


def test_width_grows_with_the_person() -> None:
    image = np.zeros((1000, 1000, 3), np.uint8)

    def painted(size: float) -> float:
        got = draw_people(image, [person([[500, 10], [500, 10 + size], [NAN, NAN]], [1, 1, 0])])
        return float(got.any(-1)[int(10 + size / 2)].sum())

    assert painted(900) > 1.5 * painted(60) > 0


wild = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(deadline=None, max_examples=60)
@given(
    joints=st.lists(st.tuples(wild, wild), min_size=3, max_size=3),
    box=st.lists(wild, min_size=4, max_size=4),
    shape=st.sampled_from([(1, 1), (5, 7), (40, 3), (90, 120)]),
)
def test_nothing_far_outside_crashes(
    joints: list[tuple[float, float]], box: list[float], shape: tuple[int, int]
) -> None:
    one = person([list(xy) for xy in joints], [1, 1, 1], box=np.array(box, np.float32), track=3)
    got = draw_people(np.zeros((*shape, 3), np.uint8), [one])
    assert got.shape == (*shape, 3)


def test_limb_that_leaves_the_picture_is_drawn_up_to_its_edge() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    got = draw_people(image, [person([[40, 30], [140, 30], [NAN, NAN]], [1, 1, 0])])
    assert got[30, 79].tolist() == list(SIDE_COLOURS["left"])


@pytest.mark.parametrize("skeleton", [COCO17, HAND21], ids=lambda s: s.name)
def test_whole_skeletons_on_pictures_that_may_not_be_written(skeleton: Skeleton) -> None:
    rng = np.random.default_rng(0)
    n = len(skeleton.joints)
    image = np.zeros((120, 90, 3), np.uint8)[:, ::-1]
    image.flags.writeable = False
    one = person(rng.uniform(5, 85, (n, 2)).tolist(), [1] * n, skeleton=skeleton)
    assert draw_people(image, iter([one, one])).any()


def test_contact_sheet_places_and_scales() -> None:
    red = np.full((10, 20, 3), (255, 0, 0), np.uint8)
    blue = np.full((300, 100, 3), (0, 0, 255), np.uint8)
    sheet = contact_sheet([red, blue, red], 2, (40, 30))
    assert sheet.shape == (60, 80, 3) and sheet.dtype == np.uint8
    assert sheet[15, 20].tolist() == [255, 0, 0] and sheet[15, 60].tolist() == [0, 0, 255]
    assert sheet[45, 20].tolist() == [255, 0, 0] and sheet[45, 60].tolist() == [32, 32, 32]
    assert (sheet[:30, :40] == [255, 0, 0]).all(-1).sum() == 40 * 20  # aspect kept
    assert (sheet[:30, 40:] == [0, 0, 255]).all(-1).sum() == 10 * 30
    assert contact_sheet([], 3, (4, 5)).shape == (5, 12, 3)
