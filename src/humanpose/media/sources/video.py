"""Frames of a video through PyAV: upright, with the container's own times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from humanpose.errors import FormatError, InputError
from humanpose.files import file_size, input_error, reason_of
from humanpose.media.sources.source import Source, is_address, without_password
from humanpose.types import U8, Frame

# Only self-contained formats: a play list named holiday.mp4 could make FFmpeg open other files
# or addresses.
_FORMATS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,gif,ivf,mxf,nut,yuv4mpegpipe,dv,wtv,"
    "h264,hevc,m4v,mjpeg,obu,rm,apng"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
# A remote file; its server must answer within _TIMEOUT_S seconds.
_REMOTE = _OPTIONS | {"protocol_whitelist": "http,https,httpproxy,tcp,tls"}
_TIMEOUT_S = 10.0
_ONE_THREAD = 1920 * 1088  # pixels of a picture up to which one thread decodes
_DEFAULT_RATE = Fraction(25)


class VideoSource(Source):
    """The frames of a video.

    Attributes:
        start: seconds on the container's clock at the first frame, whose own time is 0.
        length: seconds of video from there on that the container declares, 0 if it does not.
    """

    rate: Fraction

    def __init__(self, path: str | Path) -> None:
        """Open `path`, a file or its address, and decode its first frame.

        Raises:
            InputError: no such file.
            FormatError: empty, not a video, or no frame can be read.
        """
        self.name = Path(without_password(str(path))).name
        self.problems = []
        self._errors = 0  # packets that could not be decoded, not yet counted as a gap
        self._flawed = 0  # frames that the decoder had to repair
        self._container = open_container(path)
        try:
            self._stream = video_stream(self._container, path)
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise FormatError(f"{path}: not one frame of the video could be read")
        except BaseException:
            self._container.close()
            raise
        self._first: tuple[VideoFrame, U8] | None = first
        frame, image = first
        self.height, self.width = image.shape[:2]
        self.frames = self._stream.frames or None
        self.rate = self._stream.average_rate or self._stream.guessed_rate or _DEFAULT_RATE
        starts = (_seconds(ticks, frame) for ticks in (self._stream.start_time, frame.pts))
        self.start = min((start for start in starts if start is not None), default=0.0)
        self._start = self.start  # moves where the clock sets in late
        length, exact = _length(self._container, self._stream)
        # A length that is not of this stream may include its late start.
        self.length = length if exact else max(length - max(self.start, 0), 0.0)

    def close(self) -> None:
        """Close the file; frames handed out stay valid."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames in display order; those that cannot be decoded leave a gap in `index`."""
        decoded, self._first = self._first, None
        if decoded is None:
            return
        read, index, time, end, timeless = 0, -1, 0.0, 0.0, False
        while decoded is not None:
            frame, image = decoded
            shown = _seconds(frame.pts, frame)
            if timeless and shown is not None:
                self._start = shown - end  # timestamps set in, and go on from here
            timeless = shown is None
            gap = self._gap(None if shown is None else shown - self._start - end)
            index += 1 + gap
            before = time
            time = end + float(gap / self.rate) if shown is None else shown - self._start
            yield Frame(image, index, time, f"{self.name}#{index}")
            read += 1
            # Some AVI files give every frame the length of one clock tick.
            end = time + max(_seconds(frame.duration, frame) or float(1 / self.rate), time - before)
            if self._stopped:
                return
            decoded = next(self._decoded, None)
        self._judge(read, index + 1 - read + self._errors, end)

    def _gap(self, seconds: float | None) -> int:
        """Count frames lost before the next one, which begins `seconds` after the end of the last.

        Timestamps decide where there are any: after an error a decoder may drop frames until the
        next key frame, and with two threads it reports the error a frame or two early.
        """
        lost = self._errors
        if lost and seconds is not None:
            lost = max(0, round(seconds * self.rate))
        self._errors -= min(lost, self._errors)
        return lost

    def _decode(self) -> Iterator[tuple[VideoFrame, U8]]:
        """Yield (frame, picture) of every packet that can be decoded; count the others."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                frames = next(packets).decode()
            except (StopIteration, av.error.EOFError):
                return
            except (av.error.FFmpegError, ValueError):
                self._errors += 1
                continue
            for frame in frames:
                try:
                    image = upright(frame)
                except (av.error.FFmpegError, ValueError):
                    self._errors += 1
                    continue
                self._flawed += frame.is_corrupt
                yield frame, image

    def _judge(self, read: int, lost: int, end: float) -> None:
        """Note what is missing: `read` frames came, `lost` did not, the last ends at `end` s."""
        length, exact = _length(self._container, self._stream)
        if self.frames is None:
            # Sound may be longer than the pictures, and some lengths include a late start.
            slack = 2 / self.rate if exact else max(1.0, 0.03 * length)
            short = end + max(self._start, 0) + slack < length
            what = f"{read} frames ({end:.1f} of {length:.1f} s)"
        else:
            # A trimmed file (edit list) declares more frames than it shows, but its length fits.
            short = read < self.frames and end + 0.5 / self.rate < length
            what = f"{read} of {self.frames} frames"
        if short:
            self.problems.append(f"{self.name}: ends early, {what} could be read")
        elif lost or self._flawed:
            what = f"{lost} frames missing, {self._flawed} flawed"
            self.problems.append(f"{self.name}: damaged, {what}")


def open_container(path: str | Path) -> InputContainer:
    """Open the video at `path`, of a format that cannot refer to other files.

    Raises:
        InputError: no such file.
        FormatError: empty or not a video.
    """
    text, remote = str(path), is_address(str(path))
    try:
        if remote:
            return av.open(text, options=_REMOTE, timeout=_TIMEOUT_S)
        file_size(path)
        # An absolute path, or FFmpeg would take "a:b.mp4" for an address of protocol a.
        return av.open(os.path.abspath(path), options=_OPTIONS)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, PermissionError) and not remote:
            raise input_error(path, error) from error
        reason = reason_of(error)
        if remote:
            raise InputError(f"{without_password(text)} cannot be read ({reason})") from error
        raise FormatError(f"{path} is not a video that can be read ({reason})") from error


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """Return the video stream, set up for decoding; a cover picture of music is skipped."""
    for stream in container.streams.video:
        if Disposition.attached_pic not in Disposition(stream.disposition):
            if stream.codec_context is None:
                raise FormatError(f"{path}: no decoder for this video's codec")
            stream.thread_type = "AUTO"
            # While networks run, a second thread slows them more than it helps, except for large
            # pictures, whose decoding takes longer than the networks. A third only costs memory.
            large = stream.codec_context.width * stream.codec_context.height > _ONE_THREAD
            stream.codec_context.thread_count = 2 if large else 1
            return stream
    raise FormatError(f"{path} holds no video")


def upright(frame: VideoFrame) -> U8:
    """Return RGB (H, W, 3), rotated as the container says."""
    # One thread: swscale's slices cost more than they save (2.6 times slower here).
    rgb = frame.reformat(format="rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)), np.uint8)


def _seconds(ticks: int | None, frame: VideoFrame) -> float | None:
    return None if ticks is None or not frame.time_base else float(ticks * frame.time_base)


def _length(container: InputContainer, stream: VideoStream) -> tuple[float, bool]:
    """Return (declared seconds of video or 0, whether they are of this stream)."""
    seconds = 0.0
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    if stream.frames and stream.average_rate and "mp4" not in container.format.name:
        # Of a truncated AVI, FFmpeg guesses the length anew from what is left.
        seconds = max(seconds, float(stream.frames / stream.average_rate))
    if seconds:
        return seconds, True
    return (container.duration or 0) / av.time_base, len(container.streams) == 1
