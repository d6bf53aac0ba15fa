"""Read videos: upright frames in order, with their times."""

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
from i2l_meshnet.io import reading
from i2l_meshnet.pictures import MAX_PIXELS
from i2l_meshnet.prediction.images import SUFFIXES, TooManyPixelsError
from i2l_meshnet.videos import decode_frames, open_video

VIDEO_SUFFIXES = tuple(
    f".{ending}" for ending in "mp4 m4v mov mkv webm avi mpg mpeg ts mts m2ts wmv flv 3gp ogv gif".split()
)
"""Suffixes of videos in folders. A file that the user names may have any suffix."""

MAX_LENGTH = 7200.0
"""Default maximum length of a clip, seconds."""

MAX_RATE = 240
"""Maximum frames per second of a clip of maximum length. A clip with a higher rate must be shorter."""

TICKS = 90_000
"""Ticks per second. At all common frame rates, NTSC included, a frame lasts an integer number of ticks."""

_FIX = "copy or download it again"


@dataclasses.dataclass(frozen=True)
class Frame:
    """One upright RGB frame of a clip. number: from 0. ticks: time since the start of the clip."""

    number: int
    ticks: int
    pixels: UInt8[np.ndarray, "h w 3"]

    @property
    def time(self) -> float:
        """Time since the start of the clip, seconds."""
        return self.ticks / TICKS


class TooLongError(FileError):
    """A clip is longer than the limit."""


def is_clip(path: Path) -> bool:
    """Whether a file is a video: by its suffix, or by its content if the suffix is unknown."""
    ending = path.suffix.lower()
    if ending in VIDEO_SUFFIXES or ending in SUFFIXES:
        return ending in VIDEO_SUFFIXES
    try:
        with open_video(path) as container:
            return bool(container.streams.video)
    except (FFmpegError, OSError, ValueError):
        return False


class Clip:
    """A video file.

    width, height: of the upright frames, with square pixels. rate: mean frames per second. frame_count: from the
    header, which may be slightly wrong; None if unknown. start: time stamp of the start of the file, seconds.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS, max_length: float = MAX_LENGTH) -> None:
        """Read the header and the first frame. max_length: seconds.

        Raises FileError for a file without frames, TooManyPixelsError or TooLongError for a clip beyond a limit.
        `frames` raises them too: the header may be wrong.
        """
        self.path, self._max_pixels, self._max_length = path, max_pixels, max_length
        with reading(path, "a video", _FIX), open_video(path, max_pixels) as container:
            if not container.streams.video:
                raise FileError(f"cannot read {path}: it has no video stream, only {_kinds(container)}; give a video")
            stream = container.streams.video[0]
            self._require_pixels(stream.width, stream.height)
            self.start = Fraction(container.start_time or 0, av.time_base)
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            self.has_audio = bool(container.streams.audio)
            self.frame_count = stream.frames or _frames_from_duration(container, self.rate)
        if self.frame_count is not None:
            self._require_length(self.frame_count, float(self.frame_count / self.rate))
        first = next(self.frames(), None)
        if first is None:
            raise FileError(f"cannot read {path}: no frame of it can be decoded; {_FIX}")
        self.height, self.width = first.pixels.shape[:2]
        if min(self.height, self.width) < 2:
            raise FileError(f"cannot use {path}: {self.width}x{self.height} pixels are too few to see a person")

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the frames from number `start`. Earlier frames are decoded, but not converted.

        Times strictly increase. The time of a frame without a time stamp follows from the mean rate. Frames that cannot
        be decoded are skipped. All frames are resized to the size of the first.
        """
        size: tuple[int, int] | None = None
        last = -1
        with reading(self.path, "a video", _FIX), open_video(self.path, self._max_pixels) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(decode_frames(container)):
                last = max(last + 1, self._ticks(frame, last))
                self._require_length(number + 1, last / TICKS)
                if number and number < start:
                    continue
                pixels = self._upright(frame, stream.sample_aspect_ratio, size)
                size = size or (pixels.shape[1], pixels.shape[0])
                if number >= start:
                    yield Frame(number, last, pixels)

    def _ticks(self, frame: VideoFrame, last: int) -> int:
        if frame.pts is None or frame.time_base is None:
            return last + round(TICKS / self.rate) if last >= 0 else 0
        return round((frame.pts * frame.time_base - self.start) * TICKS)

    def _upright(
        self, frame: VideoFrame, pixel_aspect: Fraction | None, size: tuple[int, int] | None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """An RGB frame with square pixels, rotated by its metadata. size: (width, height) to resize to."""
        quarters = round(frame.rotation / 90) % 4
        width, height = round(frame.width * (pixel_aspect or 1)), frame.height
        if size is not None:
            width, height = size if quarters % 2 == 0 else size[::-1]
        self._require_pixels(width, height)
        pixels = frame.reformat(width, height, format="rgb24").to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, quarters))

    def _require_pixels(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise TooManyPixelsError(
                f"cannot read {self.path}: {width}x{height} is more than {self._max_pixels / 1e6:g} million pixels; "
                "make it smaller, or allow more pixels (max_pixels)"
            )

    def _require_length(self, frames: int, seconds: float) -> None:
        """Raise TooLongError if a clip has too many frames or seconds."""
        max_frames = self._max_length * MAX_RATE
        if seconds <= self._max_length and frames <= max_frames:
            return
        found = f"{seconds:.0f} s" if seconds > self._max_length else f"{frames} frames (the limit is {max_frames:.0f})"
        raise TooLongError(
            f"cannot read {self.path}: it has at least {found}, and clips may last {self._max_length:g} s; "
            "cut it, or allow longer clips (max_clip_length)"
        )


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all"


def _frames_from_duration(container: InputContainer, rate: Fraction) -> int | None:
    return None if not container.duration else round(container.duration / av.time_base * rate)
