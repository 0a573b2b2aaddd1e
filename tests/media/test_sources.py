import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.media import BLUE, EVEN, GREEN, RED, WHITE, quarters, video

from humanpose.errors import FormatError, InputError
from humanpose.images import save_image
from humanpose.media.sources import find_inputs
from humanpose.media.sources.video import VideoSource


def read(path: Path) -> tuple[list[float], list[int], VideoSource]:
    with VideoSource(path) as source:
        frames = list(source)
    assert all(f.image.shape == (source.height, source.width, 3) for f in frames)
    return [f.time for f in frames], [f.index for f in frames], source


def test_frames_come_with_the_containers_times(tmp_path: Path) -> None:
    times, indices, source = read(video(tmp_path / "walk.mp4", EVEN))
    assert np.allclose(times, EVEN, atol=1e-3) and indices == list(range(12))
    assert (source.name, source.width, source.height) == ("walk.mp4", 64, 48)
    assert abs(source.rate - 10) < 0.1 and source.frames == 12 and source.problems == []


def test_frame_is_rgb_and_named(tmp_path: Path) -> None:
    with VideoSource(video(tmp_path / "walk.mp4", EVEN)) as source:
        frames = list(source)
    frame = frames[3]
    assert frame.name == "walk.mp4#3" and frame.people == ()
    assert frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous
    assert np.abs(frame.image.astype(int) - quarters(64, 48)).mean() < 8


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_variable_rate_is_told_by_the_container(tmp_path: Path, suffix: str) -> None:
    odd = [0.0, 0.04, 0.5, 0.52, 3.0, 7.25]
    times, _, source = read(video(tmp_path / f"a.{suffix}", odd))
    assert np.allclose(times, odd, atol=1e-3) and source.problems == []


def test_time_starts_at_the_first_frame(tmp_path: Path) -> None:
    late = [5 + t for t in EVEN]
    for name, options in (("a.mkv", {}), ("a.ts", {}), ("a.mp4", {})):
        times, _, source = read(video(tmp_path / name, late, **options))
        assert np.allclose(times, EVEN, atol=2e-3) and source.problems == []
    early = [t - 0.35 for t in EVEN]  # Matroska gives no time to frames before zero
    times, _, source = read(video(tmp_path / "b.mkv", early, avoid_negative_ts="disabled"))
    assert np.allclose(times, EVEN, atol=2e-3) and source.problems == []
    trimmed = video(tmp_path / "b.mp4", early, encoder={"bf": "0"})  # frames before zero are cut
    times, _, source = read(trimmed)
    assert np.allclose(times, EVEN[:8], atol=2e-3) and source.frames == 12
    assert source.problems == []


