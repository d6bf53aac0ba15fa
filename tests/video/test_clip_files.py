from fractions import Fraction
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


def numbers(clip: Clip, start: int = 0) -> list[int]:
    return [round(float(frame.pixels[:8, :8].mean()) / 4) for frame in clip.frames(start)]


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    clip = Clip(write_clip(tmp_path / "a.mp4", steady(12)))
    assert (clip.width, clip.height, clip.frame_count, clip.has_audio) == (*SIZE, 12, False)
    assert numbers(clip) == list(range(12))
    np.testing.assert_allclose([frame.time for frame in clip.frames()], steady(12), atol=1e-4)
    assert float(clip.rate) == pytest.approx(RATE)


def test_frames_can_be_had_from_the_middle_on(tmp_path: Path) -> None:
    clip = Clip(write_clip(tmp_path / "a.mp4", steady(12)))
    rest = list(clip.frames(7))
    assert [frame.number for frame in rest] == [7, 8, 9, 10, 11]
    whole = list(clip.frames())[7:]
    assert [frame.ticks for frame in rest] == [frame.ticks for frame in whole]
    assert np.array_equal(rest[0].pixels, whole[0].pixels)


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.05, 0.12, 0.2, 0.5, 0.52]
    clip = Clip(write_clip(tmp_path / "a.mkv", times))
    np.testing.assert_allclose([frame.time for frame in clip.frames()], times, atol=1e-3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_turn_the_picture_upright(tmp_path: Path, rotation: int) -> None:
    clip = Clip(write_clip(tmp_path / "a.mp4", steady(2), rotation=rotation))
    expected = np.rot90(frame_pixels(0), rotation // 90)
    first = next(clip.frames()).pixels
    assert (clip.width, clip.height) == expected.shape[1::-1]
    assert np.abs(first.astype(int) - expected).mean() < 4


def test_pixels_that_are_not_square_become_so(tmp_path: Path) -> None:
    clip = Clip(write_clip(tmp_path / "a.mp4", steady(2), pixel_aspect=Fraction(3, 2)))
    assert (clip.width, clip.height) == (480, 240)


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", steady(30)).read_bytes()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    write_clip(tmp_path / "sound.m4a", steady(10), sound="aac", pictures=False).rename(tmp_path / "sound.mp4")
    for name in ("empty.mp4", "text.mp4", "cut.mp4", "sound.mp4", "missing.mp4"):
        with pytest.raises(FileError) as caught:
            Clip(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_of_a_clip_that_is_cut_off_the_beginning_is_read(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "a.mkv", steady(40), codec="mpeg4")
    whole = data.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    found = list(Clip(tmp_path / "cut.mkv").frames())
    assert 5 < len(found) < 40


def test_clips_are_told_from_pictures(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", steady(3))
    unnamed = tmp_path / "recording"
    unnamed.write_bytes(clip.read_bytes())
    picture = tmp_path / "photo"
    Image.fromarray(frame_pixels(0)).save(picture, "PNG")
    (tmp_path / "text").write_text("text")
    write_clip(tmp_path / "b.mkv", steady(3), sound="aac", pictures=False).rename(tmp_path / "song")
    assert [is_clip(path) for path in (clip, unnamed, picture, tmp_path / "text", tmp_path / "song")] == [
        *(True, True, False, False, False),
    ]


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


def test_pieces_join_into_one_video_with_all_times(tmp_path: Path) -> None:
    ticks = [round(time * TICKS) for time in (0, 0.05, 0.11, 0.15, 0.4, 0.45, 0.5, 0.56, 0.6)]
    join(write_pieces(tmp_path, ticks, [4, 4, 1]), tmp_path / "whole.mp4")
    clip = Clip(tmp_path / "whole.mp4")
    assert numbers(clip) == list(range(9))
    assert [frame.ticks for frame in clip.frames()] == ticks


@pytest.mark.parametrize(("sound", "suffix", "kept_as"), [("aac", ".mp4", "aac"), ("pcm_s16le", ".mkv", "aac")])
def test_sound_is_kept_in_time(tmp_path: Path, sound: str, suffix: str, kept_as: str) -> None:
    source = Clip(write_clip(tmp_path / f"source{suffix}", steady(40), sound=sound))
    assert source.has_audio
    ticks = [frame.ticks for frame in source.frames()]
    join(write_pieces(tmp_path, ticks, [25, 15]), tmp_path / "whole.mp4", source.path, source.start)
    with av.open(tmp_path / "whole.mp4") as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == kept_as
        frames = list(container.decode(audio))
        seconds = sum(frame.samples for frame in frames) / 16000
        assert seconds == pytest.approx(2.0, abs=0.2)
        assert np.abs(np.concatenate([frame.to_ndarray() for frame in frames], 1)).max() > 0.1
    with av.open(tmp_path / "whole.mp4") as container:
        # Pictures and sound lie beside each other in the file, as players that stream it need them.
        places = {"video": [], "audio": []}
        for packet in container.demux():
            if packet.pos is not None and packet.size:
                places[packet.stream.type].append(packet.pos)
        assert min(places["audio"]) < max(places["video"])
        assert all(one < other for one, other in pairwise(places["video"]))


def test_odd_sizes_lose_a_column_and_a_row(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 65, 33, Fraction(25)) as writer:
        writer.write(np.full((33, 65, 3), 200, np.uint8), 0)
    clip = Clip(tmp_path / "a.mp4")
    assert (clip.width, clip.height) == (64, 32)
    assert abs(float(next(clip.frames()).pixels.mean()) - 200) < 3


def test_the_length_limit_bounds_the_frames_of_a_fast_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "fast.mp4", [number / 1000 for number in range(60)])
    assert len(list(Clip(path, max_length=0.25).frames())) == 60
    with pytest.raises(TooLongError):
        list(Clip(path, max_length=0.2).frames())
