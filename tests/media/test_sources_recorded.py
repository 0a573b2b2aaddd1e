"""Numbered pictures and ROS recordings as videos; what a text names."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
from makers.media import COLOUR, image_message, message_types, video, write_bag

from humanpose.errors import FormatError, InputError, MissingExtraError
from humanpose.images import save_image
from humanpose.media.sources import find_inputs, open_source, result_name, source_kind
from humanpose.media.sources.ros import to_rgb
from humanpose.media.sources.source import without_password
from humanpose.media.sources.video import VideoSource


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("0", "camera", "camera-0"),
        ("/dev/video2", "camera", "camera-video2"),
        ("/dev/v4l/by-id/usb-A B", "camera", "camera-v4l-by-id-usb-A-B"),
        ("rtsp://me:pass@cam.local:554/live/1?x=2", "stream", "cam.local-554-live-1"),
        ("HTTPS://cam/", "stream", "cam"),
        ("ros:/camera/rgb/image_raw", "topic", "camera-rgb-image_raw"),
        ("shots/%05d.jpg", "sequence", "shots"),
        ("shots/frame%d.png", "sequence", "shots"),
        ("walk.mp4", "", ""),
        ("file://walk.mp4", "", ""),
        ("gone.bag", "", ""),
        ("2024.jpg", "", ""),
    ],
)
def test_what_a_text_names(text: str, kind: str, name: str) -> None:
    assert source_kind(text) == kind
    if kind:
        assert result_name(text) == name
        assert "pass" not in without_password(text)


@pytest.fixture
def shots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """shots/{8,9,10,12}.png, grey 8, 9, 10, 12; 11 is missing."""
    for i in (8, 9, 10, 12):
        save_image(tmp_path / "shots" / f"{i}.png", np.full((4, 6, 3), i, np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shots"


def grey(frame) -> int:
    return int(frame.image[0, 0, 0])


def test_numbers_count_and_a_missing_one_leaves_a_gap(shots: Path) -> None:
    with open_source("shots/%d.png", rate=10) as source:
        frames = list(source)
    assert [(f.index, grey(f), f.name) for f in frames] == [
        (0, 8, "8.png"),
        (1, 9, "9.png"),
        (2, 10, "10.png"),
        (4, 12, "12.png"),
    ]
    assert np.allclose([f.time for f in frames], [0, 0.1, 0.2, 0.4])
    assert (source.width, source.height, source.frames, source.live) == (6, 4, 4, False)
    assert source.rate == 10 and source.problems == []


def test_a_folder_and_a_pattern_are_in_natural_order(shots: Path) -> None:
    (shots / "notes.txt").touch()
    for text in ("shots", "shots/*.png"):
        with open_source(text) as source:
            frames = list(source)
        assert [(f.index, grey(f)) for f in frames] == [(0, 8), (1, 9), (2, 10), (3, 12)]
        assert source.rate == 25 and source.name == "shots"


def test_a_picture_that_cannot_be_read_leaves_a_gap(shots: Path) -> None:
    (shots / "9.png").write_bytes(b"no")
    with open_source("shots/%d.png") as source:
        assert [f.index for f in source] == [0, 2, 4]
    (line,) = source.problems
    assert line.startswith("shots: 1 of 4 pictures could not be read (shots/9.png")
    for file in shots.iterdir():
        file.write_bytes(b"no")
    with pytest.raises(FormatError, match="none of 4 pictures can be read"):
        open_source("shots")


def test_pictures_become_one_item_only_when_asked(shots: Path) -> None:
    assert len(find_inputs(["shots"])) == 4
    for text in ("shots/%d.png", "shots", "shots/*"):
        (item,) = find_inputs([text], as_video=True)
        assert (item.kind, item.output, item.source) == ("video", Path("shots.mp4"), text)
    (item,) = find_inputs(["shots/8.png"], as_video=True)
    assert item.kind == "picture"
    Path("%d.mp4").touch()
    assert [i.output.name for i in find_inputs(["%d.mp4", "0", "rtsp://a/b"])] == [
        "%d.mp4",
        "camera-0.mp4",
        "a-b.mp4",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shots/%06d.png", r"shots/%06d\.png matches no file"),
        ("gone/%d.png", "gone does not exist"),
        ("gone", "gone does not exist"),
        (".", "holds no picture"),
        ("shots/*.jpg", "matches no picture"),
    ],
)
def test_sequences_that_are_not_there(shots: Path, text: str, words: str) -> None:
    if text == ".":
        for file in shots.iterdir():
            file.unlink()
        video(shots / "a.mp4", [0.0])
    with pytest.raises(InputError, match=words):
        open_source(text)
    with pytest.raises(InputError, match=words):
        find_inputs([text], as_video=True)


def test_a_folder_of_pictures_with_a_metadata_file_is_no_recording(shots: Path) -> None:
    (shots / "metadata.yaml").write_text("author: me")
    assert source_kind("shots") == "" and len(find_inputs(["shots"])) == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.mkv", r"a\.mkv is not a video .*End of file"), ("a.mp4", r"a\.mp4: not one frame")],
)
def test_a_video_of_no_frames_is_one_line(tmp_path: Path, name: str, words: str) -> None:
    with av.open(str(tmp_path / name), "w", options={"movflags": "empty_moov"}) as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    with pytest.raises(FormatError, match=words):
        open_source(tmp_path / name)


def test_stop_ends_every_source_after_the_frame_at_hand(shots: Path) -> None:
    path = video(shots / "a.mp4", [i / 10 for i in range(20)])
    for source in (open_source("shots/%d.png"), VideoSource(path)):
        with source:
            indices = []
            for frame in source:
                indices.append(frame.index)
                source.stop()
        assert indices == [0] and source.problems == []


# ROS


def greys(size: int = 8) -> np.ndarray:
    return np.arange(size * size, dtype=np.uint8).reshape(size, size)


ENCODINGS = {
    "rgb8": (COLOUR, COLOUR),
    "bgr8": (COLOUR[..., ::-1], COLOUR),
    "8UC3": (COLOUR[..., ::-1], COLOUR),
    "rgba8": (np.dstack([COLOUR, COLOUR[..., 0]]), COLOUR),
    "bgra8": (np.dstack([COLOUR[..., ::-1], COLOUR[..., 0]]), COLOUR),
    "mono8": (greys(), np.dstack([greys()] * 3)),
    "mono16": (greys().astype(np.uint16) * 257, np.dstack([greys()] * 3)),
    "16UC1": (greys().astype(np.uint16) * 100, np.dstack([np.round(greys() / 63 * 255)] * 3)),
    "32FC1": (np.float32([[0, 2], [np.nan, 4]]), np.dstack([[[0, 128], [0, 255]]] * 3)),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_of_ros(encoding: str) -> None:
    sent, truth = ENCODINGS[encoding]
    for store in message_types():
        for pad in (0, 5):
            got = to_rgb(image_message(store, sent, encoding, 0, pad))
            assert got.dtype == np.uint8 and got.flags.c_contiguous
            assert np.abs(got.astype(int) - truth).max() <= 1
    swapped = sent.astype(sent.dtype.newbyteorder(">"))
    if sent.dtype.itemsize > 1:
        got = to_rgb(image_message(store, swapped, encoding, 0))
        assert np.abs(got.astype(int) - truth).max() <= 1


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_of_ros(order: str) -> None:
    """A red surface seen through each mosaic: only its red cells are bright."""
    cells = np.array([200 if colour == "r" else 0 for colour in order], np.uint8).reshape(2, 2)
    (store, _) = message_types()
    got = to_rgb(image_message(store, np.tile(cells, (6, 6)), f"bayer_{order}8", 0))
    red, green, blue = got[4:-4, 4:-4].reshape(-1, 3).mean(0)
    assert red > 150 and green < 60 and blue < 60


@pytest.mark.parametrize(("encoding", "first"), [("yuv422", "u"), ("yuv422_yuy2", "y")])
def test_yuv_of_ros(encoding: str, first: str) -> None:
    luma, red = 120, 200  # U = 128, V = 200: reddish
    pair = [128, luma, red, luma] if first == "u" else [luma, 128, luma, red]
    (store, _) = message_types()
    sent = np.tile(np.uint8(pair).reshape(2, 2), (4, 4, 1))
    r, g, b = to_rgb(image_message(store, sent, encoding, 0))[1, 1].astype(int)
    assert r > g + 50 and r > b + 50


def test_messages_that_hold_no_picture() -> None:
    (store, _) = message_types()
    good = image_message(store, COLOUR, "rgb8", 0)
    for change, words in (
        ({"encoding": "16UC3\n"}, r"no pictures of encoding 16UC3\?"),
        ({"data": good.data[:-1]}, "575 bytes do not hold 16 x 12 rgb8"),
        ({"step": 0}, "do not hold"),
        ({"step": 40}, "do not hold"),
        ({"width": 0}, "do not hold"),
        ({"width": 2**32 - 1, "height": 2**32 - 1}, "do not hold"),
    ):
        message = image_message(store, COLOUR, "rgb8", 0)
        for key, value in change.items():
            object.__setattr__(message, key, value)
        with pytest.raises(FormatError, match=words):
            to_rgb(message)


BAGS = {"ros1": "walk.bag", "sqlite3": "walk", "mcap": "walk"}


@pytest.mark.parametrize("kind", BAGS)
def test_recordings_of_both_ros(tmp_path: Path, kind: str) -> None:
    path = write_bag(tmp_path / BAGS[kind], kind)
    texts = [str(path)] + [str(p) for p in path.glob("*.db3")] + [str(p) for p in path.glob("*.m*")]
    for text in (t for t in texts if not t.endswith("yaml")):
        with open_source(text) as source:
            frames = list(source)
        assert [f.index for f in frames] == list(range(6)) and source.problems == []
        assert np.allclose([f.time for f in frames], np.arange(6) / 5)
        assert (source.width, source.height, source.frames, source.live) == (16, 12, 6, False)
        assert (frames[3].image == np.roll(COLOUR, 3, 1)).all()
    (item,) = find_inputs([str(path)])
    assert (item.kind, item.output.name) == (
        "video",
        "walk.bag.mp4" if kind == "ros1" else "walk.mp4",
    )


def test_topics_are_chosen_by_name(tmp_path: Path) -> None:
    path = str(write_bag(tmp_path / "walk.bag", "ros1", topics=2))
    with pytest.raises(InputError, match=r"walk\.bag: .*by --topic: /camera/image, /camera/jpeg"):
        open_source(path)
    with pytest.raises(InputError, match=r"no pictures on topic /talk \(.*: /camera/image, "):
        open_source(path, topic="/talk")
    with open_source(path, topic="/camera/jpeg") as source:
        for frame in source:
            assert np.abs(frame.image.astype(int) - COLOUR).mean() < 20


@pytest.mark.parametrize("kind", BAGS)
def test_damaged_recordings_are_one_line(tmp_path: Path, kind: str) -> None:
    path = write_bag(tmp_path / BAGS[kind], kind, count=40)
    file = path if path.is_file() else next(p for p in path.iterdir() if p.suffix != ".yaml")
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(40):
        content = bytearray(whole)
        if trial < 4:
            content = content[: len(content) * trial // 4]
        else:
            for place in rng.integers(0, len(content), 20):
                content[place] = rng.integers(256)
        file.write_bytes(content)
        try:
            with open_source(str(path)) as source:
                frames = list(source)
            lines = source.problems
            assert all(f.image.shape == frames[0].image.shape or lines for f in frames)
        except InputError as error:
            assert "walk" in str(error)
            lines = [str(error)]
        assert all("\n" not in line for line in lines)


def test_without_rosbags_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bag"
    path.write_bytes(b"#ROSBAG")
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    with pytest.raises(MissingExtraError, match=r"humanpose\[ros\]"):
        open_source(path)
