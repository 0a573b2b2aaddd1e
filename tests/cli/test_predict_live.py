"""`humanpose predict` on what moves and is no video file: streams, pictures, recordings."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from makers.media import mjpeg, write_bag

from humanpose import PoseEstimator
from humanpose.images import save_image
from humanpose.results import read_records

KINDS = "video,jsonl,json,csv,coco,openpose,trc"


def frames_of(path: Path) -> list[dict]:
    return list(read_records(path)[1])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stream_is_recorded_until_a_signal(tmp_path: Path, number: int, code: int) -> None:
    with mjpeg(30) as feed:
        url = feed.url.replace("//", "//user:secret@")
        command = [sys.executable, "-m", "humanpose.cli.main", "predict", url]
        child = subprocess.Popen(
            [*command, "--save", KINDS, "-o", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        end = time.monotonic() + 60
        while not (parts := list(tmp_path.glob("*.jsonl.part"))) or (
            parts[0].read_bytes().count(b"\n") < 20
        ):
            assert child.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        feed.stalled.set()  # the signal comes while nothing else does
        time.sleep(0.5)
        child.send_signal(number)
        said, error = child.communicate(timeout=20)
    assert child.returncode == code, error
    assert error == "interrupted: results are complete up to here\n"
    name = parts[0].name.removesuffix(".jsonl.part")
    suffixes = ["mp4", "jsonl", "json", "csv", "coco.json", "openpose", "trc"]
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}.{suffix}" for suffix in suffixes}
    frames = frames_of(tmp_path / f"{name}.jsonl")
    assert len(frames) >= 19 and f"{len(frames)} frames" in said
    times = [frame["time"] for frame in frames]
    assert times[0] < 0.5 and all(np.diff(times) > 0) and times[-1] < 60
    assert len(json.loads((tmp_path / f"{name}.json").read_text())["images"]) == len(frames)
    with av.open(str(tmp_path / f"{name}.mp4")) as annotated:
        shown = [frame.time for frame in annotated.decode(video=0)]
    # The file begins at 0, whenever the stream's first picture came.
    assert np.allclose(shown, np.subtract(times, times[0]), atol=2e-3)
    assert len(list((tmp_path / f"{name}.openpose").iterdir())) == len(frames)
    assert len((tmp_path / f"{name}.trc").read_text().splitlines()) == 6 + len(frames)
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert b"secret" not in path.read_bytes()


def test_a_stream_is_ended_by_frames_seconds_or_retries(cli, tmp_path: Path) -> None:
    with mjpeg(30) as feed:
        options = ("--save", "jsonl", "--detector", "none", "-o", tmp_path, "--force")
        code, said, error = cli("predict", feed.url, *options, "--frames", "7")
        assert (code, error) == (0, "") and "7 frames" in said
        (path,) = tmp_path.glob("*.jsonl")
        assert len(frames_of(path)) == 7
        assert cli("predict", feed.url, *options, "--seconds", "0.5")[0] == 0
        assert 2 < len(frames_of(path)) <= 30 and frames_of(path)[-1]["time"] < 0.5
        feed.ending_after = 10
        code, said, error = cli("predict", feed.url, *options, "--retries", "0")
        assert code == 3 and "lost after 0 attempts" in error and "1 of" not in error
        assert len(frames_of(path)) >= 1
        feed.refusing.set()
        code, _, error = cli("predict", feed.url, *options)
        assert code == 3 and error.startswith(f"skipped: {feed.url} cannot be read: ")


def test_a_camera_that_is_not_there_is_one_line(cli, tmp_path: Path) -> None:
    code, _, error = cli("predict", "97", "-o", tmp_path / "out", "-q")
    assert code == 3 and error.startswith("skipped: camera 97: there is no /dev/video97 (cameras ")
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_frames_and_seconds_limit_files_too(cli, data: Path, tmp_path: Path) -> None:
    video = data / "videos" / "dance.mp4"
    options = ("--save", "jsonl", "--detector", "none", "-o", tmp_path, "--force")
    for limit, count in ((("--frames", "4"), 4), (("--seconds", "0.1"), 3)):
        code, _, error = cli("predict", video, *options, *limit)
        assert (code, error) == (0, "") and len(frames_of(tmp_path / "dance.jsonl")) == count


def test_numbered_pictures_are_a_video(cli, tmp_path: Path) -> None:
    for i in (1, 2, 4):
        save_image(tmp_path / "shots" / f"{i:04d}.png", np.full((48, 64, 3), 50 * i, np.uint8))
    out = tmp_path / "out"
    options = ("--rate", "10", "--save", "video,jsonl,trc", "-o", out, "--force")
    for source in (("shots/%04d.png",), ("shots", "--as-video"), ("shots/*.png", "--as-video")):
        code, said, error = cli("predict", tmp_path / source[0], *source[1:], *options)
        assert code == 0 and "3 frames" in said, error
        times = [0, 0.1, 0.3] if "%" in source[0] else [0, 0.1, 0.2]
        assert [f["time"] for f in frames_of(out / "shots.jsonl")] == times
        with av.open(str(out / "shots.mp4")) as annotated:
            assert np.allclose([f.time for f in annotated.decode(video=0)], times, atol=1e-3)
        rows = (out / "shots.trc").read_text().splitlines()[6:]
        assert [float(row.split("\t")[1]) for row in rows] == times


def test_python_streams_them_too(tmp_path: Path) -> None:
    for i in range(3):
        save_image(tmp_path / f"{i}.png", np.full((48, 64, 3), 50 * i, np.uint8))
    frames = list(PoseEstimator(detector=None).stream(tmp_path / "%d.png"))
    assert [(f.index, f.name, len(f.people)) for f in frames] == [
        (i, f"{i}.png", 1) for i in range(3)
    ]


def test_a_recording_is_a_video(cli, tmp_path: Path) -> None:
    path = write_bag(tmp_path / "walk.bag", "ros1", topics=2)
    code, _, error = cli("predict", path, "-o", tmp_path / "out", "-q")
    assert code == 3 and "by --topic: /camera/image, /camera/jpeg" in error
    options = ("--topic", "/camera/image", "--save", "jsonl", "-o", tmp_path / "out")
    code, said, error = cli("predict", path, *options)
    assert code == 0 and "6 frames" in said, error


def test_motion_of_pictures_is_refused(cli, noise_picture: Path, tmp_path: Path) -> None:
    code, _, error = cli("predict", noise_picture, "--save", "trc", "-o", tmp_path / "out")
    assert code == 2 and "trc is for what moves" in error


def test_an_output_that_cannot_be_written_ends_the_stream(cli, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with mjpeg(30) as feed:
        code, _, error = cli("predict", feed.url, "-o", tmp_path / "taken")
    assert code == 74 and error.count("\n") == 1 and "taken" in error
