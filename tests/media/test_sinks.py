import csv
import errno
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.media import HEAD, film, frame, heard, read_trc, record_sink, times, video_sink, write

from humanpose.draw import DrawStyle, draw_people
from humanpose.errors import InputError, OutputError
from humanpose.images import load_image, save_image
from humanpose.media.sinks import video as sinks_video
from humanpose.media.sinks.record import FORMATS, RECORDS, RecordSink, record_path
from humanpose.media.sinks.video import VideoSink
from humanpose.media.sources.video import VideoSource
from humanpose.results import people_of, read_records
from humanpose.skeleton import BODY19
from humanpose.types import Frame

frame_record = Frame.to_dict

FRAMES = [frame(0), frame(1, 0), frame(2, 2)]


MAKERS: dict[str, Callable[..., Any]] = {
    **{
        record_path(name, Path("x")).name: (
            lambda path, name=name, **o: record_sink(name, path.with_name("x"), **o)
        )
        for name in RECORDS
        if name != "openpose"  # a folder, tested below
    },
    "x.mp4": video_sink,
}
each_sink = pytest.mark.parametrize(("name", "make"), MAKERS.items(), ids=MAKERS)


@each_sink
def test_file_appears_at_the_end_and_alone(
    tmp_path: Path, name: str, make: Callable[..., Any]
) -> None:
    path = tmp_path / "new" / "deep" / name
    with make(path) as sink:
        for one in FRAMES:
            sink.write(one)
        assert not path.exists()
    assert list(path.parent.iterdir()) == [path] and path.stat().st_size > 100


@each_sink
def test_existing_file_needs_force(tmp_path: Path, name: str, make: Callable[..., Any]) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=f"{name} exists; add --force"), make(path):
        pass
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with make(path, force=True) as sink:
        sink.write(FRAMES[0])
        assert path.read_bytes() == b"old"
    assert path.read_bytes() != b"old"


@each_sink
def test_error_leaves_nothing_under_the_name(
    tmp_path: Path, name: str, make: Callable[..., Any]
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), make(path, force=True):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [path]  # not one frame written: no .part either
    with pytest.raises(ZeroDivisionError), make(path, force=True) as sink:
        for one in FRAMES:
            sink.write(one)
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    part = {"x.mp4": "x.mp4.part"}.get(name, "x.jsonl.part")
    assert set(tmp_path.iterdir()) == {path, tmp_path / part}


@each_sink
def test_unwritable_places_are_output_errors(
    tmp_path: Path, name: str, make: Callable[..., Any]
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / name).mkdir()
    for path, words in ((tmp_path / "file" / name, "in the way"), (tmp_path / name, "is a folder")):
        with pytest.raises(OutputError, match=words) as caught, make(path, force=True) as sink:
            sink.write(FRAMES[0])
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 20 kB, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.json", "x.coco.json", "x.mp4", "x.trc"])
def test_full_disk_is_one_clear_error(tmp_path: Path, small_files: None, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with (
        pytest.raises(OutputError, match="the disk is full"),
        MAKERS[name](path, force=True) as sink,
    ):
        for i in range(2000):
            noise = np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8)
            sink.write(Frame(noise, i, i / 10, "a.jpg", frame(0, 3).people))
    assert path.read_bytes() == b"old"


def test_jsonl_is_read_again(tmp_path: Path) -> None:
    with record_sink("jsonl", tmp_path / "a.jsonl") as sink:
        for one in FRAMES:
            sink.write(one)
    head, records = read_records(tmp_path / "a.jsonl")
    got = list(records)
    assert head == HEAD and got == [frame_record(one) for one in FRAMES]
    (person,) = people_of(got[0], BODY19)
    assert np.allclose(person.joints, FRAMES[0].people[0].joints, atol=0.006, equal_nan=True)


def test_csv_has_a_row_per_person(tmp_path: Path) -> None:
    with record_sink("csv", tmp_path / "a.csv") as sink:
        for one in FRAMES:
            sink.write(one)
        odd = Frame(FRAMES[0].image, 3, 0.3, "caf\udce9.jpg", FRAMES[0].people)
        sink.write(odd)  # a name that is not UTF-8 on disk
    text = (tmp_path / "a.csv").read_text("utf-8", "surrogateescape")
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["index"], row["person"]) for row in rows] == [
        ("0", "0"),
        ("2", "0"),
        ("2", "1"),
        ("3", "0"),
    ]
    assert rows[0]["neck_x"] == "" and float(rows[0]["nose_x"]) > 0
    assert rows[3]["name"] == "caf\udce9.jpg"


def test_json_is_cocos_shape(tmp_path: Path) -> None:
    with record_sink("json", tmp_path / "a.json") as sink:
        for one in FRAMES:
            sink.write(one)
    got = json.loads((tmp_path / "a.json").read_text())
    assert got["info"] == {k: HEAD[k] for k in ("format", "models", "smoothing", "source")}
    assert [i["id"] for i in got["images"]] == [1, 2, 3]
    assert [(a["id"], a["image_id"]) for a in got["annotations"]] == [(1, 1), (2, 3), (3, 3)]
    assert got["categories"][0]["keypoints"] == list(BODY19.joints)
    assert got["annotations"][0]["num_keypoints"] == 18


