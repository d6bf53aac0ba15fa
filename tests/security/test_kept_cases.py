"""Files that once caused a traceback, excessive memory or access to another file. Each must be refused."""

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

Change = Callable[[bytes], bytes]


def arrays(**changes: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Change arrays of an .npz file."""

    def change(data: bytes) -> bytes:
        with np.load(io.BytesIO(data)) as archive:
            content = {name: changes.get(name, np.asarray)(archive[name]) for name in archive.files}
        packed = io.BytesIO()
        np.savez(packed, **content)  # pyright: ignore[reportArgumentType]
        return packed.getvalue()

    return change


def values(*path: str | int, value: Any) -> Change:
    """Change one value of a JSON file."""

    def change(data: bytes) -> bytes:
        node = content = json.loads(data)
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        return as_json(content)

    return change


def text(old: str, new: str) -> Change:
    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode("latin1"), 1)

    return change


def crooked_start(start: np.ndarray) -> np.ndarray:
    return start[::-1].copy()


CASES: dict[Callable[[Path], Calls], list[tuple[str, Change]]] = {
    readers.boxes: [
        ("list.json", values(0, 0, value=GIANT)),
        ("names.json", values("photo.jpg", value=DEEP)),
        ("rootnet.json", values(0, "bbox", value=[[]])),
    ],
    readers.annotations: [
        ("MuCo/data/smpl_param.json", lambda data: b"[1]"),
        ("SURREAL/train.json", values("images", 0, "file_name", value="../../etc/x.jpg")),
        ("Custom/annotations/train.json", values("images", 0, "width", value=GIANT)),
        ("Custom/annotations/train.json", values("categories", 0, "keypoints", value=["x"] * 20_000)),
    ],
    readers.results: [
        ("photo.npz", arrays(pose_matrix=np.zeros_like)),
        ("photo.npz", arrays(faces=lambda array: array + 10_000)),
        ("clip_person_00.npz", arrays(pose=lambda array: array * np.nan)),
        ("clip_person_00.npz", arrays(time=lambda array: array[:2])),
        ("photo.json", values("picture", "file", value="/etc/passwd")),
        ("clip.json", values("people", 0, "files", "arrays", "npz", value="../../x.npz")),
    ],
    readers.arrays: [
        ("shard.npz", arrays(start=crooked_start)),
        ("samples.npz", arrays(joints=lambda array: array[:, :3])),
        ("regressor.npy", lambda data: data.replace(b"<f8", b"|S8")),
    ],
    readers.calibration: [
        ("calibration/Calib.qca.txt", text('serial="cam01"', 'serial="../../../x"')),
        ("calibration/Calib.qca.txt", text('focalLengthU="7680"', 'focalLengthU="nan"')),
        ("calibration/Calib.qca.txt", text(' serial="cam01"', "")),
        ("videos/cam01.mp4", lambda data: b"ffconcat version 1.0\nfile clip.mp4\n"),
    ],
    readers.motion_capture: [
        ("walk.bvh", text("OFFSET 0 0 1", "OFFSET 0 0 nan")),
        ("walk.bvh", text("End Site", "JOINT a { } " * 2000 + "End Site")),
    ],
    readers.surreal_clips: [
        ("plain.mp4", lambda data: b"#EXTM3U\n#EXTINF:1,\npacked.mp4\n#EXT-X-ENDLIST\n"),
        ("clips.txt", lambda data: b"\xfd" + data),
        ("packed_info.mat", lambda data: data[:300]),
        # An unknown type of numbers: SciPy's reader crashed the process.
        ("plain_info.mat", lambda data: data[:184] + b"\x18" + data[185:]),
    ],
    readers.crops: [("a.png", lambda data: data[:16] + (60_000).to_bytes(4, "big") * 2 + data[24:])],
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_known_bad_files_are_refused(tmp_path: Path, make: Callable[[Path], Calls]) -> None:
    calls = make(tmp_path)
    for name, change in CASES[make]:
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(change(content))
        with pytest.raises(FileError) as caught:
            calls[name]()
        assert str(caught.value).isprintable()
        path.write_bytes(content)
        calls[name]()


def test_a_checkpoint_of_an_excessive_network_is_refused_before_it_is_built(tmp_path: Path) -> None:
    body, path = load_body("toy"), tmp_path / "net.safetensors"
    wide = LiftingSizes(10**9, 1, 1, 1, 1, 1, 1)
    for grid, sizes in ((LixelGrid((4000, 4000, 4000)), None), (LixelGrid(), wide), (LixelGrid(), None)):
        config = NetworkConfig.for_body(body, "published", "resnet18", grid, sizes)
        checkpoint.write({"a": torch.ones(1)}, checkpoint.Metadata(config, "", ""), path)
        with pytest.raises(FileError, match=r"net\.safetensors"):
            checkpoint.load(path)


def test_long_clips_large_frames_and_playlists_are_refused(tmp_path: Path) -> None:
    readers.clips(tmp_path)
    clip, playlist = tmp_path / "clip.mp4", tmp_path / "list.mp4"
    assert is_clip(tmp_path / "clip")
    with pytest.raises(TooLongError):
        Clip(clip, max_length=0.2)
    with pytest.raises(FileError):
        Clip(clip, max_pixels=1000)
    for content in (f"#EXTM3U\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile {clip}\n"):
        playlist.write_text(content)
        with pytest.raises(FileError, match=r"list\.mp4"):
            Clip(playlist)
        playlist.rename(tmp_path / "list")
        assert not is_clip(tmp_path / "list")
