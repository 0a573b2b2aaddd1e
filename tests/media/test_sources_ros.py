"""A live ROS 1 topic, with a real master and a real publisher of Debian's packages."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from makers.media import wait_for

from humanpose.errors import InputError
from humanpose.media.sources import camera, open_source
from humanpose.media.sources.source import Source

DEBIAN = Path("/usr/lib/python3/dist-packages")

pytestmark = pytest.mark.skipif(
    not (DEBIAN / "rospy").is_dir()
    or not (DEBIAN / "sensor_msgs").is_dir()
    or not shutil.which("rosmaster"),
    reason="no ROS 1 here; on Debian: apt install python3-rospy python3-sensor-msgs "
    "python3-rosmaster",
)

PUBLISHER = """
import sys, rospy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
rospy.init_node("camera", disable_signals=True)
to = rospy.Publisher("/camera/rgb/image_raw", Image, queue_size=1)
other = rospy.Publisher("/talk", String, queue_size=1)
number = 0
while not rospy.is_shutdown():
    number += 1
    row = bytes([number % 200, 50, 10]) * 8
    to.publish(Image(height=6, width=8, encoding="bgr8", step=24, data=row * 6))
    rospy.sleep(0.04)
"""


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a ROS master, of which this process and its children know."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("ROS_MASTER_URI", address)
    monkeypatch.setenv("ROS_IP", "127.0.0.1")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    # Debian's modules behind, not before, those of this environment.
    monkeypatch.setattr(sys, "path", [*sys.path, str(DEBIAN)])
    command = ["rosmaster", "--core", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as core:
        wait_for(lambda: answers(port), 30)
        yield address
        core.kill()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def publisher() -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.Popen(
        ["/usr/bin/python3", "-c", PUBLISHER], env=environment, stderr=subprocess.DEVNULL
    )


def opened() -> Source:
    end = time.monotonic() + 30
    while True:
        try:
            return open_source("ros:/camera/rgb/image_raw")
        except InputError as error:  # the publisher is not up yet
            assert "no pictures on topic" in str(error) and time.monotonic() < end
            time.sleep(0.2)


def test_a_topic_is_watched_lost_and_found(master: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "STALL_S", 1.0)
    senders = [publisher()]
    later = threading.Timer(2.5, lambda: senders.append(publisher()))
    try:
        with opened() as source:
            assert (source.width, source.height, source.live) == (8, 6, True)
            assert source.name == "camera-rgb-image_raw"
            with pytest.raises(InputError, match=r"topics with pictures: /camera/rgb/image_raw\)"):
                open_source("ros:/camera/depth")
            for frame in source:
                assert frame.image.shape == (6, 8, 3) and frame.image[0, 0, 0] == 10
                if frame.index == 10:
                    senders[0].kill()
                    later.start()
                if frame.index == 40:
                    source.stop()
        assert source.losses == 1 and "lost once" in source.problems[0]
    finally:
        for sender in senders:
            sender.kill()
            sender.wait()


def test_without_a_master_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(DEBIAN)])
    monkeypatch.setenv("ROS_MASTER_URI", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"no ROS master answers at http://127\.0\.0\.1:1$"):
        open_source("ros:/camera/rgb/image_raw")
