"""An annotated video: H.264 in a fragmented mp4 that is readable while it grows, with sound."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import cv2
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from humanpose.draw import DrawStyle
from humanpose.errors import OutputError
from humanpose.files import output_error, part_path, prepare_output, sync
from humanpose.media.sinks.sound import Sound
from humanpose.types import U8, Frame

# The first available one is used. The later ones are for FFmpeg builds without GPL parts.
_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "mpeg4")
_X264 = {"crf": "20", "preset": "veryfast"}
# Fragments of a second, each complete in itself, in place of an index at the end.
_FRAGMENTS = {"movflags": "empty_moov+default_base_moof+frag_discont", "frag_duration": "1000000"}
# The file begins at 0. With edit lists allowed (none is written) and frag_discont, a fragment has
# its own time; else the muxer would move late sound to 0, too. Where there is no sound, the muxer
# holds back one second of pictures, not ten.
_FRAGMENTS |= {"avoid_negative_ts": "make_zero", "use_editlist": "1"}
_FRAGMENTS |= {"max_interleave_delta": "1000000"}
# Per second: whole for 24, 25, 30, 50, 60 and NTSC's 29.97 frames, and below mpeg4's 65,536.
_TICKS = 60_000
_BT601 = 6  # matrix of the conversion from RGB (SMPTE 170M); for HD players assume another one


class VideoSink:
    """Draws the people of every frame; frames are shown at their own times.

    Attributes:
        problems: one line for each fault of the sound; complete after `with`.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        rate: Fraction | float,
        *,
        look: DrawStyle = DrawStyle(),
        audio: str | Path | None = None,
        force: bool = False,
    ) -> None:
        """Set up; nothing is written before `with`.

        Args:
            path: the file, .mp4.
            width: of the frames, pixels; a frame of another size is scaled.
            height: pixels; odd sides are padded by one.
            rate: frames per second for the encoder's bit budget; times come from the frames.
            look: how frames are drawn.
            audio: video whose sound is kept: copied, or as AAC where mp4 does not hold it.
            force: replace an existing file.
        """
        self.path = Path(path)
        self.problems: list[str] = []
        self._sound: Sound | None = None
        self._size = look.size(width, height)
        self._rate = Fraction(min(max(rate, 1), 240)).limit_denominator(1001)
        self._look, self._force, self._audio = look, force, audio
        self._frames, self._last = 0, -1  # how many were written; ticks of the last one
        self._part = part_path(self.path)

    def __enter__(self) -> Self:
        prepare_output(self.path, force=self._force)
        try:
            self._file = open(self._part, "wb")
        except OSError as error:
            raise output_error(self.path, error) from error
        try:
            self._container = av.open(self._file, "w", format="mp4", options=_FRAGMENTS)
            self._stream = self._add_stream()
            if self._audio is not None:
                self._sound = Sound(self._audio, self._container, self.problems)
        except BaseException as error:
            self._file.close()
            self._part.unlink(missing_ok=True)
            if isinstance(error, (av.error.FFmpegError, OSError)):
                raise output_error(self.path, error) from error
            raise
        self._synced = time.monotonic()
        return self

    def _add_stream(self) -> VideoStream:
        name = next((name for name in _ENCODERS if name in av.codecs_available), None)
        if name is None:
            raise OutputError(f"cannot write {self.path}: PyAV has none of {', '.join(_ENCODERS)}")
        # Without B-frames no frame is held back for reordering.
        options = {"bf": "0"} | (_X264 if name == "libx264" else {})
        stream = self._container.add_stream(name, rate=self._rate, options=options)
        assert isinstance(stream, VideoStream)  # narrows the type
        stream.width, stream.height = (side + side % 2 for side in self._size)
        stream.pix_fmt = "yuv420p"
        stream.colorspace = _BT601
        stream.codec_context.time_base = Fraction(1, _TICKS)
        if name != "libx264":
            stream.bit_rate = stream.width * stream.height * 4
        return stream

    def write(self, frame: Frame) -> None:
        """Append `frame`. Raises OutputError if that fails."""
        drawn = self._fitted(self._look.draw(frame))
        picture = av.VideoFrame.from_ndarray(drawn, format="rgb24")
        if self._sound is not None and self._last < 0:
            self._sound.skip(frame.time)
        # Two frames at one time, or a clock that jumps back, must not end the video.
        self._last = max(round(frame.time * _TICKS), self._last + 1)
        picture.pts, picture.time_base = self._last, Fraction(1, _TICKS)
        try:
            self._mux(self._stream.encode(picture))
            self._frames += 1
            if time.monotonic() - self._synced >= 1:
                sync(self._file)
                self._synced = time.monotonic()
        except (av.error.FFmpegError, OSError) as error:
            raise output_error(self.path, error) from error

    def _mux(self, packets: list[Packet[Any]]) -> None:
        """Write pictures, and the sound up to the last of them."""
        self._container.mux(packets)
        if self._sound is not None and packets:
            last = packets[-1]
            self._sound.write_until(float((last.pts or 0) * last.time_base))

    def _fitted(self, drawn: U8) -> U8:
        """Scale `drawn` to the video's size; repeat a column and row where it is odd."""
        width, height = self._size
        if drawn.shape[:2] != (height, width):
            drawn = np.asarray(cv2.resize(drawn, self._size, interpolation=cv2.INTER_AREA))
        if width % 2 or height % 2:
            drawn = np.pad(drawn, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return drawn

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._mux(self._stream.encode())
            if self._sound is not None and self._last >= 0:
                self._sound.finish(float(self._last / _TICKS + 1 / self._rate), self._frames)
            self._container.close()
            sync(self._file)
            self._file.close()
            if kind is None and self._last >= 0:  # without a frame there is no video
                os.replace(self._part, self.path)
        except (av.error.FFmpegError, OSError) as failure:
            if kind is None:
                raise output_error(self.path, failure) from failure
        finally:
            if self._sound is not None:
                self._sound.close()
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            with suppress(OSError):
                self._file.close()
            if self._last < 0:
                self._part.unlink(missing_ok=True)