def test_coco_is_a_bare_list(tmp_path: Path) -> None:
    with record_sink("coco", tmp_path / "a.mp4") as sink:
        for one in FRAMES:
            sink.write(one)
    got = json.loads((tmp_path / "a.coco.json").read_text())
    assert [r["image_id"] for r in got] == [1, 3, 3] and len(got[0]["keypoints"]) == 51


@pytest.mark.parametrize("name", ["jsonl", "csv", "json", "coco", "trc"])
def test_no_frames_make_a_valid_empty_file(tmp_path: Path, name: str) -> None:
    with record_sink(name, tmp_path / "a"):
        pass
    text = record_path(name, tmp_path / "a").read_text()
    if name == "json":
        assert json.loads(text)["images"] == json.loads(text)["annotations"] == []
    elif name == "coco":
        assert json.loads(text) == []
    else:
        assert text.count("\n") == {"trc": 6, "jsonl": 2, "csv": 1}[name]


def test_picture_shows_the_people(tmp_path: Path) -> None:
    one = frame(3, 2)
    save_image(tmp_path / "a.png", DrawStyle("skeleton", 0.6).draw(one))
    want = draw_people(one.image, one.people, min_score=0.6, boxes=False)
    assert (load_image(tmp_path / "a.png") == want).all()


def read(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with VideoSource(path) as source:
        frames = list(source)
        assert source.problems == []
    return [f.time for f in frames], [f.image for f in frames]


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (2, 2), (1, 1)])
def test_video_keeps_size_times_and_colours(tmp_path: Path, size: tuple[int, int]) -> None:
    times = [0.0, 0.04, 0.5, 0.52, 3.0]
    with VideoSink(tmp_path / "a.mp4", *size, 10) as sink:
        for i, time in enumerate(times):
            sink.write(frame(i, 0, size=size, time=time))
    got, images = read(tmp_path / "a.mp4")
    assert np.allclose(got, times, atol=1e-4)
    assert images[0].shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    for i, image in enumerate(images):
        assert np.abs(image.astype(int) - [5 * i, 90, 30]).max() < 12


def test_video_survives_odd_clocks_and_sizes(tmp_path: Path) -> None:
    with video_sink(tmp_path / "a.mp4") as sink:
        for i, time in enumerate([0.0, 0.1, 0.1, 0.05, 0.3]):
            sink.write(frame(i, 0, time=time, size=(64, 48) if i != 2 else (30, 90)))
    times, images = read(tmp_path / "a.mp4")
    assert len(times) == 5 and all(b > a for a, b in itertools.pairwise(times))
    assert abs(times[-1] - 0.3) < 1e-4 and images[2].shape == (48, 64, 3)


def test_video_draws_people_above_the_score(tmp_path: Path) -> None:
    one = frame(0, 2, size=(320, 240), time=0)
    for min_score in (0.1, 0.9):
        path = tmp_path / f"{min_score}.mp4"
        with VideoSink(path, 320, 240, 25, look=DrawStyle("skeleton", min_score)) as sink:
            sink.write(one)
        _, (image,) = read(path)
        want = draw_people(one.image, one.people, min_score=min_score, boxes=False)
        assert np.abs(image.astype(int) - want).mean() < 3


def test_video_without_frames_is_no_file(tmp_path: Path) -> None:
    with video_sink(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_other_encoder_where_x264_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks_video, "_ENCODERS", ("absent", "mpeg4"))
    with video_sink(tmp_path / "a.mp4") as sink:
        for one in FRAMES:
            sink.write(one)
    assert np.allclose(read(tmp_path / "a.mp4")[0], [0, 0.1, 0.2], atol=1e-3)
    monkeypatch.setattr(sinks_video, "_ENCODERS", ("absent",))
    with (
        pytest.raises(OutputError, match=r"b\.mp4: PyAV has none of absent"),
        video_sink(tmp_path / "b.mp4"),
    ):
        pass
    assert not list(tmp_path.glob("b*"))


KILLED = """
import os, sys
sys.path[:0] = ["tests", "src"]
from pathlib import Path
from makers.media import frame, record_sink, video_sink
folder = Path(sys.argv[1])
from contextlib import ExitStack
with ExitStack() as stack:
    sinks = [record_sink("csv", folder / "a.csv"), video_sink(folder / "a.mp4")]
    sinks = [stack.enter_context(sink) for sink in sinks]
    for i in range(150):
        for sink in sinks:
            sink.write(frame(i))
    os._exit(9)
"""


