import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import humanpose
from humanpose import PoseEstimator
from humanpose.api import load_model
from humanpose.errors import FormatError, InputError
from humanpose.images import load_image
from humanpose.infer.options import InferenceOptions
from humanpose.infer.runtime import FOLDER, PRESETS, installed, read_spec, weights_path
from humanpose.infer.topdown import TopDown


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator(precision="float32", cache="")


def test_all_is_complete_sorted_and_lazy():
    assert humanpose.__all__ == sorted(humanpose.__all__)
    assert all(getattr(humanpose, name).__name__ == name for name in humanpose.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = humanpose.Nothing


def test_importing_is_light_and_inference_brings_in_no_torch():
    code = (
        "import sys, humanpose; heavy = {'numpy', 'cv2', 'torch', 'openvino'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "import numpy as np; e = humanpose.PoseEstimator(cache='');"
        "e(np.zeros((60, 80, 3), np.uint8));"
        "bad = {'torch', 'scipy', 'pydantic', 'onnx', 'lightning'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_person_is_found_with_joints_inside_the_picture(estimator, photo):
    frame = estimator(photo)
    height, width = frame.image.shape[:2]
    assert frame.name == photo.name and len(frame.people) >= 1
    person = frame.people[0]
    assert person.joints.shape == (19, 2) and person.joints.dtype == np.float32
    assert person.scores.shape == (19,) and 0 <= person.scores.min() <= person.scores.max() <= 1
    sure = person.joints[person.scores > 0.3]
    assert len(sure) >= 12 and (sure >= 0).all() and (sure < [width, height]).all()
    assert person.skeleton == estimator.skeleton
    record = frame.to_dict()
    assert len(record["people"][0]["joints"]) == 19


def test_threads_that_share_an_estimator_find_the_same_as_one(estimator, photo):
    image = load_image(photo)
    pictures = [np.ascontiguousarray(np.rot90(image, i)) for i in range(4)]
    alone = [estimator(picture).people[0].joints for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(estimator, pictures * 3))
    for i, frame in enumerate(together):
        assert (frame.people[0].joints == alone[i % 4]).all()


def test_joints_are_near_the_annotated_ones(estimator, data):
    """Twenty validation pictures of LSPET, boxes given; a wrong crop would miss them all."""
    from humanpose.data.readers import read
    from humanpose.evaluate.run import pose_score

    part = [s for s in read("lspet", data / "lspet") if s.split == "validation"][:20]
    score = pose_score(estimator.finder, part)
    assert score.value > 0.4


def test_path_bytes_pil_rgb_and_bgr_give_the_same(estimator, photo):
    rgb = np.asarray(Image.open(photo).convert("RGB"))
    frames = [
        estimator(str(photo)),
        estimator(photo.read_bytes()),
        estimator(Image.open(photo)),
        estimator(rgb),
        estimator(np.ascontiguousarray(rgb[..., ::-1]), channels="bgr"),
    ]
    for frame in frames[1:]:
        assert len(frame.people) == len(frames[0].people)
        assert np.abs(frame.people[0].joints - frames[0].people[0].joints).max() < 1.5


def test_given_boxes_come_back_in_order_and_alone_or_together_alike(estimator, photo):
    rgb = np.asarray(Image.open(photo).convert("RGB"))
    height, width = rgb.shape[:2]
    boxes = np.array(
        [[0, 0, width, height], [10, 10, width / 2, height / 2], [5, 5, 30, 40]], np.float32
    )
    together = estimator.estimate(rgb, boxes)
    assert [p.box.tolist() for p in together] == boxes.tolist()
    for i, person in enumerate(together):
        (alone,) = estimator.estimate(rgb, boxes[i : i + 1])
        assert np.abs(alone.joints - person.joints).max() < 1e-2
    many = estimator.estimate(rgb, np.repeat(boxes[:1], 40, axis=0))  # more than one call holds
    assert len(many) == 40
    assert estimator.estimate(rgb, np.zeros((0, 4), np.float32)) == ()


@pytest.mark.parametrize(
    "box", [[0, 0, 10], [0, 0, 0, 10], [0, 0, np.nan, 10], [0, 0, -5, 10], [0, 0, np.inf, 3]]
)
def test_a_box_that_is_none_is_named(estimator, box):
    with pytest.raises(InputError, match="boxes must be"):
        estimator.estimate(np.zeros((50, 50, 3), np.uint8), np.array([box], np.float32))


def test_a_person_at_the_edge_and_a_tiny_picture_do_not_crash(estimator):
    assert isinstance(estimator(np.zeros((1, 1, 3), np.uint8)).people, tuple)
    assert isinstance(estimator(np.zeros((3, 900, 3), np.uint8)).people, tuple)
    outside = np.array([[-500, -500, 100, 100]], np.float32)
    (person,) = estimator.estimate(np.zeros((50, 50, 3), np.uint8), outside)
    assert np.isfinite(person.joints).all()


def test_two_estimators_differ_and_do_not_share_settings(photo):
    whole = PoseEstimator(detector=None, cache="")
    one = PoseEstimator(max_people=1, detector_score=0.01, cache="", threads=1)
    assert whole(photo).people[0].box[:2].tolist() == [0, 0]
    assert len(one(photo).people) == 1


def test_torch_and_onnx_runtime_agree_with_openvino(estimator, photo, tmp_path):
    other = PoseEstimator(runtime="onnxruntime")
    ours, theirs = estimator(photo).people[0], other(photo).people[0]
    assert np.abs(ours.joints - theirs.joints)[ours.scores > 0.3].max() < 0.5


def test_int8_is_of_the_pose_network_and_of_helpers_that_have_it():
    ran = PoseEstimator(precision="int8", cache="").header("x")["models"]
    precisions = {each["name"]: each["precision"] for each in ran}
    assert precisions["balanced"] == "int8" and precisions["person"] in ("float32", "bf16")
    with pytest.raises(InputError, match=r"person\.onnx is not quantised"):
        load_model("person", InferenceOptions(precision="int8", cache=""))


def test_the_side_of_the_person_network_is_its_own_asked_for_or_goes_with_the_pose_network(photo):
    def side(*args, **options):
        estimator = PoseEstimator(*args, precision="float32", cache="", **options)
        assert len(estimator(photo).people) >= 1
        pose, person = (each["input"] for each in estimator.header("x")["models"])
        assert estimator.finder.detector.spec.input == tuple(person)
        return pose[1], person

    own = list(read_spec(weights_path("person")).input)
    assert side() == (256, own) and side(size=192) == (192, own)
    assert side(size=192, detector_size=256) == (192, [256, 256])
    assert side("fast")[1] == [224, 224] and side("fast", detector_size=320)[1] == [320, 320]
    assert side(weights_path("fast"))[1] == [224, 224]  # it stands in the file
    by_file = side("fast", detector=weights_path("person"))
    assert by_file[1] == own  # a network of one's own keeps its side
    with pytest.raises(
        InputError, match=r"person\.onnx: input size 230x230 must be multiples of 32"
    ):
        PoseEstimator(detector_size=230, cache="")


def test_models_swapped_are_refused():
    with pytest.raises(InputError, match="'person' finds people, not joints"):
        PoseEstimator("person")
    with pytest.raises(InputError, match="'balanced' finds joints, not people"):
        PoseEstimator(detector="balanced")
    with pytest.raises(InputError, match="threads must be at least 1"):
        PoseEstimator(threads=0)


def test_stream_is_lazy_ordered_and_finds_the_dancer(data):
    frames = []
    stream = PoseEstimator().stream(data / "videos" / "dance.mp4")
    for frame in stream:
        frames.append(frame)
        if len(frames) == 20:
            break
    stream.close()
    assert [f.index for f in frames] == list(range(20))
    assert np.allclose(np.diff([f.time for f in frames]), 1 / 30, atol=2e-3)
    assert sum(len(f.people) >= 1 for f in frames) >= 19


def test_the_weights_are_small_and_described():
    assert set(installed()) == {"accurate", "balanced", "fast", "person"}
    assert sum(path.stat().st_size for path in FOLDER.glob("*.onnx")) < 30e6
    for name, path in installed().items():
        assert path.stat().st_size < 16e6
        spec = read_spec(path)
        weights, _ = PRESETS.get(name, (name, ""))
        assert spec.name == weights and spec.scores and spec.licences and spec.recipe
        card = Path(path).with_suffix(".md").read_text()
        for value in spec.scores.values():
            assert f"{100 * value:.1f}" in card or f"{value:.3f}" in card


def test_weights_parted_from_the_file_that_holds_them_are_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    path, apart = tmp_path / "parted.onnx", {"save_as_external_data": True, "location": "w.bin"}
    onnx.save(onnx.load(weights_path("fast")), path, **apart)
    (tmp_path / "w.bin").unlink()
    for backend in ("openvino", "onnxruntime"):
        with pytest.raises(FormatError, match="without the file beside it that holds its weights"):
            load_model(path, InferenceOptions(runtime=backend, cache=""))


def test_accurate_is_balanced_with_the_flip_test(photo):
    options = InferenceOptions(precision="float32", cache="", detector=None)
    (preset,) = PoseEstimator("accurate", options=options)(photo).people
    (same,) = PoseEstimator("balanced", options=options, tta="flip,upright=60")(photo).people
    (plain,) = PoseEstimator("balanced", options=options)(photo).people
    assert np.array_equal(preset.joints, same.joints)
    assert not np.array_equal(preset.joints, plain.joints)
    assert PoseEstimator("accurate", options=options).header("x")["models"][0]["name"] == "accurate"


def test_with_the_flip_test_a_mirrored_picture_gives_mirrored_joints(estimator, photo):
    """With box centres on the crop's middle column both pictures send the same two crops."""
    rgb = np.asarray(Image.open(photo).convert("RGB"))
    width = rgb.shape[1]
    box = np.array([[20, 10, 90, 120]], np.float32)
    other = box.copy()
    other[:, 0] = (width - 1) - (box[:, 0] + box[:, 2])
    spec = replace(estimator.finder.spec, crop_centre="(w-1)/2")
    apart = {}
    for flip in (True, False):
        poser = TopDown(
            estimator.finder.runtime, spec, InferenceOptions(tta="flip" if flip else "none")
        )
        (person,) = poser.estimate(rgb, box)
        (mirror,) = poser.estimate(np.ascontiguousarray(rgb[:, ::-1]), other)
        back = mirror.joints[estimator.skeleton.flip_index]
        back[:, 0] = (width - 1) - back[:, 0]
        apart[flip] = np.abs(back - person.joints)[person.scores > 0.3].max()
    assert apart[True] < 0.02 < apart[False]
    assert PoseEstimator(tta="flip", cache="").finder.tta.flip
