"""Servers on this machine that stand in for cameras: they send, stall and break off on command."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
from PIL import Image


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
