"""The sound of an annotated video: packets of its source, copied or re-encoded as AAC."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.codec import Codec
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from humanpose.errors import FormatError, InputError
from humanpose.files import reason_of
from humanpose.media.sources.video import VideoSource, open_container

Packets: TypeAlias = "Iterator[Packet[Any]]"

# What players expect in mp4. It can hold PCM, MP2 and Vorbis too, but few players read them; and
# AC-3's packets would have to be read before the header, which is written first here.
_COPIED = ("aac", "alac", "flac", "mp3", "opus")
# What PyAV raises for damaged data. Of OSError only FFmpeg's: a plain one comes from the file that
# is written.
_FAULTS = (av.error.FFmpegError, ValueError, ArithmeticError, RuntimeError)
# Samples per second; a damaged header with a rate of 3 would make hours of few samples.
_RATES = range(4_000, 768_001)
_SLACK = 1.0  # seconds by which sound and picture of one video may differ


class Sound:
    """Writes the sound of a video into an mp4, in step with the pictures written there.

    Times are those of frames. A fault of the sound becomes a line of `problems`, never an error.
    """

    def __init__(self, path: str | Path, out: OutputContainer, problems: list[str]) -> None:
        """Read the first packet and, if there is one, add a stream for the sound to `out`.

        Args:
            path: the video whose pictures are shown in `out`.
            out: an mp4 whose header is not written yet.
            problems: gets the lines.
        """
        self._name, self._out, self._problems = Path(path).name, out, problems
        self._container: InputContainer | None = None
        self._packets: Packets = iter(())  # what is still to be written
        self._next: Packet[Any] | None = None
        self._at = self._end = 0.0  # seconds: where `_next` begins and is over
        self._last = -1  # ticks of the packet written last
        self._lost = 0  # packets that could not be read
        self._start = self._length = 0.0  # seconds
        self._frames: int | None = None
        try:
            self._open(path)
            self._advance()
        except (InputError, *_FAULTS) as error:
            self._give_up(error)

    def _open(self, path: str | Path) -> None:
        self._container = open_container(path)
        source = self._container.streams.best("audio")
        if source is None:
            return
        if not isinstance(source, AudioStream) or source.codec_context is None:
            raise FormatError("no decoder for its codec")
        with VideoSource(path) as video:  # has the clock of the frames
            self._start, self._length, self._frames = video.start, video.length, video.frames
        packets = self._read(self._container, source)
        if source.codec_context.name == "aac" and not source.codec_context.extradata:
            # In a transport stream each packet repeats what mp4 says once.
            packets = self._stripped(packets, BitStreamFilterContext("aac_adtstoasc", source))
        first = next(packets, None)
        if first is None or not first.size:  # a track without sound is no damage
            return
        packets = itertools.chain([first], packets)
        stream = _add_copy(source, first, self._out)
        if stream is None:
            frames = self._decoded(packets, source)
            frame = next(frames, None)
            if frame is None:
                raise FormatError("none of it could be decoded")
            rates = Codec("aac", "w").audio_rates or ()
            rate = frame.sample_rate if frame.sample_rate in rates else 48_000
            stream = self._out.add_stream("aac", rate=rate)
            stream.codec_context.layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            packets = _encoded(itertools.chain([frame], frames), stream)
        self._stream, self._packets = stream, packets

    def _read(self, container: InputContainer, source: AudioStream) -> Packets:
        """Yield the packets of `source`; the last one is empty and flushes a decoder."""
        for packet in container.demux(source):
            self._lost += packet.is_corrupt
            # Packets outside the edit list are marked as discarded.
            if not packet.is_corrupt and not packet.is_discard:
                yield packet

    def _stripped(self, packets: Packets, strip: BitStreamFilterContext) -> Packets:
        for packet in packets:
            try:
                yield from strip.filter(packet)
            except _FAULTS:
                self._lost += 1

    def _decoded(self, packets: Packets, source: AudioStream) -> Iterator[AudioFrame]:
        """Yield frames that end after the first picture begins."""
        for packet in packets:
            try:
                frames = source.decode(packet)
            except av.error.EOFError:
                return
            except _FAULTS:
                self._lost += 1
                continue
            for frame in frames:
                length = frame.samples / max(frame.sample_rate, 1)
                if frame.sample_rate not in _RATES:
                    self._lost += 1
                elif frame.time is None or frame.time + length > self._start:
                    yield frame

    def _advance(self) -> None:
        self._next = None
        for packet in self._packets:
            base = float(packet.time_base)
            # A packet without a time follows the one before.
            self._at = self._end if packet.pts is None else packet.pts * base - self._start
            self._end = self._at + (packet.duration or 0) * base
            if packet.size:
                self._next = packet
                return

    def skip(self, seconds: float) -> None:
        """Skip packets that begin before `seconds`, the time of the first picture written.

        A packet across that moment goes whole (0.1 s at most): the muxer would shift the pictures
        to make room for it.
        """
        try:
            while self._next is not None and self._at < seconds - 0.001:  # Matroska rounds to 1 ms
                self._advance()
        except _FAULTS as error:
            self._give_up(error)

    def write_until(self, seconds: float) -> None:
        """Write the packets that begin at `seconds` or before; a picture must be written first.

        Raises:
            OSError: the file cannot be written.
        """
        try:
            while self._next is not None and self._at <= seconds:
                self._mux(self._next)
                self._advance()
        except _FAULTS as error:
            self._give_up(error)  # if it is the file that fails, the next picture will tell

    def _mux(self, packet: Packet[Any]) -> None:
        base = self._stream.time_base
        assert base  # the header has set it
        ticks = max(round(self._at / base), 0)
        if ticks > self._last:  # a clock that jumps back would end the file
            length = min(float((packet.duration or 0) * packet.time_base), _SLACK)
            packet.duration = round(length / base)
            packet.pts = packet.dts = self._last = ticks
            packet.stream, packet.time_base = self._stream, base
            self._out.mux(packet)

    def finish(self, end: float, frames: int) -> None:
        """Write the rest, but not what belongs to pictures left out.

        Args:
            end: when the last picture is over.
            frames: pictures written.

        Raises:
            OSError: the file cannot be written.
        """
        # The last picture of a screen recording may last long: its length alone says little.
        whole = self._frames is not None and frames >= self._frames
        if whole or (self._length and self._length - end <= _SLACK):
            last = end
            # After the last picture only without a gap: one wrong timestamp must not make the
            # file hours long.
            while self._next is not None and self._at <= last + _SLACK:
                last = max(last, self._at)
                self.write_until(self._at)
            if self._next is not None:
                self._give_up(FormatError(f"the next would be at {self._at:.1f} s"))
        else:
            self.write_until(end)
        if self._lost and self._last >= 0:
            self._problems.append(f"{self._name}: sound damaged, {self._lost} packets missing")

    def close(self) -> None:
        """Close the source."""
        self._next = None
        if self._container is not None:
            self._container.close()

    def _give_up(self, error: Exception) -> None:
        what = "left out"
        if self._last >= 0 and self._stream.time_base:
            what = f"ends at {float(self._last * self._stream.time_base):.1f} s"
        self._problems.append(f"{self._name}: sound {what} ({reason_of(error)})")
        self._next = None


def _add_copy(source: AudioStream, first: Packet[Any], out: OutputContainer) -> AudioStream | None:
    """Add a stream for copies of the packets of `source`, `first` of them, to `out`.

    Return None, with `out` unchanged, if mp4 does not take them.
    """
    if source.codec_context.codec.canonical_name not in _COPIED:
        return None
    header = bytes(first.get_sidedata("new_extradata"))

    def add(container: OutputContainer) -> AudioStream:
        stream = container.add_stream_from_template(source)
        if header:
            stream.codec_context.extradata = header
        return stream

    # Tried on a scratch file first: an error in `out` would spoil the video.
    with suppress(*_FAULTS):
        form = out.format.name
        with av.open(io.BytesIO(), "w", format=form, options=out.options) as rehearsal:
            packet = Packet(bytes(first))
            packet.stream, packet.pts, packet.dts = add(rehearsal), 0, 0
            rehearsal.mux(packet)
        return add(out)
    return None


def _encoded(frames: Iterator[AudioFrame], stream: AudioStream) -> Packets:
    """Encode `frames` as AAC; their kind may change on the way, as between broadcasts."""
    context = stream.codec_context
    tick = Fraction(1, context.rate)

    def kind(frame: AudioFrame) -> tuple[str, str, int]:
        return frame.format.name, frame.layout.name, frame.sample_rate

    for _, alike in itertools.groupby(frames, kind):
        resampler = AudioResampler(context.format, context.layout, context.rate)
        for frame in itertools.chain(alike, [None]):
            for piece in resampler.resample(frame):
                if piece is not None:  # None is what a resampler with an empty buffer returns
                    if piece.pts is not None and piece.time_base is not None:
                        piece.pts = round(piece.pts * piece.time_base / tick)
                    piece.time_base = tick
                    yield from stream.encode(piece)
    yield from stream.encode(None)
