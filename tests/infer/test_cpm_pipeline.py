"""People and joints as the CPM release finds them: peaks of a person map, crops by the picture's
height, several scales. The network is played by one that knows a few colours, so that the truth
is known; the arithmetic around it is the real one."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from makers.infer import Dots, pose_spec

from humanpose import heatmap
from humanpose.draw import draw_heat
from humanpose.errors import InputError
from humanpose.geometry import Crop, crop_of_box, crop_of_height
from humanpose.infer.detector import Detector, read_peaks
from humanpose.infer.options import InferenceOptions
from humanpose.infer.topdown import TopDown
from humanpose.infer.tta import TestTimeAugmentation, merge_maps, unflipped
from humanpose.results import read_records
from humanpose.skeleton import CPM14

HUES = np.array([[[180 * i // 14, 255, 255] for i in range(14)]], np.uint8)
COLOURS = [tuple(int(c) for c in rgb) for rgb in cv2.cvtColor(HUES, cv2.COLOR_HSV2RGB)[0]]
PERSON = (255, 255, 255)
GREY = (20, 20, 20)


PERSON_SPEC = pose_spec(
    name="finder", task="person", net="cpm-person", input=(328, 184), crop="picture-height",
    background=False, decode="peaks", threshold=0.1,
)  # fmt: skip


MIDDLES = np.array([[140.0, 190.0], [350.0, 170.0]], np.float32)


def draw(people):
    """A picture (360 x 500) with people of dots, and their joints (N, 14, 2)."""
    rng = np.random.default_rng(3)
    image = np.full((360, 500, 3), GREY, np.uint8)
    grid = np.stack(np.meshgrid(np.arange(-1.5, 2), np.arange(-1.5, 2)), -1).reshape(-1, 2) * 38
    joints = []
    for middle in people:
        places = middle + grid[rng.permutation(16)[:14]] + rng.uniform(-4, 4, (14, 2))
        joints.append(places.astype(np.float32))
        for (x, y), colour in zip(places, COLOURS, strict=True):
            place = (round(float(x) * 16), round(float(y) * 16))
            cv2.circle(image, place, 9 * 16, colour, -1, cv2.LINE_AA, 4)
        cv2.circle(image, (round(middle[0] * 16), round(middle[1] * 16)), 160, PERSON, -1, 16, 4)
    return image, np.stack(joints)


@pytest.fixture
def scene():
    """One person: what a wide crop shows is nobody else's, as a centre map would have it."""
    return draw(MIDDLES[:1])


def boxes_of(joints):
    low, high = joints.min(1) - 9, joints.max(1) + 9
    return np.concatenate([low, high - low], axis=1).astype(np.float32)


def test_person_map_gives_squares_as_high_as_the_picture():
    image, _ = draw(MIDDLES)
    runtime = Dots([PERSON], background=False)
    boxes, scores = Detector(runtime, PERSON_SPEC).detect(image)
    # 184 px high, the width padded to a multiple of 8: round(500 * 184 / 360) = 256.
    assert runtime.sizes == [(1, 184, 256, 3)]
    assert len(boxes) == 2 and (np.diff(scores) <= 0).all()
    found = boxes[np.argsort(boxes[:, 0])]
    np.testing.assert_allclose(found[:, :2] + found[:, 2:] / 2, MIDDLES, atol=1.5)
    np.testing.assert_allclose(found[:, 2:], 360)


def test_peaks_follow_the_release_and_a_plateau_is_one_peak():
    person = np.zeros((20, 30), np.float32)
    person[4, 5], person[4, 9] = 0.9, 0.5  # the threshold itself is no peak
    person[10:12, 20:22] = 0.7
    person[12, 22] = 0.6  # touches a higher one
    middles, scores = read_peaks(person, 0.5)
    np.testing.assert_allclose(middles, [[5, 4], [20.5, 10.5]])
    np.testing.assert_allclose(scores, [0.9, 0.7])
    assert read_peaks(np.zeros((5, 5), np.float32), 0.5)[0].shape == (0, 2)


def test_padding_lies_right_and_below_and_the_pictures_corners_coincide():
    crop = crop_of_height((500, 360), 184, 8)
    assert crop.size == (256, 184)
    corners = np.array([[-0.5, -0.5], [499.5, 359.5]], np.float32)
    scaled = 500 * 184 / 360
    np.testing.assert_allclose(
        crop.to_crop(corners), [[-0.5, -0.5], [scaled - 0.5, 183.5]], atol=1e-3
    )


