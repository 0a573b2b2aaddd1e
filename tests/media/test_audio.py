"""The sound of annotated videos: kept, in step, and never the reason that a video fails."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.media import PICTURE, RATE, film, heard, times, write

from humanpose.cli.options import changed
from humanpose.cli.predict import Prediction, PredictOptions
from humanpose.infer.stream import results
from humanpose.media.sinks import sound
from humanpose.media.sinks.video import VideoSink
from humanpose.media.sources import find_inputs
from humanpose.media.sources.video import VideoSource
from humanpose.skeleton import BODY19
from humanpose.types import Frame


def annotate(source: Path, path: Path, frames: int | None = None, **options: Any) -> list[str]:
    """Write `source`, or its first `frames`, as `humanpose predict` does; gives the problems."""
    with (
        VideoSource(source) as video,
        VideoSink(path, 64, 48, video.rate, audio=source, **options) as sink,
    ):
        for i, frame in enumerate(video):
            if frames is None or i < frames:
                sink.write(frame)
    return sink.problems


def streams(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [s.codec_context.codec.canonical_name for s in container.streams]


def payload(path: Path, *, since: float = 0) -> list[bytes]:
    """The audio packets that begin at `since`, seconds, or later."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(audio=0) if p.size]
    return [bytes(p) for p in packets if p.pts * p.time_base >= since]


KINDS = {
    "aac.mp4": ("aac", "aac"),
    "aac.mkv": ("aac", "aac"),
    "aac.ts": ("aac", "aac"),
    "mp3.mkv": ("libmp3lame", "mp3"),
    "opus.mkv": ("libopus", "opus"),
    "flac.mkv": ("flac", "flac"),
    "alac.mov": ("alac", "alac"),
    "pcm.mkv": ("pcm_s16le", "aac"),
    "pcm.avi": ("pcm_s16le", "aac"),
    "pcm.mov": ("pcm_s24le", "aac"),
    "ac3.mkv": ("ac3", "aac"),
    "ac3.ts": ("ac3", "aac"),
}


