"""Reading the licensed files: where they are found, which files are rejected, and that pickles run no code."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import body_files
import numpy as np
import pytest
import scipy.sparse

from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.files import ENVIRONMENT, find_body_file, read_body_file
from i2l_meshnet.bodies.linear import load_mano, load_smpl
from i2l_meshnet.errors import FileError


def refusal(path: Path) -> None:
    """Check that reading the file raises a FileError with its path."""
    with pytest.raises(FileError) as caught:
        read_body_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["coo_array", "csc_array", "csr_array", "coo_matrix", "csc_matrix", "csr_matrix"])
def test_pickles_of_current_numpy_and_scipy_are_read(tmp_path: Path, protocol: int, kind: str) -> None:
    generator = np.random.default_rng(0)
    dense = generator.random((5, 7)) * (generator.random((5, 7)) < 0.4)
    entries: dict[str, Any] = {"columns": np.asfortranarray(dense), "every other": dense[:, ::2], "text": "SMPL"}
    entries |= {"small": dense.astype(">f4"), "whole": np.arange(6, dtype=np.uint32), "empty": np.zeros((0, 3))}
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps({**entries, "sparse": getattr(scipy.sparse, kind)(dense)}, protocol))
    read = read_body_file(path)
    for name, value in (entries | {"sparse": dense}).items():
        np.testing.assert_array_equal(read[name], value, err_msg=name)


@pytest.mark.parametrize(
    "program",
    [
        # BUILD on the allowed classes must not change them for the next file.
        b"cnumpy\nndarray\n}S'__setstate__'\nNsb.",
        b"c_codecs\nencode\n(N}S'__new__'\nNstb.",
        b"cchumpy.ch\nCh\n(N}S'x'\nI1\nstb.",
        b"ccopy_reg\n_reconstructor\n(c_codecs\nencode\nc__builtin__\nobject\nNtR.",
        b"ccopy_reg\n_reconstructor\n(I1\nI2\nNtR.",
        b"c_codecs\nencode\n(S'abc'\nS'rot13'\ntR.",
        b"\x80\x02}X\x01\x00\x00\x00xcchumpy.ch\nCh\n)\x81s.",  # made without __init__, and without a state
        b"\x80\x02}X\x01\x00\x00\x00xcnumpy.core.multiarray\nscalar\n)\x81s.",
        b"\x80\x02}X\x01\x00\x00\x00xcchumpy.ch\nCh\n)\x81}X\x01\x00\x00\x00xK\x05sbs.",
    ],
)
def test_pickles_cannot_misuse_the_allowed_names(tmp_path: Path, body_directory: Path, program: bytes) -> None:
    path = tmp_path / "body.pkl"
    path.write_bytes(program)
    refusal(path)
    load_mano(find_body_file("mano", body_directory))


def array_program(shape: str, code: str, raw: str, state: str = "(I3\nS'<'\nNNNI-1\nI-1\nI0\nt") -> bytes:
    """A pickle of {'x': array} as numpy writes it, with the given shape, type code, bytes and dtype state."""
    return (
        f"(dS'x'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n{shape}"
        f"cnumpy\ndtype\n(S'{code}'\nI0\nI1\ntR{state}bI00\nS'{raw}'\ntbs."
    ).encode()


def test_only_arrays_of_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "body.pkl"
    path.write_bytes(array_program("(I2\nt", "u2", "a\\x00b\\x00"))
    assert read_body_file(path)["x"].tolist() == [97, 98]
    for program in (
        array_program("(I2\nt", "O8", "a" * 16),  # pointers to objects
        array_program("(I2\nt", "V2", "a" * 4),
        array_program("(I2\nt", "M8", "a" * 16),
        array_program("(I99\nt", "u2", "aaaa"),
        array_program("(I-1\nt", "u2", "aa"),
        array_program("(I2\nt", "u3", "a" * 6),
        array_program("(I2\nt", "u2", "aaaa", state="(I3\nS'X'\nNNNI-1\nI-1\nI0\nt"),
    ):
        path.write_bytes(program)
        refusal(path)


def test_small_files_with_giant_contents_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "body.pkl"
    nested: list[Any] = [1.0] * 1000
    for _ in range(8):
        nested = [nested] * 1000
    path.write_bytes(pickle.dumps({"x": nested}, protocol=2))
    assert read_body_file(path)["x"] is None
    path.write_bytes(pickle.dumps({"x": [[1.0] * 100000] * 1000}, protocol=2))
    refusal(path)
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")  # memo index 4294967295
    assert read_body_file(path) == {}
    giant = body_files.body_entries("mano")["J_regressor"]
    giant.resize(10**6, 10**6)
    body_files.write_pickle(path, {"J_regressor": giant})
    refusal(path)


def test_lists_of_arrays_stay_lists(tmp_path: Path) -> None:
    path = tmp_path / "sequence.pkl"
    lists = {"poses": [np.arange(3.0), np.arange(2)], "names": ["a", "b"], "mixed": [1, {}, [[]]]}
    path.write_bytes(pickle.dumps(lists, protocol=2))
    read = read_body_file(path)
    assert [part.tolist() for part in read["poses"]] == [[0, 1, 2], [0, 1]]
    assert read["names"].tolist() == ["a", "b"]
    assert read["mixed"] is None
    endless: list[Any] = [np.zeros(1)]
    endless.append(endless)
    path.write_bytes(pickle.dumps({"x": endless}, protocol=2))
    assert read_body_file(path)["x"][1] is None


def test_damaged_files_are_rejected(tmp_path: Path, body_directory: Path) -> None:
    whole = find_body_file("mano", body_directory).read_bytes()
    path = tmp_path / "MANO_RIGHT.pkl"
    for content in (b"", b"hello", whole[: len(whole) // 2], pickle.dumps([1, 2]), b"PK\x03\x04"):
        path.write_bytes(content)
        refusal(path)
    archive = tmp_path / "MANO_RIGHT.npz"
    archive.write_bytes(b"PK\x03\x04 no archive")
    refusal(archive)
    np.savez(archive, v_template=np.array([{}], dtype=object))
    refusal(archive)
    refusal(tmp_path / "absent.pkl")


def as_arrays(entries: dict[str, Any]) -> dict[str, Any]:
    return entries | {"J_regressor": entries["J_regressor"].toarray()}


def test_missing_or_wrong_entries_raise_an_error(tmp_path: Path) -> None:
    entries = as_arrays(body_files.body_entries("mano"))
    tree = entries["kintree_table"].copy()
    tree[0, 3] = 9
    wrong: list[tuple[str, Any]] = [
        ("hands_mean", {}),
        ("f", "text"),
        ("f", 3),
        ("weights", entries["weights"][:, 1:]),
        ("f", entries["f"] + 700),
        ("v_template", entries["v_template"] * np.nan),
        ("kintree_table", tree),
    ]
    path = tmp_path / "MANO_RIGHT.npz"
    for key, value in wrong:
        np.savez(path, **{name: part for name, part in (entries | {key: value}).items() if not isinstance(part, dict)})
        with pytest.raises(FileError, match=key) as caught:
            load_mano(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileError, match="MANO_RIGHT"):
        load_smpl(path)


@pytest.mark.parametrize("form", ["text", "npz"])
def test_other_forms_of_a_file_give_the_same_body(tmp_path: Path, body_directory: Path, form: str) -> None:
    """Pickles of protocol 0, the default of Python 2; and .npz files, some of which contain 300 shape values."""
    name, entries = "mano", body_files.body_entries("mano")
    if form == "text":
        entries["shapedirs"] = body_files.Ch(x=entries["shapedirs"])
        body_files.write_pickle(tmp_path / "MANO_RIGHT.pkl", entries, protocol=0)
    else:
        name, entries = "smpl-male", as_arrays(body_files.body_entries("smpl", "male"))
        entries["shapedirs"] = np.concatenate([entries["shapedirs"], np.ones((6890, 3, 290))], 2)
        np.savez(tmp_path / "SMPL_MALE.npz", **entries)
    one, other = load_body(name, tmp_path), load_body(name, body_directory)
    for (key, a), (_, b) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        assert a.equal(b), key


def test_files_are_found_in_the_given_folder_or_that_of_the_environment(
    tmp_path: Path, body_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    source = find_body_file("mano", body_directory)
    assert source == body_directory / body_files.MANO_FOLDER / "MANO_RIGHT.pkl"
    for name, address in (
        ("smpl", "smplify.is.tue.mpg.de"),
        ("smpl-male", "smpl.is.tue.mpg.de"),
        ("mano-left", "mano.is.tue.mpg.de"),
    ):
        with pytest.raises(FileError, match=address):
            load_body(name)
    shutil.copy(source, tmp_path / "MANO_RIGHT.pkl")
    monkeypatch.setenv(ENVIRONMENT, str(body_directory))
    assert find_body_file("mano") == source
    assert find_body_file("mano", tmp_path) == tmp_path / "MANO_RIGHT.pkl"
    with pytest.raises(FileError, match="basicModel_neutral"):
        find_body_file("smpl", tmp_path)
