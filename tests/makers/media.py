"""Test data of the media room: servers, videos, sound, ROS recordings, frames and their sinks."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from humanpose.media.sinks.record import RecordSink
from humanpose.media.sinks.video import VideoSink
from humanpose.media.sources.video import VideoSource
from humanpose.results import header
from humanpose.skeleton import BODY19
from humanpose.types import Frame, Person


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def numbered_jpeg(number: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A grey picture whose brightness is `number` modulo 200."""
    grey = Image.fromarray(np.full((size[1], size[0]), number % 200, np.uint8)).convert("RGB")
    out = io.BytesIO()
    grey.save(out, "JPEG", quality=90)
    return out.getvalue()


class Feed:
    """What a camera in the network does; the server's threads look here."""

    def __init__(self, rate: float = 30.0) -> None:
        self.rate = rate
        self.stalled = threading.Event()  # connections stay open, nothing is sent
        self.refusing = threading.Event()  # open connections end, new ones get a 503
        self.over = threading.Event()
        self.requests: list[str] = []
        self.sent: dict[int, float] = {}  # brightness of a picture -> when it was made
        self.url = ""
        self.ending_after: float = float("inf")  # pictures, per connection

    def pictures(self) -> Iterator[bytes]:
        start, number = time.monotonic(), 0
        while not self.over.is_set() and not self.refusing.is_set() and number < self.ending_after:
            if not self.stalled.is_set():
                self.sent[number % 200] = time.monotonic()
                yield numbered_jpeg(number)
            number += 1
            time.sleep(max(start + number / self.rate - time.monotonic(), 0))


@contextmanager
def mjpeg(rate: float = 30.0) -> Iterator[Feed]:
    """An HTTP camera: multipart JPEG at `feed.url`."""
    feed = Feed(rate)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            feed.requests.append(self.headers.get("Authorization", ""))
            if feed.refusing.is_set():
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for picture in feed.pictures():
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}"
                    self.wfile.write(head.encode() + b"\r\n\r\n" + picture + b"\r\n")
            except OSError:  # the viewer has gone
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="mjpeg", daemon=True)
    thread.start()
    feed.url = f"http://127.0.0.1:{server.server_address[1]}/video"
    try:
        yield feed
    finally:
        feed.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Packets(io.RawIOBase):
    """A file that hands every write, one RTP packet, to `send`."""

    def __init__(self, send) -> None:
        self.send = send

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.send(bytes(data))
        return len(data)


_SDP = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
_SDP += b"a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"


def _play(link: socket.socket, feed: Feed) -> None:
    """H.264 in RTP inside the RTSP connection, a key frame every half second."""

    def send(packet: bytes) -> None:
        channel = 1 if 200 <= packet[1] <= 204 else 0  # RTCP, RTP
        link.sendall(b"$" + struct.pack(">BH", channel, len(packet)) + packet)

    options = {"packetsize": "1200"}
    with av.open(_Packets(send), "w", format="rtp", options=options) as out:
        codec = {"g": "15", "bf": "0", "tune": "zerolatency", "preset": "ultrafast"}
        stream = out.add_stream("libx264", rate=30, options=codec)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, jpeg in enumerate(feed.pictures()):
            image = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            out.mux(stream.encode(frame))


def _converse(link: socket.socket, feed: Feed) -> None:
    """Answer one RTSP client; from PLAY on, send until it goes."""
    with link, suppress(OSError):
        lines = link.makefile("rb")
        while line := lines.readline():
            head = {}
            while text := lines.readline().strip():
                key, _, value = text.partition(b":")
                head[key.strip().lower()] = value.strip()
            verb = line.split()[0]
            feed.requests.append(verb.decode())
            body = _SDP if verb == b"DESCRIBE" else b""
            link.sendall(
                b"RTSP/1.0 200 OK\r\nCSeq: " + head[b"cseq"] + b"\r\nSession: 1\r\n"
                b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                b"Content-Type: application/sdp\r\n"
                b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
            )
            if verb == b"PLAY":
                with suppress(av.error.FFmpegError):  # the client has gone
                    _play(link, feed)


@contextmanager
def rtsp(rate: float = 30.0) -> Iterator[Feed]:
    """An RTSP camera at `feed.url`."""
    feed = Feed(rate)
    with socket.create_server(("127.0.0.1", 0)) as server:
        feed.url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/live"

        def serve() -> None:
            with suppress(OSError):
                while True:
                    link, _ = server.accept()
                    threading.Thread(target=_converse, args=(link, feed), daemon=True).start()

        threading.Thread(target=serve, name="rtsp", daemon=True).start()
        try:
            yield feed
        finally:
            feed.over.set()
            server.shutdown(socket.SHUT_RDWR)


