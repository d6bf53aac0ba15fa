"""Untrusted files are read with limits."""

import dataclasses
import io
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from i2l_meshnet.errors import MAX_LENGTH, FileError, UserError
from i2l_meshnet.io import (
    inside,
    parse_json,
    read_array,
    read_arrays,
    read_bytes,
    read_json,
    read_torch,
    reading,
    require_shapes,
)
from i2l_meshnet.pictures import open_picture, png_is_cut_off


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def test_arrays_come_back(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.array(["a", "b"]))
    arrays = read_arrays(tmp_path / "a.npz")
    assert arrays["x"].tolist() == [0, 1, 2]
    assert arrays["y"].tolist() == ["a", "b"]
    assert [*read_arrays(tmp_path / "a.npz", ["x"])] == ["x"]
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros(1_000_000))
    assert read_arrays(tmp_path / "zeros.npz")["x"].shape == (1_000_000,)
    np.save(tmp_path / "a.npy", np.arange(3))
    assert read_array(tmp_path / "a.npy").tolist() == [0, 1, 2]


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"


@pytest.mark.parametrize(
    "content",
    [
        bytes(100_000_000),
        npy(FLOATS % "(1000000000000, 0)"),
        npy(FLOATS.replace("<f4", "|V0") % "(1000000000000,)"),
        npy(FLOATS % "(4611686018427387904, 4)"),
        npy(FLOATS.replace("<f4", "|O") % "(1,)") + b"\x80\x04N.",
        npy("{" * 9000),
        b"no array",
    ],
    ids=["large", "endless loop", "no bytes each", "excessive", "objects", "nested header", "no array"],
)
def test_dangerous_arrays_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(FileError) as caught, reading(path, "a file of arrays"):
        read_arrays(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_is_bounded(tmp_path: Path) -> None:
    assert parse_json("[NaN, 1e999]")[1] == float("inf")
    for text in ("[" * 100_000, "1" * 100_000, "{", b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    assert read_json(path) == [1, 2]
    with pytest.raises(ValueError, match="limit"):
        read_json(path, 3)


def test_pytorch_files_with_plain_content_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"x": torch.ones(2), "n": [1, "a"]}, path)
    assert read_torch(path)["n"] == [1, "a"]
    assert torch.equal(read_torch(path, mmap=True)["x"], torch.ones(2))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(FileError), reading(path, "weights"):
        read_torch(path)


def test_formats_that_can_start_programs_are_not_opened(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (3, 2)).save(data, "PNG")
    assert open_picture(data).size == (3, 2)
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 30\n%%EndComments\n")
    with pytest.raises(UnidentifiedImageError):
        open_picture(path)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "a\0b", ".."])
def test_paths_that_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="folder"):
        inside(name)
    assert inside("a/b.jpg") == "a/b.jpg"


@dataclasses.dataclass(frozen=True)
class Inner:
    places: Float[Tensor, "t 3"]


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    times: Float[np.ndarray, "t"]
    faces: Int[np.ndarray, "f 3"] | None
    inner: Inner


def test_shapes_and_types_must_match_the_annotations() -> None:
    faces = np.zeros((2, 3), int)
    require_shapes(Outer("a", np.zeros(4), faces, Inner(torch.zeros(4, 3))))
    require_shapes(Outer("a", np.zeros(4), None, Inner(torch.zeros(4, 3))))
    for wrong, name in (
        (Outer("a", np.zeros(5), None, Inner(torch.zeros(4, 3))), "places"),
        (Outer("a", np.zeros(4), faces.astype(float), Inner(torch.zeros(4, 3))), "faces"),
        (Outer("a", np.zeros((4, 1)), None, Inner(torch.zeros(4, 3))), "times"),
    ):
        with pytest.raises(ValueError, match=name):
            require_shapes(wrong)


def test_messages_are_one_printable_line() -> None:
    shown = str(UserError("cannot read a\nb\x1b[31m\ud800.jpg: ö"))
    assert shown == "cannot read a\\nb\\x1b[31m\\ud800.jpg: ö"
    assert str(UserError(shown)) == shown
    assert len(str(UserError("x" * 10 * MAX_LENGTH))) < MAX_LENGTH + 10


def test_a_png_chunk_that_extends_beyond_the_file_is_found() -> None:
    whole = cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    chunk = whole.index(b"IDAT") - 4
    assert not png_is_cut_off(whole)
    assert png_is_cut_off(whole[:chunk] + b"\xff\x7f\x0e9" + whole[chunk + 4 :])
    assert not png_is_cut_off(b"\xff\xd8 no PNG")


def test_a_pipe_that_the_user_passed_is_read_up_to_the_limit() -> None:
    for limit in (8, 7):
        end, start = os.pipe()
        os.write(start, b"[1, 2, 3")
        os.close(start)
        try:
            if limit < 8:
                with pytest.raises(ValueError, match="limit"):
                    read_bytes(Path(f"/dev/fd/{end}"), limit)
            else:
                assert read_bytes(Path(f"/dev/fd/{end}"), limit) == b"[1, 2, 3"
        finally:
            os.close(end)