@pytest.mark.parametrize("start", [0, 2.5])
@pytest.mark.parametrize(("name", "codecs"), KINDS.items(), ids=KINDS)
def test_sound_is_kept_and_in_step(
    tmp_path: Path, name: str, codecs: tuple[str, str], start: float
) -> None:
    if start and name == "pcm.avi":
        pytest.skip("in AVI everything starts at 0")
    source = film(tmp_path / name, codecs[0], start=start)
    assert annotate(source, tmp_path / "a.mp4") == []
    assert streams(tmp_path / "a.mp4") == ["h264", codecs[1]]
    begin, end, burst = heard(tmp_path / "a.mp4")
    assert 0 <= begin < 0.1 and abs(end - 3) < 0.1
    assert abs(burst - 0.5) < 0.05
    assert np.allclose(times(tmp_path / "a.mp4"), np.arange(30) / 10, atol=2e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("start", [0, 2.5])
def test_what_fits_is_copied_byte_for_byte(tmp_path: Path, name: str, start: float) -> None:
    source = film(tmp_path / name, start=start)
    annotate(source, tmp_path / "out.mp4")
    want = payload(source, since=start)
    assert payload(tmp_path / "out.mp4") == want and len(want) > 135
    assert av.open(str(tmp_path / "out.mp4")).streams.audio[0].codec_context.extradata


@pytest.mark.parametrize(
    ("codec", "rate", "layout", "want"),
    [
        ("pcm_s16le", 8000, "stereo", (8000, 2)),
        ("pcm_s16le", 37_800, "mono", (48_000, 1)),
        ("pcm_s16le", 48_000, "5.1", (48_000, 2)),
        ("pcm_f32le", 96_000, "mono", (96_000, 1)),
        ("libmp3lame", 8000, "mono", (8000, 1)),  # mp4 allows MP3 from 16 kHz on
    ],
)
def test_what_does_not_fit_becomes_aac(
    tmp_path: Path, codec: str, rate: int, layout: str, want: tuple[int, int]
) -> None:
    source = film(tmp_path / "a.mkv", codec, rate=rate, layout=layout)
    assert annotate(source, tmp_path / "a.mp4") == []
    assert streams(tmp_path / "a.mp4") == ["h264", "aac"]
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.audio[0].codec_context
        assert (context.sample_rate, context.layout.nb_channels) == want
    _, end, burst = heard(tmp_path / "a.mp4")
    assert abs(end - 3) < 0.2 and abs(burst - 0.5) < 0.05


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_may_set_in_late_and_end_early(tmp_path: Path, codec: str) -> None:
    source = film(tmp_path / "a.mov", codec, seconds=5, sound=(1.5, 3.2), burst=2)
    assert annotate(source, tmp_path / "a.mp4") == []
    begin, end, burst = heard(tmp_path / "a.mp4")
    assert abs(begin - 1.5) < 0.05 and abs(end - 3.2) < 0.1 and abs(burst - 2) < 0.05
    assert np.allclose(times(tmp_path / "a.mp4"), np.arange(50) / 10, atol=2e-3)


@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_no_sound_below_pictures_that_were_left_out(tmp_path: Path, name: str, codec: str) -> None:
    source = film(tmp_path / name, codec, seconds=5, sound=(0, 5.8), burst=0.5)
    assert annotate(source, tmp_path / "whole.mp4") == []
    assert abs(heard(tmp_path / "whole.mp4")[1] - 5.8) < 0.1
    assert annotate(source, tmp_path / "cut.mp4", 20) == []
    assert abs(heard(tmp_path / "cut.mp4")[1] - 2) < 0.1
    with (
        pytest.raises(ZeroDivisionError),
        VideoSink(tmp_path / "b.mp4", 64, 48, 10, audio=source) as sink,
    ):
        for i in range(20):
            sink.write(Frame(PICTURE, i, i / 10))
        raise ZeroDivisionError
    assert abs(heard(tmp_path / "b.mp4.part")[1] - 2) < 0.1


def test_sound_begins_with_the_first_picture_that_is_written(tmp_path: Path) -> None:
    for codec in ("aac", "pcm_s16le"):
        source = film(tmp_path / "a.mkv", codec, start=1, burst=1.5)
        out = tmp_path / f"{codec}.mp4"
        with VideoSink(out, 64, 48, 10, audio=source) as sink:
            for i in range(10, 30):
                sink.write(Frame(PICTURE, i, i / 10))
        begin, end, burst = heard(out)
        assert np.allclose(times(out), np.arange(20) / 10, atol=2e-3) and sink.problems == []
        assert 0 <= begin < 0.1 and abs(end - 2) < 0.1 and abs(burst - 0.5) < 0.05


def test_long_sound_stays_where_every_picture_is_shown(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", seconds=2, sound=(0, 6))
    assert annotate(source, tmp_path / "b.mp4") == []
    assert abs(heard(tmp_path / "b.mp4")[1] - 6) < 0.1


def test_silent_films_stay_silent(tmp_path: Path) -> None:
    silent = film(tmp_path / "silent.mp4", sound=(0, 0))  # a track without a packet
    with av.open(str(tmp_path / "none.mp4"), "w") as out, av.open(str(silent)) as given:
        copy = out.add_stream_from_template(given.streams.video[0], opaque=True)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    for source in (silent, tmp_path / "none.mp4"):
        assert annotate(source, tmp_path / f"{source.stem}.out.mp4") == []
        assert streams(tmp_path / f"{source.stem}.out.mp4") == ["h264"]
    with VideoSink(tmp_path / "a.mp4", 64, 48, 10) as sink:  # nor is sound made up
        sink.write(Frame(PICTURE))
    assert streams(tmp_path / "a.mp4") == ["h264"] and sink.problems == []


def test_sound_that_cannot_be_read_is_left_out_with_a_line(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    assert write(out, tmp_path / "gone.mp4") == [
        f"gone.mp4: sound left out ({tmp_path}/gone.mp4 does not exist)"
    ]
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:5,\n{tmp_path}/whole.mp4\n")
    (line,) = write(out, tmp_path / "list.mp4")
    assert "not a video that can be read" in line
    assert streams(out) == ["h264"]


def test_damaged_sound_is_left_out_packet_by_packet(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mkv", "ac3")
    packets = payload(source, since=-1)
    content = source.read_bytes()
    for one in packets[20:30]:
        content = content.replace(one, bytes(len(one)))
    source.write_bytes(content)
    out = tmp_path / "a.mp4"
    (line,) = write(out, source)
    assert line == "a.mkv: sound damaged, 10 packets missing"
    assert abs(heard(out)[1] - 3) < 0.1 and abs(heard(out)[2] - 0.5) < 0.05
    for one in packets:
        content = content.replace(one, bytes(len(one)))
    source.write_bytes(content)
    assert write(out, source) == ["a.mkv: sound left out (none of it could be decoded)"]
    assert streams(out) == ["h264"]


def test_rates_beyond_reason_are_damage(tmp_path: Path) -> None:
    source = film(tmp_path / "a.avi", "pcm_s16le", rate=8000)
    content = source.read_bytes()
    for rate, per_second in ((8000, 3), (16_000, 6)):
        content = content.replace(struct.pack("<I", rate), struct.pack("<I", per_second))
    source.write_bytes(content)
    assert write(tmp_path / "a.mp4", source) == [
        "a.avi: sound left out (none of it could be decoded)"
    ]


def test_sound_that_changes_its_kind_goes_on(tmp_path: Path) -> None:
    one = film(tmp_path / "1.ts", "ac3", seconds=2, layout="stereo")
    two = film(tmp_path / "2.ts", "ac3", seconds=2, sound=(2, 4), start=2, rate=44_100)
    (tmp_path / "a.ts").write_bytes(one.read_bytes() + two.read_bytes())
    assert write(tmp_path / "a.mp4", tmp_path / "a.ts", 40) == []
    _, end, _ = heard(tmp_path / "a.mp4")
    wave = np.zeros(5 * RATE)
    with av.open(str(tmp_path / "a.mp4")) as container:
        for frame in container.decode(audio=0):
            at = round(frame.time * RATE)
            wave[at : at + frame.samples] = frame.to_ndarray()[0]
    loud = np.flatnonzero(np.abs(wave) > 0.1) / RATE
    assert abs(end - 4) < 0.1
    assert abs(loud[0] - 0.5) < 0.05 and abs(loud[loud > 1][0] - 2.5) < 0.05


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_half_a_file_gives_the_sound_there_is(tmp_path: Path, codec: str) -> None:
    source = film(tmp_path / "a.mkv", codec)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    write(tmp_path / "a.mp4", source)
    assert 0.5 < heard(tmp_path / "a.mp4")[1] < 2.5


def test_a_sound_that_breaks_off_keeps_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(frames: Any, stream: Any) -> Any:
        for i, frame in enumerate(frames):
            if i == 10:
                raise ValueError("Frame does not match AudioResampler setup.")
            yield from stream.encode(frame)

    monkeypatch.setattr(sound, "_encoded", breaking)
    (line,) = write(tmp_path / "a.mp4", film(tmp_path / "a.mkv", "pcm_s16le"))
    assert line.startswith("a.mkv: sound ends at 0.9 s (Frame does not match")
    assert abs(heard(tmp_path / "a.mp4")[1] - 1) < 0.1


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.ts", "aac"), ("a.avi", "ac3")])
def test_no_damage_fails_the_video(
    tmp_path_factory: pytest.TempPathFactory, name: str, codec: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    good = film(folder / name, codec, seconds=1, **options).read_bytes()

    @settings(deadline=None, max_examples=20, database=None)
    @given(
        edits=st.lists(
            st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=40
        )
    )
    def check(edits: list[tuple[int, int]]) -> None:
        content = bytearray(good)
        for place, value in edits:
            content[place % len(content)] = value
        (folder / name).write_bytes(content)
        assert len(write(folder / "out.mp4", folder / name, 10)) <= 2

    check()


def test_predict_keeps_the_sound_and_tells_what_is_wrong(tmp_path: Path) -> None:
    def run(source: Path) -> Prediction:
        estimator: Any = SimpleNamespace(
            follow=lambda video, _: results(video, lambda frame: frame),
            header=lambda *_: {},
            skeleton=BODY19,
        )
        options = {"save": "video", "output": tmp_path / "o", "force": True, "quiet": True}
        prediction = Prediction([str(source)], changed(PredictOptions(), options))
        prediction.run(estimator)
        return prediction

    source = film(tmp_path / "a.mkv", "ac3")
    assert find_inputs([str(source)])[0].kind == "video"
    assert run(source).problems == []
    (drawn,) = (tmp_path / "o").iterdir()
    assert streams(drawn) == ["h264", "aac"] and abs(heard(drawn)[2] - 0.5) < 0.05
    content = source.read_bytes()
    for one in payload(source, since=-1):
        content = content.replace(one, bytes(len(one)))
    source.write_bytes(content)
    outcome = run(source)
    assert outcome.frames == 30
    assert outcome.problems == ["a.mkv: sound left out (none of it could be decoded)"]
