"""Write videos as H.264 in MP4. Pieces are joined without encoding them again, with the sound of another file."""

import contextlib
import heapq
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from jaxtyping import UInt8

from i2l_meshnet.errors import FileError
from i2l_meshnet.video.source import TICKS
from i2l_meshnet.videos import open_video

TIME_BASE = Fraction(1, TICKS)
ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""Encoders in order of preference. PyAV's wheels have the first."""
QUALITY = {"libx264": {"crf": "20", "preset": "veryfast"}}
BT709 = STUDIO_RANGE = 1
"""FFmpeg's numbers of HD colours (matrix, primaries and transfer) and of the range 16 to 235."""
AUDIO_IN_MP4 = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
"""Audio codecs that MP4 players support: they are copied. Others (PCM, Vorbis) are encoded as AAC."""


class VideoWriter:
    """Writes RGB frames with individual times to a video file. Leaving the context completes the file."""

    def __init__(self, path: Path, width: int, height: int, rate: Fraction) -> None:
        """width, height: of the frames; odd sizes lose a column or row. rate: approximate frames per second."""
        self.width, self.height = width // 2 * 2, height // 2 * 2
        if min(self.width, self.height) < 2:
            raise FileError(f"cannot write {path}: {width}x{height} pixels are too few for a video")
        name = next((name for name in ENCODERS if name in av.codecs_available), None)
        if name is None:
            raise FileError(f"cannot write {path}: this PyAV has no H.264 or MPEG-4 encoder; pip install --force av")
        self._container = av.open(path, "w", format="mp4", options={"movflags": "+faststart"})
        stream = self._container.add_stream(name, rate=rate, options=QUALITY.get(name, {}))
        if not isinstance(stream, av.VideoStream):
            raise TypeError(f"{name} is no video encoder")
        self._stream, self._duration = stream, round(TICKS / rate)
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        # Without B-frames packets are in the order of the frames, so that pieces can be joined.
        stream.codec_context.max_b_frames = 0
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = STUDIO_RANGE

    def write(self, pixels: UInt8[np.ndarray, "h w 3"], ticks: int) -> None:
        """Add a frame. ticks: its time in 1/90,000 s, later than the previous one."""
        cut = np.ascontiguousarray(pixels[: self.height, : self.width])
        frame = av.VideoFrame.from_ndarray(cut, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=BT709, dst_color_range=STUDIO_RANGE
        )
        frame.pts, frame.time_base, frame.duration = ticks, TIME_BASE, self._duration
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Complete the file."""
        self._container.mux(self._stream.encode())
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()


def join(
    pieces: Sequence[tuple[Path, int]], out: Path, sound: Path | None = None, start: Fraction = Fraction(0)
) -> None:
    """Join pieces from `VideoWriter`, each with the ticks of its first frame, into one MP4 file.

    sound: a file whose first audio track is added. start: time stamp of the start of that file, seconds. Only a few
    packets are in memory at a time. Raises FileError if the sound cannot be read.
    """
    try:
        with contextlib.ExitStack() as stack:
            container = stack.enter_context(av.open(out, "w", format="mp4", options={"movflags": "+faststart"}))
            streams = [_video(pieces, container)]
            if sound is not None:
                streams.append(_sound(stack.enter_context(open_video(sound)), container, start))
            # Players need packets in the order of their times.
            for packet in heapq.merge(*streams, key=lambda packet: (packet.dts or 0) * packet.time_base):
                container.mux(packet)
    except FFmpegError as error:
        raise FileError(f"cannot write {out}: {error.strerror}") from error


def _video(pieces: Sequence[tuple[Path, int]], container: OutputContainer) -> Iterator[Packet]:
    target = None
    for path, first in pieces:
        with av.open(path) as piece:
            stream = piece.streams.video[0]
            target = target or container.add_stream_from_template(stream)
            yield from _shifted(piece.demux(stream), target, first * TIME_BASE)


def _sound(source: InputContainer, container: OutputContainer, start: Fraction) -> Iterator[Packet]:
    stream = source.streams.audio[0]
    if stream.codec_context.name in AUDIO_IN_MP4:
        yield from _shifted(source.demux(stream), container.add_stream_from_template(stream), -start)
        return
    target = container.add_stream("aac", rate=stream.rate)
    if not isinstance(target, AudioStream):
        raise TypeError("aac is no audio encoder")
    target.layout = "mono" if stream.layout.nb_channels == 1 else "stereo"
    for frame in source.decode(stream):
        if frame.pts is not None and frame.time_base is not None:
            frame.pts -= round(start / frame.time_base)
        yield from target.encode(frame)
    yield from target.encode(None)


def _shifted(packets: Iterator[Packet], target: Stream, seconds: Fraction) -> Iterator[Packet]:
    """Move packets to the stream `target`, `seconds` later."""
    for packet in packets:
        if packet.dts is not None and packet.pts is not None:
            shift = round(seconds / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, target
            yield packet