def test_killed_writer_leaves_a_record_that_can_be_converted(cli, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60)
    assert done.returncode == 9
    assert {p.name for p in tmp_path.iterdir()} == {"a.jsonl.part", "a.mp4.part"}
    part = tmp_path / "a.jsonl.part"
    _, records = read_records(part)
    assert len(list(records)) == 150 and not records.complete
    kinds = ("csv", "trc", "openpose", "json")
    code, said, error = cli("convert", part, "--save", ",".join(kinds))
    assert code == 0 and error == f"{part} is partial: its writer was stopped before the end\n"
    assert said.splitlines() == [str(tmp_path / f"a.{kind}") for kind in kinds]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 151
    head, _, rows = read_trc(tmp_path / "a.trc")
    assert int(head["NumFrames"]) == len(rows) == 150
    assert len(list((tmp_path / "a.openpose").iterdir())) == 150
    assert len(json.loads((tmp_path / "a.json").read_text())["images"]) == 150
    assert len(read(tmp_path / "a.mp4.part")[0]) > 50  # what the encoder held back is lost


KILLED_LOUD = """
import os, sys
sys.path[:0] = ["tests", "src"]
from pathlib import Path
from makers.media import Frame, PICTURE, VideoSink, np
folder = Path(sys.argv[1])
with VideoSink(folder / "a.mp4", 64, 48, 10, audio=folder / "source.mkv") as video:
    for i in range(250):
        noise = np.random.default_rng(i).integers(0, 256, PICTURE.shape, np.uint8)
        video.write(Frame(noise, i, i / 10))
    os._exit(9)
"""


@pytest.mark.parametrize("sound", [(0, 30), (0, 3), (12, 30), (29, 30)])
def test_killed_writer_leaves_pictures_and_sound(
    tmp_path: Path, sound: tuple[float, float]
) -> None:
    film(tmp_path / "source.mkv", "libmp3lame", seconds=30, sound=sound, burst=sound[0] + 0.5)
    done = subprocess.run([sys.executable, "-c", KILLED_LOUD, str(tmp_path)], timeout=60)
    assert done.returncode == 9
    part = tmp_path / "a.mp4.part"
    shown = times(part)
    assert len(shown) > 200 and np.allclose(np.diff(shown), 0.1, atol=2e-3)
    if sound[0] < 25:
        begin, end, _ = heard(part)
        assert abs(begin - sound[0]) < 0.1 and end > min(sound[1] - 0.1, 20)


def test_full_disk_is_one_clear_error_with_sound_too(tmp_path: Path, small_files: None) -> None:
    source = film(tmp_path / "a.mkv", "libmp3lame", seconds=1)
    assert source.stat().st_size < 20_000
    with pytest.raises(OutputError, match="the disk is full"):
        write(tmp_path / "a.mp4", source, 3000)


def test_record_formats_are_named_after_the_output(tmp_path: Path) -> None:
    output = tmp_path / "sub" / "walk.v2.mp4"
    with RecordSink(output, HEAD, RECORDS) as sink:
        sink.write(FRAMES[0])
    assert {p.name for p in output.parent.iterdir()} == {
        "walk.v2.jsonl",
        "walk.v2.csv",
        "walk.v2.json",
        "walk.v2.coco.json",
        "walk.v2.openpose",
        "walk.v2.trc",
    }
    with (
        pytest.raises(
            InputError,
            match="no record format 'xml'; there are jsonl, csv, json, coco, openpose, trc",
        ),
        RecordSink(output, HEAD, ["xml"]),
    ):
        pass


def test_footer_counts_and_tells_the_problems(tmp_path: Path) -> None:
    problems: list[str] = []
    with RecordSink(tmp_path / "a.mp4", HEAD, ["jsonl"], problems=problems) as sink:
        for one in FRAMES:
            sink.write(one)
        problems.append("ends early")
    _, frames = read_records(tmp_path / "a.jsonl")
    want = {"complete": True, "frames": 3, "people": 3, "problems": ["ends early"]}
    assert frames.complete and frames.footer == want and len(list(frames)) == 3


def test_convert_makes_what_the_run_would_have_made(cli, tmp_path: Path) -> None:
    with RecordSink(tmp_path / "a.mp4", HEAD, RECORDS) as sink:
        for one in FRAMES:
            sink.write(one)
    out = tmp_path / "out"
    record = tmp_path / "a.jsonl"
    code, _, error = cli("convert", record, "--save", ",".join(FORMATS), "-o", out)
    assert (code, error) == (0, "")
    made = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert made == {p: (tmp_path / p).read_bytes() for p in made} and len(made) == 4 + 3
    code, _, error = cli("convert", record, "--save", "csv", "-o", out)
    assert code == 74 and "a.csv exists; add --force" in error
    assert cli("convert", record, "--save", "csv", "-o", out, "--force")[0] == 0
    code, _, error = cli("convert", record, "--save", "xml")
    assert code == 2 and "--save xml: choose from csv, json, coco, openpose, trc" in error
    code, _, error = cli("convert", tmp_path / "gone.jsonl", "--save", "csv")
    assert code == 2 and "does not exist" in error


def test_failed_write_in_the_middle_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    sink = record_sink("jsonl", tmp_path / "a.jsonl")
    with pytest.raises(OutputError, match=r"a\.jsonl: Input/output error"), sink:
        sink.write(FRAMES[0])
        monkeypatch.setattr(os, "replace", fail)
    assert {p.name for p in tmp_path.iterdir()} == {"a.jsonl.part"}