RED, GREEN, BLUE, WHITE = (250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 250)


def quarters(width: int, height: int) -> np.ndarray:
    """Red and green above blue and white."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def video(
    path: Path,
    times: Sequence[float],
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    rotation: int = 0,
    sound: bool = False,
    pix_fmt: str = "yuv420p",
    picture: np.ndarray | None = None,
    encoder: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video of `quarters`, or of `picture`, shown at `times`, seconds."""
    picture = quarters(*size) if picture is None else picture
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10, options=encoder or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        voice = container.add_stream("aac", rate=8000) if sound else None
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
            if voice is not None:
                noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                noise.sample_rate, noise.pts = 8000, 1024 * i
                container.mux(voice.encode(noise))
        container.mux(stream.encode())
        if voice is not None:
            container.mux(voice.encode())
    return path


EVEN = [i / 10 for i in range(12)]


def message_types():
    stores = pytest.importorskip("rosbags.typesys", reason="rosbags is not installed")
    return (
        stores.get_typestore(stores.Stores.ROS1_NOETIC),
        stores.get_typestore(stores.Stores.ROS2_HUMBLE),
    )


def image_message(store, image: np.ndarray, encoding: str, stamp: float, pad: int = 0):
    """sensor_msgs/Image with rows `pad` bytes longer than they need to be."""
    rows = np.ascontiguousarray(image).view(np.uint8).reshape(len(image), -1)
    rows = np.pad(rows, ((0, 0), (0, pad)))
    return store.types["sensor_msgs/msg/Image"](
        header=ros_header(store, stamp),
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        is_bigendian=int(image.dtype.byteorder == ">"),
        step=rows.shape[1],
        data=rows.ravel(),
    )


def ros_header(store, stamp: float):
    kind = store.types["std_msgs/msg/Header"]
    time = store.types["builtin_interfaces/msg/Time"](
        sec=int(stamp), nanosec=round(stamp % 1 * 1e9)
    )
    more = {"seq": 0} if "seq" in kind.__dataclass_fields__ else {}
    return kind(stamp=time, frame_id="", **more)


def jpeg_message(store, image: np.ndarray, stamp: float):
    data = cv2.imencode(".jpg", image[..., ::-1])[1].ravel()
    kind = store.types["sensor_msgs/msg/CompressedImage"]
    return kind(header=ros_header(store, stamp), format="bgr8; jpeg compressed bgr8", data=data)


COLOUR = quarters(16, 12)


def write_bag(path: Path, kind: str, count: int = 6, topics: int = 1) -> Path:
    """Topic /camera/image (bgr8), /camera/jpeg with `topics` = 2, and one without pictures."""
    ros1, ros2 = message_types()
    store = ros1 if kind == "ros1" else ros2
    if kind == "ros1":
        from rosbags.rosbag1 import Writer

        out = Writer(path)
        pack = store.serialize_ros1
    else:
        from rosbags.rosbag2 import StoragePlugin, Writer

        plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
        out = Writer(path, version=9, storage_plugin=plugin)
        pack = store.serialize_cdr
    names = {"/camera/image": "sensor_msgs/msg/Image", "/talk": "std_msgs/msg/String"}
    if topics == 2:
        names["/camera/jpeg"] = "sensor_msgs/msg/CompressedImage"
    with out:
        to = {name: out.add_connection(name, kind, typestore=store) for name, kind in names.items()}
        for i in range(count):
            stamp, now = 1000 + i * 0.2, 5_000_000_000 + i * 200_000_000
            image = np.roll(COLOUR, i, 1)
            messages = {
                "/camera/image": image_message(store, image[..., ::-1], "bgr8", stamp),
                "/camera/jpeg": jpeg_message(store, COLOUR, stamp),
                "/talk": store.types["std_msgs/msg/String"](data="hello"),
            }
            for name, connection in to.items():
                out.write(connection, now, pack(messages[name], names[name]))
    return path


RATE = 48_000
PICTURE = np.full((48, 64, 3), 90, np.uint8)


def tone(seconds: float, burst: float, rate: int, channels: int) -> np.ndarray:
    """(channels, n): a murmur, and 0.2 s of 1 kHz that begin at `burst`, seconds."""
    at = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * 1000 * at) * ((at >= burst) & (at < burst + 0.2))
    wave += np.random.default_rng(0).uniform(-0.01, 0.01, at.shape)  # makes packets differ
    return np.tile(wave.astype(np.float32), (channels, 1))


