"""What fuzzing and reading turned up, kept: each ended in a traceback, a giant or another file before it was mended."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import readers
import torch
from fuzzing import DEEP, GIANT, Calls, as_json

from i2l_meshnet.bodies import load_body
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.config import LiftingSizes, NetworkConfig
from i2l_meshnet.video.source import Clip, TooLongError, is_clip

Make = Callable[[Path], Calls]


def arrays(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    """Changes arrays of an .npz file."""

    def change(data: bytes) -> bytes:
        with np.load(io.BytesIO(data)) as archive:
            content = {name: changes.get(name, np.asarray)(archive[name]) for name in archive.files}
        packed = io.BytesIO()
        np.savez(packed, **content)  # pyright: ignore[reportArgumentType]
        return packed.getvalue()

    return change


def values(*path: str | int, value: Any) -> Callable[[bytes], bytes]:
    """Changes one value of a JSON file."""

    def change(data: bytes) -> bytes:
        content = json.loads(data)
        node = content
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        return as_json(content)

    return change


def text(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode("latin1"), 1)

    return change


@pytest.mark.parametrize(
    ("make", "name", "change"),
    [
        (readers.boxes, "list.json", values(0, 0, value=GIANT)),
        (readers.boxes, "names.json", values("photo.jpg", value=DEEP)),
        (readers.boxes, "rootnet.json", values(0, "bbox", value=[[]])),
        (readers.annotations, "MuCo/data/smpl_param.json", lambda data: b"[1]"),
        (
            readers.annotations,
            "PW3D/data/3DPW_train.json",
            values("images", 0, "file_name", value="../../etc/x.jpg"),
        ),
        (readers.annotations, "SURREAL/train.json", values("images", 0, "file_name", value=7)),
        (readers.annotations, "Custom/annotations/train.json", values("images", 0, "width", value=GIANT)),
        (
            readers.annotations,
            "Custom/annotations/train.json",
            values("categories", 0, "keypoints", value=["x"] * 20_000),
        ),
        (readers.results, "photo.npz", arrays(pose_matrix=np.zeros_like)),
        (readers.results, "photo.npz", arrays(pose_matrix=lambda array: array[:, :1])),
        (readers.results, "photo.npz", arrays(faces=lambda array: array + 10_000)),
        (readers.results, "clip_person_00.npz", arrays(pose=lambda array: array * np.nan)),
        (readers.results, "clip_person_00.npz", arrays(time=lambda array: array[:2])),
        (readers.results, "photo.json", values("picture", "file", value="/etc/passwd")),
        (readers.results, "clip.json", values("clip", "file", value="../../secret.mp4")),
        (readers.results, "clip.json", values("people", 0, "files", "arrays", "npz", value="../../x.npz")),
        (readers.arrays, "shard.npz", arrays(start=np.zeros_like)),
        (readers.arrays, "shard.npz", arrays(start=lambda array: array[::-1].copy())),
        (readers.arrays, "samples.npz", arrays(joints=lambda array: array[:, :3])),
        (readers.arrays, "regressor.npy", lambda data: data.replace(b"<f8", b"|S8")),
        (readers.calibration, "calibration/Calib.qca.txt", text('serial="cam01"', 'serial="../../../x"')),
        (readers.calibration, "calibration/Calib.qca.txt", text('focalLengthU="7680"', 'focalLengthU="nan"')),
        (readers.calibration, "calibration/Calib.qca.txt", text(' serial="cam01"', "")),
        (readers.motion_capture, "walk.bvh", text("OFFSET 0 0 1", "OFFSET 0 0 nan")),
        (readers.motion_capture, "walk.bvh", text("End Site", "JOINT a { } " * 2000 + "End Site")),
        (readers.calibration, "videos/cam01.mp4", lambda data: b"ffconcat version 1.0\nfile clip.mp4\n"),
        (readers.surreal_clips, "plain.mp4", lambda data: b"ffconcat version 1.0\nfile packed.mp4\n"),
        (readers.surreal_clips, "plain.mp4", lambda data: b"#EXTM3U\n#EXTINF:1,\npacked.mp4\n#EXT-X-ENDLIST\n"),
        (readers.surreal_clips, "clips.txt", lambda data: b"\xfd" + data),
        (readers.surreal_clips, "packed_info.mat", lambda data: data[:300]),
        # A number's type that is none: SciPy's reader ended the process.
        (readers.surreal_clips, "plain_info.mat", lambda data: data[:184] + b"\x18" + data[185:]),
        (readers.crops, "a.png", lambda data: data[:16] + (60_000).to_bytes(4, "big") * 2 + data[24:]),
    ],
)
def test_what_was_mended_stays_so(tmp_path: Path, make: Make, name: str, change: Callable[[bytes], bytes]) -> None:
    call = make(tmp_path)[name]
    call()
    path = tmp_path / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FileError) as caught:
        call()
    assert str(caught.value).isprintable()


def test_a_description_that_asks_for_a_giant_is_refused_before_it_is_made(tmp_path: Path) -> None:
    body, path = load_body("toy"), tmp_path / "net.safetensors"
    wide = LiftingSizes(10**9, 1, 1, 1, 1, 1, 1)
    for grid, sizes in ((LixelGrid((4000, 4000, 4000)), None), (LixelGrid(), wide), (LixelGrid(), None)):
        config = NetworkConfig.for_body(body, "published", "resnet18", grid, sizes)
        checkpoint.write({"a": torch.ones(1)}, checkpoint.Metadata(config, "", ""), path)
        with pytest.raises(FileError, match=r"net\.safetensors"):
            checkpoint.load(path)


def test_clips_are_held_to_length_and_formats(tmp_path: Path) -> None:
    readers.clips(tmp_path)
    assert is_clip(tmp_path / "clip")
    with pytest.raises(TooLongError):
        Clip(tmp_path / "clip.mp4", max_length=0.2)
    with pytest.raises(FileError):
        Clip(tmp_path / "clip.mp4", max_pixels=1000)
    whole = tmp_path / "clip.mp4"
    hls, concat = f"#EXTM3U\n#EXTINF:1,\n{whole}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile {whole}\n"
    for playlist in (hls, concat):
        (tmp_path / "list").write_text(playlist)
        assert not is_clip(tmp_path / "list")
        (tmp_path / "list.mp4").write_text(playlist)
        with pytest.raises(FileError, match=r"list\.mp4"):
            Clip(tmp_path / "list.mp4")
