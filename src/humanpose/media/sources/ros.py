"""Pictures in ROS messages, live or recorded: sensor_msgs/Image and CompressedImage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from humanpose.errors import FormatError, InputError, printable
from humanpose.images import load_image
from humanpose.types import U8

PICTURES = ("sensor_msgs/Image", "sensor_msgs/CompressedImage")

# Encoding -> (type, channels, conversion to RGB); sensor_msgs/image_encodings.h.
_COLOURS: dict[str, tuple[type[np.generic], int, int | None]] = {
    "rgb8": (np.uint8, 3, None),
    "bgr8": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC3": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    # OpenCV names the second row's second and third pixel, ROS the first row's first two.
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    "mono16": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "16UC1": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "32FC1": (np.float32, 1, cv2.COLOR_GRAY2RGB),
}


def choose(wanted: str | None, topics: Sequence[str]) -> str:
    """Return `wanted`, or the only one of `topics`. Raises InputError, naming all, otherwise."""
    there = ", ".join(sorted(topics)) or "none"
    if wanted is not None and wanted not in topics:
        raise InputError(f"no pictures on topic {wanted} (topics with pictures: {there})")
    if wanted is None and len(topics) != 1:
        raise InputError(f"choose one of its topics with pictures by --topic: {there}")
    return wanted or topics[0]


def to_rgb(message: Any) -> U8:
    """Convert an Image or CompressedImage message of ROS 1 or 2 to RGB (H, W, 3).

    Depth (16UC1, 32FC1) becomes grey: 0 and unknown are black, the largest distance is white.

    Raises:
        FormatError: the encoding is not known, or there is less data than it says.
    """
    data = np.frombuffer(message.data, np.uint8)
    if not hasattr(message, "encoding"):
        if "compressedDepth" in message.format:
            raise FormatError("compressedDepth is not read; record the topic without that suffix")
        return load_image(data.tobytes())
    if message.encoding not in _COLOURS:
        raise FormatError(f"no pictures of encoding {printable(message.encoding)}")
    kind, channels, conversion = _COLOURS[message.encoding]
    order = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    width = message.width * channels * order.itemsize
    rows = data.size // message.step if message.step else 0
    if not width or rows < message.height or message.step < width:
        raise FormatError(
            f"{data.size} bytes do not hold {message.width} x {message.height} {message.encoding}"
        )
    table = data[: message.height * message.step].reshape(message.height, message.step)
    values = np.ascontiguousarray(table[:, :width]).view(order)
    image = values.reshape(message.height, message.width, channels)
    if image.dtype != np.uint8:
        known = np.nan_to_num(image.astype(np.float32), posinf=0)
        most = 65535 if message.encoding == "mono16" else max(float(known.max()), 1e-6)
        image = np.asarray(np.clip(known, 0, None) * (255 / most) + 0.5, np.uint8)
    if conversion is not None:
        image = np.asarray(cv2.cvtColor(image, conversion), np.uint8)
    return np.ascontiguousarray(image)
