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

from i2l_meshnet.errors import FileError, UserError
from i2l_meshnet.pictures import MAX_PIXELS
from i2l_meshnet.prediction.images import SUFFIXES, TooManyPixelsError
from i2l_meshnet.videos import decode_frames, open_video

VIDEO_SUFFIXES = tuple(
    f".{ending}" for ending in "mp4 m4v mov mkv webm avi mpg mpeg ts mts m2ts wmv flv 3gp ogv gif".split()
)
"""Endings by which clips are found in folders; a file that is named outright may have any ending."""

MAX_LENGTH = 7200.0
"""Seconds of the longest clip that is read, unless more is asked for."""

MAX_RATE = 240
"""Frames a second up to which a clip may be as long as the limit; a faster one must be shorter in proportion."""

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


class TooLongError(FileError):
    """A clip lasts longer than is allowed."""


def is_clip(path: Path) -> bool:
    """Whether a file is to be read as a video: by its ending, and by its content where that tells nothing."""
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

    width, height: of the upright pictures with square pixels. rate: frames a second on average. frame_count: as far
    as the file tells, else None; it may be off by some. start: where the file's clock begins, seconds.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS, max_length: float = MAX_LENGTH) -> None:
        """Reads the header and the first picture. max_length: seconds. Raises FileError, in one line, where there is
        none: TooManyPixelsError or TooLongError for a clip beyond a limit, which `frames` may find out later."""
        self.path, self._max_pixels, self._max_length = path, max_pixels, max_length
        try:
            if path.stat().st_size == 0:
                raise FileError(f"cannot read {path}: the file is empty; copy or download it again")
            with open_video(path, max_pixels) as container:
                if not container.streams.video:
                    raise FileError(f"cannot read {path}: it has no picture, only {_kinds(container)}; give a video")
                stream = container.streams.video[0]
                self._require_pixels(stream.width, stream.height)
                self.start = Fraction(container.start_time or 0, av.time_base)
                self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
                self.has_audio = bool(container.streams.audio)
                self.frame_count = stream.frames or _frames_from_duration(container, self.rate)
        except UserError:
            raise
        except Exception as error:  # PyAV reports odd headers as almost anything
            raise self._unreadable(error) from error
        self._max_frames = max_length * MAX_RATE
        if self.frame_count is not None and self.frame_count / self.rate > max_length:
            raise self._too_long(float(self.frame_count / self.rate))
        if self.frame_count is not None and self.frame_count > self._max_frames:
            raise self._too_many()
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
            with open_video(self.path, self._max_pixels) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for number, frame in enumerate(decode_frames(container)):
                    last = max(last + 1, self._ticks(frame, last))
                    if last > self._max_length * TICKS:
                        raise self._too_long(last / TICKS)
                    if number >= self._max_frames:
                        raise self._too_many()
                    if number and number < start:
                        continue
                    pixels = self._upright(frame, stream.sample_aspect_ratio, size)
                    size = size or (pixels.shape[1], pixels.shape[0])
                    if number >= start:
                        yield Frame(number, last, pixels)
        except UserError:
            raise
        except Exception as error:  # PyAV reports broken data as almost anything
            raise self._unreadable(error) from error

    def _ticks(self, frame: VideoFrame, last: int) -> int:
        if frame.pts is None or frame.time_base is None:
            return last + round(TICKS / self.rate) if last >= 0 else 0
        return round((frame.pts * frame.time_base - self.start) * TICKS)

    def _upright(
        self, frame: VideoFrame, pixel_aspect: Fraction | None, size: tuple[int, int] | None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """A picture as RGB with square pixels, turned as its rotation metadata say; `size` (width, height) if given."""
        quarter_turns = round(frame.rotation / 90) % 4
        width, height = round(frame.width * (pixel_aspect or 1)), frame.height
        if size is not None:
            width, height = size if quarter_turns % 2 == 0 else size[::-1]
        self._require_pixels(width, height)
        pixels = frame.reformat(width, height, format="rgb24").to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, quarter_turns))

    def _require_pixels(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise TooManyPixelsError(
                f"cannot read {self.path}: {width}x{height} is more than {self._max_pixels / 1e6:g} million pixels; "
                "make it smaller, or allow more with --max-pixels"
            )

    def _too_long(self, seconds: float) -> TooLongError:
        return TooLongError(
            f"cannot read {self.path}: it lasts {seconds:.0f} s or more, and {self._max_length:g} s are allowed; "
            "cut it, or allow more with --max-clip-length"
        )

    def _too_many(self) -> TooLongError:
        return TooLongError(
            f"cannot read {self.path}: it has more than {self._max_frames:.0f} frames, the limit for "
            f"{self._max_length:g} s at {MAX_RATE} frames a second; cut it, or allow more with --max-clip-length"
        )

    def _unreadable(self, error: Exception) -> FileError:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or "broken data"
        return FileError(f"cannot read {self.path}: {reason}; it is no video or is broken: copy or download it again")


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all"


def _frames_from_duration(container: InputContainer, rate: Fraction) -> int | None:
    return None if not container.duration else round(container.duration / av.time_base * rate)