@pytest.mark.parametrize("scales", ["", "0.8:1:1.25", "benchmark", "demo"])
@pytest.mark.parametrize("crop", ["box", "picture-height"])
@pytest.mark.parametrize("flip", [False, True])
def test_joints_are_found_at_every_scale_rule(scene, scales, crop, flip):
    image, joints = scene
    # The dots carry no sides: a mirrored picture shows the same colours.
    skeleton = CPM14.__class__("plain", CPM14.joints, CPM14.limbs, ())
    spec = pose_spec(skeleton=skeleton, context=1.25)
    runtime = Dots(COLOURS)
    tta = str(TestTimeAugmentation(flip, scales))
    people = TopDown(runtime, spec, InferenceOptions(tta=tta, crop=crop)).estimate(
        image, boxes_of(joints)
    )
    looks = {"": 1, "0.8:1:1.25": 3, "benchmark": 7, "demo": 4}[scales] * (1 + flip)
    assert sum(shape[0] for shape in runtime.sizes) == looks
    away = np.linalg.norm(people[0].joints - joints[0], axis=1)
    assert away.max() < 3


def test_matlab_way_sums_at_the_pictures_size_and_gives_whole_pixels(scene):
    image, joints = scene
    way = InferenceOptions(tta="scales=benchmark", compat="matlab", keep_maps=True)
    people = TopDown(Dots(COLOURS), pose_spec(context=1.25), way).estimate(image, boxes_of(joints))
    (person,) = people
    assert (person.joints == np.rint(person.joints)).all()
    assert np.linalg.norm(person.joints - joints[0], axis=1).max() < 3
    assert person.maps.shape == (1, 14, 360, 500)


def test_crop_by_picture_height_agrees_with_the_demos_own_arithmetic(scene):
    """The published demo step by step: resize the picture, pad, cut b x b around the centre,
    argmax of the map enlarged eight times, back by p - b / 2 + centre and the scale."""
    image, _ = scene
    middles = MIDDLES[:1]
    side = 184
    scale = side / image.shape[0]
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    runtime = Dots(COLOURS)
    estimator = TopDown(
        runtime, pose_spec(), InferenceOptions(crop="picture-height", decode="argmax")
    )
    fine = TopDown(runtime, pose_spec(), InferenceOptions(crop="picture-height"))
    boxes = np.concatenate([middles - 180, np.full_like(middles, 360)], axis=1)
    for person, rough, middle in zip(
        fine.estimate(image, boxes), estimator.estimate(image, boxes), middles, strict=True
    ):
        centre = np.rint(middle * scale).astype(int)
        cut = np.full((side, side, 3), 128, np.uint8)
        for y in range(side):
            for x in range(side):
                px, py = centre[0] - side // 2 + x, centre[1] - side // 2 + y
                if 0 <= px < small.shape[1] and 0 <= py < small.shape[0]:
                    cut[y, x] = small[py, px]
        maps = runtime.run(cut[None])["maps"][0, :14]
        for j in range(14):
            big = cv2.resize(maps[j], None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
            y, x = np.unravel_index(big.argmax(), big.shape)
            theirs = (np.array([x, y]) - side / 2 + centre) / scale
            # One pixel of the small picture is two of the large one; centres were rounded.
            assert np.abs(person.joints[j] - theirs).max() < 4, CPM14.joints[j]
            assert np.abs(rough.joints[j] - theirs).max() < 12  # whole cells of 15.7 pixels


def test_every_stage_is_kept_without_background_and_lies_where_its_cells_say(scene):
    image, joints = scene
    estimator = TopDown(
        Dots(COLOURS, stages=3), pose_spec(context=1.25), InferenceOptions(keep_maps=True)
    )
    (person,) = estimator.estimate(image, boxes_of(joints))
    assert person.maps.shape == (3, 14, 23, 23) and person.maps.dtype == np.float16
    assert person.cells.size == (23, 23)
    np.testing.assert_allclose(
        person.maps[0].astype(float) * 3, person.maps[2].astype(float), atol=2e-3
    )
    cells, _ = heatmap.decode(person.maps[-1].astype(np.float32), "dark")
    np.testing.assert_allclose(person.cells.to_picture(cells), person.joints, atol=0.5)
    plain = TopDown(Dots(COLOURS), pose_spec()).estimate(image, boxes_of(joints))[0]
    assert plain.maps is None and plain.cells is None


def test_heat_is_drawn_where_the_joint_is(scene):
    image, joints = scene
    estimator = TopDown(Dots(COLOURS), pose_spec(context=1.25), InferenceOptions(keep_maps=True))
    people = estimator.estimate(image, boxes_of(joints))
    heat = draw_heat(image, people, joint=0).astype(int)
    colour = np.ptp(heat, axis=-1)  # the picture itself is grey there
    for person in people:
        x, y = np.rint(person.joints[0]).astype(int)
        assert colour[y, x] > 60
    assert colour[:20, :20].max() < 5
    assert (draw_heat(image, people) != draw_heat(image, people, joint=0)).any()
    assert draw_heat(image, []).std(axis=-1).max() < 1


def test_average_of_one_look_is_that_look_and_outside_counts_as_nothing():
    rng = np.random.default_rng(0)
    crop = crop_of_box(np.array([50, 40, 80, 90], np.float32), (184, 184))
    cells = heatmap.cells_of(crop, 8, "centre")
    maps = rng.random((1, 2, 3, 23, 23)).astype(np.float32)
    np.testing.assert_allclose(merge_maps(maps, [cells], cells), maps[0], atol=1e-5)
    half = heatmap.cells_of(
        crop_of_box(np.array([50, 40, 80, 90], np.float32), (184, 184), context=0.6), 8, "centre"
    )
    ones = np.ones((1, 1, 23, 23), np.float32)
    seen = merge_maps(ones, [half], cells)[0]
    assert seen[0, 0] == 0 and abs(seen[11, 11] - 1) < 1e-5


def test_shifted_flip_keeps_the_first_column():
    maps = np.arange(5, dtype=np.float32).reshape(1, 1, 1, 5)
    np.testing.assert_array_equal(
        unflipped(maps, np.array([0]), shifted=False)[0, 0, 0], [4, 3, 2, 1, 0]
    )
    np.testing.assert_array_equal(
        unflipped(maps, np.array([0]), shifted=True)[0, 0, 0], [4, 4, 3, 2, 1]
    )


def test_hrnets_flip_test_mirrors_the_crop_itself(scene):
    """On HRNet's corner grid a mirrored crop's maps are one cell off; its shift puts that right."""
    image, joints = scene
    skeleton = CPM14.__class__("plain", CPM14.joints, CPM14.limbs, ())
    spec = pose_spec(skeleton=skeleton, grid="corner", context=1.25)
    seen: list[np.ndarray] = []

    class Spy(Dots):
        def run(self, crops):
            seen.append(crops)
            return super().run(crops)

    TopDown(Spy(COLOURS), spec, InferenceOptions(tta="flip", compat="hrnet")).estimate(
        image, boxes_of(joints)[:1]
    )
    (crops,) = seen
    np.testing.assert_array_equal(crops[1], crops[0][:, ::-1])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tta": "scales=big"}, "benchmark, demo, or numbers"),
        ({"tta": "scales=0"}, "benchmark, demo, or numbers"),
        ({"crop": "whole"}, "box, picture-height"),
        ({"decode": "peaks"}, "argmax, quarter, dark"),
        ({"compat": "caffe"}, "matlab, hrnet"),
    ],
)
def test_a_wrong_option_is_refused_by_name(wrong, words):
    with pytest.raises(InputError, match=words):
        InferenceOptions(**wrong)


