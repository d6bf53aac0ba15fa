import struct
import time
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from filmed import RATE, SIZE, frame_pixels, steady, write_clip
from PIL import Image

from i2l_meshnet.errors import FileError
from i2l_meshnet.video.encode import VideoWriter, join
from i2l_meshnet.video.source import TICKS, Clip, TooLongError, is_clip
from i2l_meshnet.videos import MAX_EMPTY_PACKETS

BROKEN = b"\0\0"
"""A packet without a frame."""


def numbers(clip: Clip) -> list[int]:
    return [round(float(frame.pixels[:8, :8].mean()) / 4) for frame in clip.frames()]


def test_frames_have_their_numbers_and_times(tmp_path: Path) -> None:
    clip = Clip(write_clip(tmp_path / "a.mp4", steady(12)))
    assert (clip.width, clip.height, clip.frame_count, clip.has_audio) == (*SIZE, 12, False)
    assert numbers(clip) == list(range(12))
    assert float(clip.rate) == pytest.approx(RATE)
    whole, rest = list(clip.frames()), list(clip.frames(7))
    np.testing.assert_allclose([frame.time for frame in whole], steady(12), atol=1e-4)
    assert [(frame.number, frame.ticks) for frame in rest] == [(frame.number, frame.ticks) for frame in whole[7:]]
    assert np.array_equal(rest[0].pixels, whole[7].pixels)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_frames_are_rotated_by_the_metadata(tmp_path: Path, rotation: int) -> None:
    clip = Clip(write_clip(tmp_path / "a.mp4", steady(2), rotation=rotation))
    expected = np.rot90(frame_pixels(0), rotation // 90)
    assert (clip.width, clip.height) == expected.shape[1::-1]
    assert np.abs(next(clip.frames()).pixels.astype(int) - expected).mean() < 4


def test_frames_have_square_pixels(tmp_path: Path) -> None:
    clip = Clip(write_clip(tmp_path / "a.mp4", steady(2), pixel_aspect=Fraction(3, 2)))
    assert (clip.width, clip.height) == (480, 240)


def test_a_truncated_clip_is_read_up_to_its_end(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "a.mkv", steady(40), codec="mpeg4").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    assert 5 < len(list(Clip(tmp_path / "cut.mkv").frames())) < 40


def avi(packets: list[bytes], side: int = 64) -> bytes:
    """An AVI file of Motion JPEG with these packets."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    count = len(packets)
    main = struct.pack("<14I", 40_000, 0, 0, 0x10, count, 0, 1, 0, side, side, 0, 0, 0, 0)
    stream = b"vidsMJPG" + struct.pack("<IHHIIIIIIIIHHHH", 0, 0, 0, 0, 1, 25, 0, count, 0, 0, 0, 0, 0, side, side)
    picture = struct.pack("<IiiHH4sIiiII", 40, side, side, 1, 24, b"MJPG", side * side * 3, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", picture))
    header = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams)
    data = chunk(b"LIST", b"movi" + b"".join(chunk(b"00dc", packet) for packet in packets))
    return chunk(b"RIFF", b"AVI " + header + data)


def test_packets_without_a_frame_are_skipped_up_to_a_limit(tmp_path: Path) -> None:
    data = BytesIO()
    Image.new("RGB", (64, 64), (10, 200, 30)).save(data, "JPEG")
    few, many = tmp_path / "few.avi", tmp_path / "many.avi"
    few.write_bytes(avi([data.getvalue(), *[BROKEN] * 50] * 3))
    assert [frame.pixels.shape for frame in Clip(few).frames()] == [(64, 64, 3)] * 3
    many.write_bytes(avi([data.getvalue()] * 3 + [BROKEN] * 20 * MAX_EMPTY_PACKETS))
    start = time.process_time()
    with pytest.raises(FileError):
        list(Clip(many, max_length=1e6).frames())
    assert time.process_time() - start < 5


def test_clips_are_recognised_by_suffix_or_content(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", steady(3))
    (tmp_path / "recording").write_bytes(clip.read_bytes())
    Image.fromarray(frame_pixels(0)).save(tmp_path / "photo", "PNG")
    (tmp_path / "text").write_text("text")
    write_clip(tmp_path / "b.mkv", steady(3), sound="aac", pictures=False).rename(tmp_path / "song")
    names = ("a.mp4", "recording", "photo", "text", "song")
    assert [name for name in names if is_clip(tmp_path / name)] == ["a.mp4", "recording"]
    for name in ("text", "song", "missing"):
        with pytest.raises(FileError):
            Clip(tmp_path / name)


def write_pieces(folder: Path, ticks: list[int], lengths: list[int]) -> list[tuple[Path, int]]:
    pieces, start = [], 0
    for length in lengths:
        part = ticks[start : start + length]
        path = folder / f"piece{start}.mp4"
        with VideoWriter(path, *SIZE, Fraction(RATE)) as writer:
            for number, tick in enumerate(part, start):
                writer.write(frame_pixels(number), tick - part[0])
        pieces.append((path, part[0]))
        start += length
    return pieces


def test_joined_pieces_keep_all_times(tmp_path: Path) -> None:
    ticks = [round(time * TICKS) for time in (0, 0.05, 0.11, 0.15, 0.4, 0.45, 0.5, 0.56, 0.6)]
    join(write_pieces(tmp_path, ticks, [4, 4, 1]), tmp_path / "whole.mp4")
    clip = Clip(tmp_path / "whole.mp4")
    assert numbers(clip) == list(range(9))
    assert [frame.ticks for frame in clip.frames()] == ticks


@pytest.mark.parametrize(("sound", "suffix"), [("aac", ".mp4"), ("pcm_s16le", ".mkv")])
def test_sound_is_kept_in_time(tmp_path: Path, sound: str, suffix: str) -> None:
    source = Clip(write_clip(tmp_path / f"source{suffix}", steady(40), sound=sound))
    assert source.has_audio
    ticks = [frame.ticks for frame in source.frames()]
    join(write_pieces(tmp_path, ticks, [25, 15]), tmp_path / "whole.mp4", source.path, source.start)
    with av.open(tmp_path / "whole.mp4") as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == "aac"
        frames = list(container.decode(audio))
        assert sum(frame.samples for frame in frames) / 16000 == pytest.approx(2.0, abs=0.2)
        assert np.abs(np.concatenate([frame.to_ndarray() for frame in frames], 1)).max() > 0.1
    with av.open(tmp_path / "whole.mp4") as container:
        # Players that stream the file need packets in the order of their times.
        offsets = {"video": [], "audio": []}
        for packet in container.demux():
            if packet.pos is not None and packet.size:
                offsets[packet.stream.type].append(packet.pos)
        assert min(offsets["audio"]) < max(offsets["video"])
        assert all(one < other for one, other in pairwise(offsets["video"]))


def test_odd_sizes_lose_a_column_and_a_row(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 65, 33, Fraction(25)) as writer:
        writer.write(np.full((33, 65, 3), 200, np.uint8), 0)
    clip = Clip(tmp_path / "a.mp4")
    assert (clip.width, clip.height) == (64, 32)
    assert abs(float(next(clip.frames()).pixels.mean()) - 200) < 3


def test_the_length_limit_also_limits_the_number_of_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "fast.mp4", [number / 1000 for number in range(60)])
    assert len(list(Clip(path, max_length=0.25).frames())) == 60
    with pytest.raises(TooLongError):
        list(Clip(path, max_length=0.2).frames())