def test_missing_times_follow_the_rate(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.h264"), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(64, 48))))
        container.mux(stream.encode())
    times, indices, source = read(tmp_path / "a.h264")
    assert indices == list(range(6))
    assert np.allclose(times, [float(i / source.rate) for i in range(6)], atol=1e-3)


@pytest.mark.parametrize(
    ("rotation", "corners"),
    [
        (0, [RED, GREEN, BLUE, WHITE]),
        (90, [GREEN, WHITE, RED, BLUE]),
        (180, [WHITE, BLUE, GREEN, RED]),
        (270, [BLUE, RED, WHITE, GREEN]),
    ],
)
def test_rotation_is_applied(tmp_path: Path, rotation: int, corners: list[tuple[int, ...]]) -> None:
    """FFmpeg's angle is counter-clockwise: at 90 the upper right corner goes to the upper left."""
    with VideoSource(video(tmp_path / "a.mp4", EVEN[:3], rotation=rotation)) as source:
        assert (source.width, source.height) == ((48, 64) if rotation % 180 else (64, 48))
        for frame in source:
            got = [frame.image[y, x] for y in (8, -8) for x in (8, -8)]
            assert np.abs(np.array(got, int) - corners).max() < 40


def test_codecs_odd_sizes_depths_and_sound(tmp_path: Path) -> None:
    odd = video(tmp_path / "odd.mp4", EVEN, size=(63, 47), pix_fmt="yuv444p")
    deep = video(tmp_path / "deep.mkv", EVEN, pix_fmt="yuv420p10le")
    webm = video(tmp_path / "a.webm", EVEN, codec="libvpx-vp9", encoder={"cpu-used": "8"})
    avi = video(tmp_path / "a.avi", EVEN, codec="mpeg4")
    loud = video(tmp_path / "loud.mp4", EVEN, sound=True)
    for path in (odd, deep, webm, avi, loud):
        times, _, source = read(path)
        assert len(times) == 12 and source.problems == [], path
    assert read(odd)[2].width == 63 and read(odd)[2].height == 47
    times, _, source = read(video(tmp_path / "one.mp4", [0.0]))
    assert times == [0.0] and source.problems == []


def test_names_that_ffmpeg_would_take_for_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = video(tmp_path / "a.mp4", EVEN).read_bytes()
    monkeypatch.chdir(tmp_path)
    for name in ("-x.mp4", "a:b.mp4", "concat:x.mp4", "ü ñ.mp4", "%03d.mp4", "new\nline.mp4"):
        Path(name).write_bytes(good)
        assert len(read(Path(name))[0]) == 12


def test_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.mp4 does not exist"):
        VideoSource(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="is a folder"):
        VideoSource(tmp_path)
    path = tmp_path / "a.mp4"
    path.touch()
    with pytest.raises(FormatError, match=r"a\.mp4 is empty"):
        VideoSource(path)
    whole = video(tmp_path / "whole.mp4", EVEN).read_bytes()  # its index lies at the end
    playlist = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{tmp_path}/whole.mp4\n#EXT-X-ENDLIST\n"
    )
    for content in (b"hello world" * 99, whole[: len(whole) // 2], playlist.encode()):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"a\.mp4 is not a video that can be read") as caught:
            VideoSource(path)
        assert "\n" not in str(caught.value)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        voice = container.add_stream("aac", rate=8000)
        noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        noise.sample_rate = 8000
        container.mux(voice.encode(noise))
        container.mux(voice.encode())
    with pytest.raises(FormatError, match=r"sound\.mp4 holds no video"):
        VideoSource(tmp_path / "sound.mp4")


LONG = [i / 10 for i in range(80)]


@pytest.fixture(params=["small", "large"])
def decoded_as(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one thread and, as pictures larger than these are, by two."""
    if request.param == "large":
        monkeypatch.setattr("humanpose.media.sources.video._ONE_THREAD", 0)


@pytest.mark.usefixtures("decoded_as")
def test_half_a_video_is_reported(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    kept = {"picture": noise, "encoder": {"g": "1"}}  # every frame weighs the same
    whole = video(tmp_path / "a.mp4", LONG, movflags="faststart", **kept).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: int(len(whole) * 0.6)])
    times, indices, source = read(tmp_path / "a.mp4")
    n = len(times)
    assert 8 < n < 78 and indices == list(range(n))
    assert source.problems == [f"a.mp4: ends early, {n} of 80 frames could be read"]
    whole = video(tmp_path / "b.mkv", LONG, **kept).read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[: int(len(whole) * 0.6)])
    times, _, source = read(tmp_path / "b.mkv")
    (line,) = source.problems
    assert line.startswith(f"b.mkv: ends early, {len(times)} frames") and "of 8.0 s" in line
    whole = video(tmp_path / "c.avi", LONG, codec="mpeg4", picture=noise).read_bytes()
    (tmp_path / "c.avi").write_bytes(whole[: int(len(whole) * 0.2)])  # half of it is the index
    assert read(tmp_path / "c.avi")[2].problems[0].startswith("c.avi: ends early")


@pytest.mark.usefixtures("decoded_as")
def test_damage_inside_keeps_indices_and_times_in_step(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", LONG, encoder={"g": "8", "bf": "0"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    at, size = packets[40]
    content[at : at + size] = bytes([255]) * size
    path.write_bytes(content)
    times, indices, source = read(path)
    assert len(times) >= 70 and indices[-1] == 79 and abs(times[-1] - 7.9) < 1e-3
    late = [(i, t) for i, t in zip(indices, times, strict=True) if i > 50]
    assert all(abs(t - i / 10) < 1e-3 for i, t in late)
    assert source.problems == [f"a.mp4: damaged, {80 - len(times)} frames missing, 0 flawed"]


@settings(deadline=None, max_examples=25)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6)
)
def test_damaged_bytes_end_in_frames_or_in_our_error(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.mp4"
    if not path.with_suffix(".good").exists():
        path.with_suffix(".good").write_bytes(video(path, EVEN, movflags="faststart").read_bytes())
    content = bytearray(path.with_suffix(".good").read_bytes())
    for place, value in edits:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        with VideoSource(path) as source:  # frames may change their size on the way
            times = [frame.time for frame in source]
    except InputError as error:
        assert "fuzz.mp4" in str(error)
    else:
        assert times and np.isfinite(times).all() and len(source.problems) <= 1


def test_real_videos(data: Path) -> None:
    times, indices, source = read(data / "videos" / "dance.mp4")
    assert len(times) == 545 == source.frames and source.rate == 30 and source.problems == []
    assert (source.width, source.height) == (384, 496)
    assert np.allclose(times, np.arange(545) / 30, atol=1e-3) and indices[-1] == 544


def test_the_room_itself_imports_no_codec() -> None:
    code = (
        "import sys, humanpose.media.sources, humanpose.media.sinks; sys.exit('av' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "src"}
        ).returncode
        == 0
    )


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """day1/{2,10}.jpg, day1/sub/a b.png, day2/2.jpg, walk.mp4, and things to pass over."""
    picture = np.zeros((4, 5, 3), np.uint8)
    for name in (
        "day1/2.jpg",
        "day1/10.jpg",
        "day1/sub/a b.png",
        "day2/2.jpg",
        "day1/.hidden/x.jpg",
        "day1/.y.jpg",
    ):
        save_image(tmp_path / name, picture)
    (tmp_path / "day1" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "walk.mp4").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def names(sources: list[str], **options: Path) -> list[tuple[str, str]]:
    return [
        (item.path.as_posix(), item.output.as_posix()) for item in find_inputs(sources, **options)
    ]


def test_folder_is_searched_in_natural_order(tree: Path) -> None:
    assert names(["day1"]) == [
        ("day1/2.jpg", "2.jpg"),
        ("day1/10.jpg", "10.jpg"),
        ("day1/sub/a b.png", "sub/a b.png"),
    ]
    assert [item.kind for item in find_inputs([".", "walk.mp4"])] == ["video"] + ["picture"] * 4
    assert names(["day1"], exclude=Path("day1/sub"))[-1] == ("day1/10.jpg", "10.jpg")


def test_patterns_keep_paths_below_their_fixed_part(tree: Path) -> None:
    assert names(["day1/*"]) == [("day1/2.jpg", "2.jpg"), ("day1/10.jpg", "10.jpg")]
    assert names(["**/*.png"]) == [("day1/sub/a b.png", "day1/sub/a b.png")]
    outputs = [output for _, output in names([f"{tree}/day?/2.jpg"])]
    assert outputs == ["day1/2.jpg", "day2/2.jpg"]
    save_image("day2/x[1].jpg", np.zeros((4, 5, 3), np.uint8))
    assert names(["day2/x[1].jpg"]) == [("day2/x[1].jpg", "x[1].jpg")]


def test_same_names_of_two_sources_are_kept_apart(tree: Path) -> None:
    assert names(["day1", "day2"]) == [
        ("day1/2.jpg", "day1/2.jpg"),
        ("day1/10.jpg", "day1/10.jpg"),
        ("day1/sub/a b.png", "day1/sub/a b.png"),
        ("day2/2.jpg", "day2/2.jpg"),
    ]
    assert names(["day1/2.jpg", "day2/2.jpg"])[1] == ("day2/2.jpg", "day2/2.jpg")
    assert names(["day1/2.jpg", "day1", "./day1/2.jpg"])[0] == ("day1/2.jpg", "2.jpg")
    assert len(names(["day1/2.jpg", "day1", "./day1/2.jpg"])) == 3


def test_suffixes_that_cannot_be_written_get_one_that_can(tree: Path) -> None:
    for name in ("a.tiff", "a.jpg", "a.JPG", "A.png", "c.gif", "walk.avi", "IMG.HEIC"):
        Path(name).write_bytes(b"x")
    got = names(["a.tiff", "a.jpg", "a.JPG", "A.png", "c.gif", "walk.avi", "walk.mp4", "IMG.HEIC"])
    want = "a.tiff.jpg a.jpg a-2.JPG A-3.png c.gif.jpg walk.avi.mp4 walk.mp4 IMG.HEIC.jpg"
    assert " ".join(output for _, output in got) == want


def test_content_decides_where_the_suffix_does_not(tree: Path) -> None:
    Path("-shot").write_bytes(Path("day2/2.jpg").read_bytes())
    Path("clip").write_bytes(b"?")
    assert [(i.kind, i.output.name) for i in find_inputs(["-shot", "clip"])] == [
        ("picture", "-shot.jpg"),
        ("video", "clip.mp4"),
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("absent.jpg", r"absent\.jpg does not exist"),
        ("empty", "empty holds no picture and no video"),
        ("day1/*.tif", r"day1/\*\.tif matches no picture"),
        ("day1/*.txt", "matches no picture"),
        ("", "is not the name of"),
    ],
)
def test_sources_that_mean_nothing(tree: Path, source: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_inputs([source])


letters = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1
)
file_names = st.builds(
    lambda stem, suffix: os.fsdecode(os.fsencode(stem)[:200].decode("utf-8", "ignore")) + suffix,
    st.sampled_from(["a", "A", "é", "é", "-a", "a b", "a\nb", "a.b", "x" * 250]) | letters,
    st.sampled_from([".jpg", ".JPG", ".png", ".tif", ".mp4", ".avi"]),
)


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(
        st.tuples(st.sampled_from(["one", "two", "two/in"]), file_names), min_size=1, max_size=8
    )
)
def test_no_two_inputs_share_an_output(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("t")
    for folder, name in files:
        (root / folder).mkdir(exist_ok=True, parents=True)
        (root / folder / name).touch()
    wanted = {p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")}
    if not wanted:
        return
    folders = [
        str(root / top) for top in ("one", "two") if any((root / top) in p.parents for p in wanted)
    ]
    items = find_inputs(folders)
    assert {item.path for item in items} == wanted and items == find_inputs(folders)
    keys = {unicodedata.normalize("NFC", str(i.output.with_suffix(""))).casefold() for i in items}
    assert len(keys) == len(items)
    for item in items:
        assert not item.output.is_absolute() and ".." not in item.output.parts
        assert len(os.fsencode(item.output.name)) <= 230
        assert item.output.suffix.lower() in (
            (".mp4",) if item.kind == "video" else (".jpg", ".png")
        )