def film(
    path: Path,
    codec: str = "aac",
    *,
    start: float = 0,
    seconds: float = 3,
    sound: tuple[float, float] | None = None,
    burst: float = 0.5,
    rate: int = RATE,
    layout: str = "mono",
    **options: str,
) -> Path:
    """Ten pictures a second from `start` on, and a tone burst `burst` seconds after it.

    Sound lasts from sound[0] to sound[1] on the container's clock; from 0 to the end unless given.
    """
    begin, end = sound or (0, start + seconds)
    with av.open(str(path), "w", options=options) as out:
        avi = path.suffix == ".avi"  # has no times for H.264
        stream = out.add_stream("mpeg4" if avi else "libx264", rate=10, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10 if avi else 1000)
        voice = out.add_stream(codec, rate=rate)
        voice.codec_context.layout = layout
        wave = tone(end - begin, start + burst - begin, rate, voice.codec_context.channels)
        packets = []
        for i in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(PICTURE, format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * start) + 100 * i
            packets += stream.encode(frame)
        packets += stream.encode()
        size = rate // 10  # PCM's packets are as long as the frames
        for i in range(0, wave.shape[1], size):
            piece = av.AudioFrame.from_ndarray(wave[:, i : i + size], "fltp", layout)
            piece.sample_rate, piece.time_base = rate, Fraction(1, rate)
            piece.pts = i + round(begin * rate)
            packets += voice.encode(piece)
        packets += voice.encode()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def heard(path: Path) -> tuple[float, float, float]:
    """(begin, end, burst) of the sound, seconds after the first picture."""
    with VideoSource(path) as video:
        start = video.start
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    burst = np.inf
    for frame in frames:
        wave = frame.to_ndarray()
        full = 1 if wave.dtype.kind == "f" else np.iinfo(wave.dtype).max
        loud = np.flatnonzero(np.abs(wave.astype(float)).max(0) > 0.1 * full)
        if len(loud):
            burst = min(burst, frame.time + loud[0] / frame.sample_rate)
    end = frames[-1].time + frames[-1].samples / frames[-1].sample_rate
    return frames[0].time - start, end - start, burst - start


def times(path: Path) -> list[float]:
    with VideoSource(path) as video:
        assert video.start == 0
        return [frame.time for frame in video]


def write(path: Path, audio: Path, n: int = 30) -> list[str]:
    """n pictures with the sound of `audio`."""
    with VideoSink(path, 64, 48, 10, audio=audio, force=True) as sink:
        for i in range(n):
            sink.write(Frame(PICTURE, i, i / 10))
    assert np.allclose(times(path), np.arange(n) / 10, atol=2e-3)
    return sink.problems


def read_trc(path: Path) -> tuple[dict[str, str], list[str], np.ndarray]:
    """(header fields, markers, (frames, 2 + 3 markers) numbers, NaN where a cell is empty)."""
    lines = path.read_text().split("\n")
    kind, four, axes, name = lines[0].split("\t")
    assert (kind, four, axes) == ("PathFileType", "4", "(X/Y/Z)") and name == "a.trc"
    head = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    first, second, *cells = lines[3].split("\t")
    assert (first, second) == ("Frame#", "Time") and not any(cells[1::3] + cells[2::3])
    markers = cells[::3]
    axes = [f"{axis}{i + 1}" for i in range(len(markers)) for axis in "XYZ"]
    assert lines[4].split("\t") == ["", "", *axes] and lines[5] == "" == lines[-1]
    rows = [[float(cell or "nan") for cell in line.split("\t")] for line in lines[6:-1]]
    assert int(head["NumMarkers"]) == len(markers) and all(len(r) == 2 + len(axes) for r in rows)
    return head, markers, np.array(rows).reshape(-1, 2 + len(axes))


HEAD = header(BODY19, [{"name": "lite"}], "walk.mp4")


def frame(
    i: int, people: int = 1, *, size: tuple[int, int] = (64, 48), time: float | None = None
) -> Frame:
    """Frame i: a grey that brightens, and people whose neck is missing."""
    width, height = size
    rng = np.random.default_rng(i)
    found = []
    for k in range(people):
        joints = rng.uniform(5, 45, (19, 2)).astype(np.float32)
        scores = rng.uniform(0.2, 1, 19).astype(np.float32)
        joints[17], scores[17] = np.nan, 0
        found.append(Person(joints, scores, np.array([4, 5, 30, 40], np.float32), 0.5, k, BODY19))
    image = np.full((height, width, 3), (5 * i % 200, 90, 30), np.uint8)
    return Frame(image, i, i / 10 if time is None else time, f"walk.mp4#{i}", tuple(found))


def record_sink(name: str, path: Path, **options: Any) -> RecordSink:
    return RecordSink(path, HEAD, [name], **options)


def video_sink(path: Path, **options: Any) -> VideoSink:
    return VideoSink(path, 64, 48, 10, **options)
