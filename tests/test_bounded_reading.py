"""Files of strangers, read within bounds."""

import dataclasses
import io
import json
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

from i2l_meshnet.errors import LONGEST, UserError
from i2l_meshnet.io import (
    inside,
    parse_json,
    read_array,
    read_arrays,
    read_bytes,
    read_json,
    read_torch,
    require_shapes,
)
from i2l_meshnet.pictures import open_picture, png_is_cut_off


def packed(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def test_arrays_come_back(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.array(["a", "b"]))
    arrays = read_arrays(tmp_path / "a.npz")
    assert arrays["x"].tolist() == [0, 1, 2]
    assert arrays["y"].tolist() == ["a", "b"]
    assert [*read_arrays(tmp_path / "a.npz", ["x"])] == ["x"]
    np.save(tmp_path / "a.npy", np.arange(3))
    assert read_array(tmp_path / "a.npy").tolist() == [0, 1, 2]


def test_zeros_that_a_file_may_hold_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1_000_000))
    assert read_arrays(tmp_path / "a.npz")["x"].shape == (1_000_000,)


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"x": bytes(100_000_000)}, "100 MB"),
        ({"x": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 0), }")}, "too long"),
        ({"x": npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,), }")}, "too long"),
        ({"x": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }")}, ""),
        ({"x": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"\x80\x04N."}, "Object arrays"),
        ({"x": npy("{" * 9000)}, ""),
        ({"x": b"no array"}, "plain values"),
    ],
)
def test_archives_that_are_no_plain_arrays_are_refused(tmp_path: Path, members: dict[str, bytes], told: str) -> None:
    with pytest.raises(ValueError, match=f"^[^\n]*{told}[^\n]*$"):
        read_arrays(packed(tmp_path / "a.npz", **members))


def test_json_is_bounded(tmp_path: Path) -> None:
    assert parse_json("[NaN, 1e999]")[1] == float("inf")
    for text in ("[" * 100_000, "1" * 100_000, "{", b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([1, 2]))
    assert read_json(path) == [1, 2]
    with pytest.raises(ValueError, match="more than"):
        read_json(path, most=3)
    with pytest.raises(OSError, match=r"none\.json"):
        read_json(tmp_path / "none.json")


def test_pytorch_files_hold_plain_tensors_or_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"x": torch.ones(2), "n": [1, "a"]}, path)
    assert read_torch(path)["n"] == [1, "a"]
    assert torch.equal(read_torch(path, mmap=True)["x"], torch.ones(2))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_torch(path)


def test_only_pictures_that_reach_no_other_file_are_opened(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (3, 2)).save(data, "PNG")
    assert open_picture(data).size == (3, 2)
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 30\n%%EndComments\n")
    with pytest.raises(UnidentifiedImageError):
        open_picture(path)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "a\0b", ".."])
def test_paths_that_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="leads out"):
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


def test_shapes_and_kinds_are_those_of_the_annotations() -> None:
    faces = np.zeros((2, 3), int)
    require_shapes(Outer("a", np.zeros(4), faces, Inner(torch.zeros(4, 3))))
    require_shapes(Outer("a", np.zeros(4), None, Inner(torch.zeros(4, 3))))
    for wrong, told in (
        (Outer("a", np.zeros(5), None, Inner(torch.zeros(4, 3))), "places"),
        (Outer("a", np.zeros(4), faces.astype(float), Inner(torch.zeros(4, 3))), "faces"),
        (Outer("a", np.zeros((4, 1)), None, Inner(torch.zeros(4, 3))), "times"),
    ):
        with pytest.raises(ValueError, match=told):
            require_shapes(wrong)


def test_messages_are_one_line_of_print() -> None:
    told = str(UserError("cannot read a\nb\x1b[31m\ud800.jpg: ö"))
    assert told == "cannot read a\\nb\\x1b[31m\\ud800.jpg: ö"
    assert str(UserError(told)) == told
    assert len(str(UserError("x" * 10 * LONGEST))) < LONGEST + 10


def test_a_png_whose_chunks_reach_beyond_it_is_known() -> None:
    whole = cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    place = whole.index(b"IDAT") - 4
    assert not png_is_cut_off(whole)
    assert png_is_cut_off(whole[:place] + b"\xff\x7f\x0e9" + whole[place + 4 :])
    assert png_is_cut_off(whole[:-6])
    assert not png_is_cut_off(b"\xff\xd8 no PNG")


def test_a_pipe_that_the_user_passed_is_read_up_to_the_limit() -> None:
    for most, fails in ((8, False), (7, True)):
        end, start = os.pipe()
        os.write(start, b"[1, 2, 3")
        os.close(start)
        try:
            if fails:
                with pytest.raises(ValueError, match="limit"):
                    read_bytes(Path(f"/dev/fd/{end}"), most)
            else:
                assert read_bytes(Path(f"/dev/fd/{end}"), most) == b"[1, 2, 3"
        finally:
            os.close(end)
