"""Reading video: frames in order, upright and with their times, whatever the container."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from i2l_meshnet.errors import FileError
from i2l_meshnet.prediction.images import SUFFIXES

VIDEO_SUFFIXES = tuple(
    f".{ending}" for ending in "mp4 m4v mov mkv webm avi mpg mpeg ts mts m2ts wmv flv 3gp ogv gif".split()
)
"""Endings by which clips are found in folders; a file that is named outright may have any ending."""

TICKS = 90_000
"""Times are counted in 1/90,000 s: exact for the usual frame rates, NTSC's included."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """One upright RGB picture of a clip: its number from 0, and its time in ticks from the clip's start."""

    number: int
    ticks: int
    pixels: UInt8[np.ndarray, "h w 3"]

    @property
    def time(self) -> float:
        """Seconds from the clip's start."""
        return self.ticks / TICKS


def is_clip(path: Path) -> bool:
    """Whether a file is to be read as a video: by its ending, and by its content where that tells nothing."""
    ending = path.suffix.lower()
    if ending in VIDEO_SUFFIXES or ending in SUFFIXES:
        return ending in VIDEO_SUFFIXES
    try:
        with av.open(path) as container:
            # FFmpeg reads single pictures too, with demuxers of these names.
            still = container.format.name.endswith("_pipe") or container.format.name == "image2"
            return bool(container.streams.video) and not still
    except (FFmpegError, OSError, ValueError):
        return False


class Clip:
    """A video file.

    width, height: of the upright pictures with square pixels. rate: frames a second on average. frame_count: as far
    as the file tells, else None; it may be off by some. start: where the file's clock begins, seconds.
    """

    def __init__(self, path: Path) -> None:
        """Reads the header and the first picture. Raises FileError, in one line, where there is none."""
        self.path = path
        try:
            if path.stat().st_size == 0:
                raise FileError(f"cannot read {path}: the file is empty; copy or download it again")
            with av.open(path) as container:
                if not container.streams.video:
                    raise FileError(f"cannot read {path}: it has no picture, only {_kinds(container)}; give a video")
                stream = container.streams.video[0]
                self.start = Fraction(container.start_time or 0, av.time_base)
                self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
                self.has_audio = bool(container.streams.audio)
                self.frame_count = stream.frames or _frames_from_duration(container, self.rate)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._unreadable(error) from error
        first = next(self.frames(), None)
        if first is None:
            raise FileError(f"cannot read {path}: no frame of it can be decoded; copy or download it again")
        self.height, self.width = first.pixels.shape[:2]
        if min(self.height, self.width) < 2:
            raise FileError(f"cannot use {path}: {self.width}x{self.height} pixels are too few to see a person")

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The frames from number `start` on; those before it are decoded, but not converted.

        Times strictly increase; a frame without a time stamp follows its predecessor at the average rate. Frames that
        cannot be decoded are left out. All have the size of the first.
        """
        size: tuple[int, int] | None = None
        last = -1
        try:
            with av.open(self.path) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for number, frame in enumerate(_decoded(container)):
                    last = max(last + 1, self._ticks(frame, last))
                    if number and number < start:
                        continue
                    pixels = _upright(frame, stream.sample_aspect_ratio, size)
                    size = size or (pixels.shape[1], pixels.shape[0])
                    if number >= start:
                        yield Frame(number, last, pixels)
        except (FFmpegError, OSError, ValueError, MemoryError) as error:
            raise self._unreadable(error) from error

    def _ticks(self, frame: VideoFrame, last: int) -> int:
        if frame.pts is None or frame.time_base is None:
            return last + round(TICKS / self.rate) if last >= 0 else 0
        return round((frame.pts * frame.time_base - self.start) * TICKS)

    def _unreadable(self, error: Exception) -> FileError:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or "broken data"
        return FileError(f"cannot read {self.path}: {reason}; it is no video or is broken: copy or download it again")


def _decoded(container: InputContainer) -> Iterator[VideoFrame]:
    """All frames that can be decoded; a broken packet costs its own frames, a file that is cut off its end."""
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        for frame in frames:
            if isinstance(frame, VideoFrame):
                yield frame


def _upright(
    frame: VideoFrame, pixel_aspect: Fraction | None, size: tuple[int, int] | None
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as RGB with square pixels, turned as its rotation metadata say; `size` (width, height) if given."""
    quarter_turns = round(frame.rotation / 90) % 4
    width, height = round(frame.width * (pixel_aspect or 1)), frame.height
    if size is not None:
        width, height = size if quarter_turns % 2 == 0 else size[::-1]
    pixels = frame.reformat(width, height, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns))


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all"


def _frames_from_duration(container: InputContainer, rate: Fraction) -> int | None:
    return None if not container.duration else round(container.duration / av.time_base * rate)
