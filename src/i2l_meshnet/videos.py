"""Read untrusted video files with limits on size and time."""

from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame

from i2l_meshnet.io import open_regular, require_regular
from i2l_meshnet.pictures import MAX_PIXELS

VIDEO_FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif"
"""FFmpeg's names of the formats that are read. Playlists are excluded: they can name other files and addresses."""

MAX_OPENING_SECONDS = 60.0
"""Time limit for reading a header, seconds."""

MAX_EMPTY_PACKETS = 10_000
"""Maximum consecutive packets without a frame. Packets are without one if damaged, or if the decoder needs more."""


def open_video(path: Path, max_pixels: int = MAX_PIXELS) -> InputContainer:
    """Open a file in one of `VIDEO_FORMATS` with FFmpeg, which then opens no other file or address.

    Frames with more than `max_pixels` are not decoded. Raises FFmpegError, OSError or ValueError.
    """
    require_regular(path)
    options = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file", "max_pixels": str(max_pixels)}
    if path.suffix.lower() == ".gif":
        # FFmpeg trusts the suffix, and would search any file to its end for a first frame.
        with open_regular(path) as file:
            if file.read(4) != b"GIF8":
                raise ValueError("it is not a GIF")
    # An absolute path, because FFmpeg reads the part before a colon as a protocol.
    container = av.open(path.absolute(), options=options, timeout=(MAX_OPENING_SECONDS, None))
    for stream in container.streams.video:
        if stream.codec_context is not None:  # None for codecs that FFmpeg does not know.
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
    return container


def decode_frames(container: InputContainer) -> Iterator[VideoFrame]:
    """Yield the decodable frames of the first video stream. Damaged packets are skipped. A truncated file ends early.

    Raises IndexError if there is no video, ValueError after `MAX_EMPTY_PACKETS` packets in a row without a frame.
    """
    packets = container.demux(container.streams.video[0])
    empty = 0
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            return
        if packet is None:
            return
        empty += 1
        if empty > MAX_EMPTY_PACKETS:
            raise ValueError(f"more than {MAX_EMPTY_PACKETS} packets in a row have no frame")
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        if frames:
            empty = 0
        for frame in frames:
            if isinstance(frame, VideoFrame):
                yield frame
