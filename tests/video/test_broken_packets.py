"""Clips of packets that hold no frame are given up, at the start and later; some broken packets are left out."""

import time
from io import BytesIO
from pathlib import Path

import pytest
from broken_clips import avi
from PIL import Image

from i2l_meshnet.errors import FileError
from i2l_meshnet.video.source import Clip
from i2l_meshnet.videos import MAX_EMPTY_PACKETS

BROKEN = b"\0\0"


@pytest.fixture(scope="module")
def frame() -> bytes:
    data = BytesIO()
    Image.new("RGB", (64, 64), (10, 200, 30)).save(data, "JPEG")
    return data.getvalue()


@pytest.mark.parametrize("good", [0, 3])
def test_many_packets_without_a_frame_are_given_up(tmp_path: Path, frame: bytes, good: int) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(avi([frame] * good + [BROKEN] * 20 * MAX_EMPTY_PACKETS))
    begun = time.process_time()
    with pytest.raises(FileError) as refused:
        list(Clip(path, max_length=1e6).frames())
    assert str(path) in str(refused.value)
    assert time.process_time() - begun < 5


def test_broken_packets_among_good_ones_are_left_out(tmp_path: Path, frame: bytes) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(avi([frame, *[BROKEN] * 50] * 3))
    assert [tuple(found.pixels.shape) for found in Clip(path).frames()] == [(64, 64, 3)] * 3
