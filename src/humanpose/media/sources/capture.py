"""The child process that reads a camera, a network stream or a ROS topic for `sources.camera`.

Killing it frees what a hanging or crashed driver or decoder holds. It gets its job on stdin,
connects to its parent and ends when stdin is closed. A message is HEAD and `size` bytes of content.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from humanpose.errors import HumanPoseError, InputError
from humanpose.files import reason_of
from humanpose.types import U8

# Kind, time.monotonic() of the capture, frames per second or 0, width, height, size.
HEAD = struct.Struct("<cddIIQ")
FRAME = b"F"  # content: RGB rows
ALIVE = b"A"  # data came, but no whole picture yet
FILE = b"V"  # the address is a video with an end
FAILED = b"E"  # content: why, as UTF-8

_PROTOCOLS = "http,https,httpproxy,tcp,tls,udp,rtp,rtsp,crypto,hls"
_FORMATS = "mov,matroska,mpegts,mpeg,mpegvideo,flv,ogg,h264,hevc,mjpeg,mpjpeg,rtsp,rtp,sdp,hls"
_STREAM = {
    "protocol_whitelist": _PROTOCOLS,
    "format_whitelist": _FORMATS,
    "rtsp_transport": "tcp",  # over UDP a full buffer loses parts of pictures
    "fflags": "nobuffer",
    "analyzeduration": "1000000",  # microseconds of guessing: so old the first frames are
    "fpsprobesize": "0",
}
_CHECK_S = 1.0  # between two checks that the device is there

Captured = tuple[U8 | None, float]  # RGB (H, W, 3), None for ALIVE; frames per second or 0


class _File(Exception):
    """The address is a file, not a stream."""


def camera(address: str) -> Iterator[Captured]:
    """Yield pictures of camera number `address`, or of the device of that name."""
    import cv2

    device = f"/dev/video{address}" if address.isdigit() else address
    target = int(address) if address.isdigit() else address
    linux = sys.platform == "linux"
    capture = cv2.VideoCapture(target, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
    if not capture.isOpened():
        raise InputError("another program uses it, or it is no camera")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    rate, checked = capture.get(cv2.CAP_PROP_FPS), time.monotonic()
    while True:
        good, image = capture.read()
        # Some drivers go on handing out the last picture of a camera that is unplugged.
        if linux and time.monotonic() - checked > _CHECK_S:
            checked = time.monotonic()
            good = good and os.path.exists(device)
        if not good:
            raise InputError("it gives no more pictures; is it still plugged in?")
        yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), rate


def stream(address: str) -> Iterator[Captured]:
    """Yield pictures of a network stream. Raises _File if it has a length."""
    import av

    from humanpose.media.sources.video import upright, video_stream

    try:
        with av.open(address, options=_STREAM) as container:
            if container.duration:
                raise _File
            source = video_stream(container, "it")
            source.thread_type = "SLICE"  # threads by frame would each hold one back
            rate = float(source.average_rate or 0)
            for packet in container.demux(source):
                yield None, rate
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:  # lost data: the next key frame repairs it
                    continue
                for frame in frames:
                    yield upright(frame), rate
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(reason_of(error)) from error
    raise InputError("it has ended")


def topic(address: str) -> Iterator[Captured]:
    """Yield pictures of the ROS 1 topic ros:/NAME."""
    try:
        import rosgraph
        import rospy
        from sensor_msgs.msg import CompressedImage, Image
    except ImportError as error:
        raise InputError(
            f"needs ROS 1 ({error.name} is not installed here; on Debian: apt install "
            "python3-rospy python3-sensor-msgs, and a venv made with --system-site-packages)"
        ) from error
    from humanpose.media.sources.ros import PICTURES, choose, to_rgb

    name = address.removeprefix("ros:")
    if not rosgraph.is_master_online():
        raise InputError(f"no ROS master answers at {os.environ.get('ROS_MASTER_URI')}")
    rospy.init_node("humanpose", anonymous=True, disable_signals=True)
    published = {topic: kind for topic, kind in rospy.get_published_topics() if kind in PICTURES}
    kind = Image if published[choose(name, list(published))] == PICTURES[0] else CompressedImage
    messages: queue.Queue[Any] = queue.Queue(1)
    # While one picture waits here, ROS drops all but the newest.
    rospy.Subscriber(name, kind, messages.put, queue_size=1, buff_size=1 << 24)
    while True:
        yield to_rgb(messages.get()), 0.0


READERS = {"camera": camera, "stream": stream, "topic": topic}


def _send(
    link: socket.socket, kind: bytes, content: Any = b"", rate: float = 0, w: int = 0, h: int = 0
) -> None:
    link.sendall(HEAD.pack(kind, time.monotonic(), rate, w, h, memoryview(content).nbytes))
    link.sendall(content)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)  # the main thread may hang


def main() -> None:
    """Do the job given on stdin: {"kind", "address", "port", "token"}."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with socket.create_connection(("127.0.0.1", job["port"])) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(bytes.fromhex(job["token"]))
        try:
            for image, rate in READERS[job["kind"]](job["address"]):
                if image is None:
                    _send(link, ALIVE)
                else:
                    _send(link, FRAME, image, rate, image.shape[1], image.shape[0])
        except _File:
            _send(link, FILE)
        except HumanPoseError as error:
            _send(link, FAILED, str(error).encode())
    os._exit(0)  # ROS leaves threads behind


if __name__ == "__main__":
    main()