def test_outside_the_picture_is_the_specs_padding():
    crop = Crop(np.array([[1.0, 0, 40], [0, 1, 40]]), (64, 64))
    cut = crop.cut(np.full((10, 10, 3), 7, np.uint8), (128, 128, 128))
    assert (cut[0, 0] == 128).all() and (cut[45, 45] == 7).all()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Both CPM nets with random weights, as `humanpose import` would leave them."""
    torch = pytest.importorskip("torch")
    from humanpose import nets
    from humanpose.checkpoints.store import save_weights

    folder = tmp_path_factory.mktemp("cpm")
    torch.manual_seed(0)
    for name, spec, stages in (("pose", pose_spec(net="cpm-vgg"), 2), ("person", PERSON_SPEC, 1)):
        net = nets.create(spec.net, stages=stages)
        for part in net.modules():
            if isinstance(part, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(part.weight)
        spec = replace(spec, options={"stages": stages})
        save_weights(folder / f"{name}.safetensors", net.state_dict(), spec)
    return folder


def test_predict_runs_both_nets_at_a_box_size_and_saves_heat_maps(cli, weights, photo, tmp_path):
    pytest.importorskip("torch")
    out = tmp_path / "out"
    call = [
        "predict", photo, "--model", weights / "pose.safetensors", "--detector",
        weights / "person.safetensors", "--size", "96", "--detector-score", "0", "--max-people",
        "2", "--tta", "scales=0.9:1.1", "--save", "heatmaps,jsonl", "-o", out,
    ]  # fmt: skip
    code, said, errors = cli(*call)
    assert code == 0, errors
    assert "1 picture" in said
    files = sorted(path.name for path in (out / f"{photo.stem}_heatmaps").iterdir())
    assert files[0] == "joint_00_head_top.jpg" and files[-1] == "stage_1.jpg" and len(files) == 15
    header, frames = read_records(out / f"{photo.stem}.jsonl")
    (frame,) = frames
    height = frame["height"]
    assert len(header["skeleton"]["joints"]) == 14
    assert [person["box"][2:] for person in frame["people"]] == [[height, height]] * 2
    code, _, errors = cli(*call)
    assert code == 74 and "_heatmaps exists; add --force" in errors
    assert cli(*call, "--force")[0] == 0


def test_heat_maps_of_a_video_and_odd_sizes_are_refused(cli, weights, photo, data, tmp_path):
    video = data / "videos" / "dance.mp4"
    code, _, errors = cli("predict", video, "--save", "heatmaps", "-o", tmp_path / "out")
    assert code == 2 and "heatmaps is for pictures" in errors and "dance.mp4" in errors
    pose = weights / "pose.safetensors"
    code, _, errors = cli("predict", photo, "--model", pose, "--size", "100", "-o", tmp_path / "b")
    assert code == 2 and "multiples of 8" in errors and "pose.safetensors" in errors
    assert not (tmp_path / "b").exists()
