"""Known pickle attacks on both readers of pickles. Nothing may be called or imported."""

import builtins
import copyreg
import functools
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import body_files
import numpy as np
import pytest
import scipy.sparse
import torch

from i2l_meshnet.bodies import files as body_file_reader
from i2l_meshnet.bodies.files import read_body_file
from i2l_meshnet.errors import FileError
from i2l_meshnet.models.imagenet import load_weights

CALLED: list[object] = []
NAMES = (
    *("os.system", "posix.system", "nt.system", "subprocess.Popen", "builtins.eval", "__builtin__.eval", "io.open"),
    *("builtins.getattr", "builtins.__import__", "importlib.import_module", "runpy.run_path", "functools.partial"),
    *("operator.attrgetter", "types.FunctionType", "marshal.loads", "_pickle.loads", "shutil.rmtree", "ctypes.CDLL"),
    *("numpy.load", "numpy.f2py.crackfortran.myeval", "numpy.testing._private.utils.runstring", "numpy.memmap"),
    *("numpy.core.multiarray.fromfile", "numpy.core.multiarray._reconstruct.x", "scipy.io.loadmat", "torch.load"),
    *("scipy.sparse.csc.csc_matrix.__init__.__globals__", "torch.storage._load_from_bytes", "chumpy.ch.Ch.__init__"),
    *("copyreg.add_extension", "collections.OrderedDict.__init__", "_codecs.decode", "i2l_meshnet.io.sync"),
)
"""Names of Python, NumPy, SciPy, PyTorch and chumpy, some of which start like allowed names."""


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def global_line(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


SPELLINGS: dict[str, Callable[[str, str], bytes]] = {
    "GLOBAL, REDUCE": lambda module, name: global_line(module, name) + text("x") + b"\x85R.",
    "STACK_GLOBAL": lambda module, name: b"\x80\x04" + stack_global(module, name) + text("x") + b"\x85R.",
    "memoised names": lambda module, name: (
        b"\x80\x04" + text(module) + b"q\x000" + text(name) + b"q\x010h\x00h\x01\x93)R."
    ),
    "INST": lambda module, name: b"(" + text("x") + f"i{module}\n{name}\n.".encode(),
    "OBJ": lambda module, name: b"(" + global_line(module, name) + text("x") + b"o.",
    "NEWOBJ": lambda module, name: b"\x80\x02" + global_line(module, name) + b")\x81.",
    "NEWOBJ_EX": lambda module, name: b"\x80\x04" + stack_global(module, name) + b")}\x92.",
    "BUILD": lambda module, name: b"\x80\x02" + global_line(module, name) + b"}" + text("x") + b"K\x01sb.",
    "in a list": lambda module, name: b"\x80\x02}" + text("f") + b"]]" + global_line(module, name) + b")Raas.",
    "as an argument": lambda module, name: (
        global_line("numpy.core.multiarray", "_reconstruct") + global_line(module, name) + b"\x85R."
    ),
    "as a state": lambda module, name: global_line("chumpy.ch", "Ch") + b")\x81" + global_line(module, name) + b"b.",
    "by copyreg": lambda module, name: (
        global_line("copy_reg", "_reconstructor")
        + b"("
        + global_line(module, name)
        + global_line("__builtin__", "object")
        + b"NtR."
    ),
    "discarded": lambda module, name: global_line(module, name) + text("x") + b"\x85R0}.",
    "framed": lambda module, name: (
        b"\x80\x04\x95" + struct.pack("<Q", len(stack_global(module, name)) + 3) + stack_global(module, name) + b")R."
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_only_the_names_of_body_files_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    path, imported, real = tmp_path / "body.pkl", [], builtins.__import__

    def note(name: str, *arguments: Any, **options: Any) -> Any:
        imported.append(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", note)
    for full_name in NAMES:
        module, name = full_name.rsplit(".", 1)
        path.write_bytes(SPELLINGS[spelling](module, name))
        with pytest.raises(FileError) as caught:
            read_body_file(path)
        assert full_name in str(caught.value)
        assert module not in imported


class Reduces:
    """An object whose pickle calls a function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def ran(*_: object) -> None:
    CALLED.append("ran")


class Built:
    """An object whose class receives its state by a call."""

    def __setstate__(self, state: object) -> None:
        CALLED.append(state)

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}


def objects_that_call(folder: Path) -> list[object]:
    """Objects whose pickles run a command or append to CALLED."""
    touch = f"touch {folder / 'touched'}"
    return [
        Reduces(os.system, (touch,)),
        Reduces(subprocess.Popen, (["touch", str(folder / "touched")],)),
        Reduces(eval, (f"__import__('os').system({touch!r})",)),
        functools.partial(ran),
        Built(),
        Reduces(object, (), {"x": 1}, None, None, ran),
        Reduces(ran, (), None, iter([1])),
        Reduces(SystemExit, (7,)),
        Reduces(torch.storage._load_from_bytes, (b"",)),
        Reduces(copyreg.add_extension, ("os", "system", 240)),
    ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_that_call_are_refused(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "file"
    for attack in objects_that_call(tmp_path):
        for content in (attack, {"f": [attack]}):
            path.write_bytes(pickle.dumps(content, protocol))
            with pytest.raises(FileError):
                read_body_file(path)
        torch.save({"conv1.weight": attack}, path, _use_new_zipfile_serialization=bool(protocol % 2))
        with pytest.raises(FileError):
            load_weights("resnet18", path)
    assert CALLED == []
    assert not (tmp_path / "touched").exists()


def test_the_registry_of_extensions_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "body.pkl"
    copyreg.add_extension("os", "system", 0x7E7E)
    try:
        for program in (b"\x83\x7e\x7e)R.", b"\x84\x7e\x7e\x00\x00)R."):
            path.write_bytes(b"\x80\x02" + text("x") + b"0" + program)
            with pytest.raises(FileError, match=r"os\.system"):
                read_body_file(path)
    finally:
        copyreg.remove_extension("os", "system", 0x7E7E)


@pytest.mark.parametrize(
    "program",
    [
        b"Pid\n.",  # Persistent ids.
        b"\x80\x02X\x02\x00\x00\x00idQ.",
        b"h\x00.",  # An empty memo.
        b"0.",  # An empty stack.
        b"R.",
        b"]}b.",  # The state of a list.
        b"\x80\x02c__builtin__\nobject\n)\x81}X\x09\x00\x00\x00__class__K\x01sb.",
        b"\x80\x02cchumpy.ch\nCh\n)\x81N}X\x09\x00\x00\x00__class__c__builtin__\nset\ns\x86b.",
        b"\x80\x63.",  # An unknown protocol.
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff.",  # A frame of 16 EB.
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # Bytes, an integer and a text of an excessive length.
        b"\x8b\xff\xff\xff\x7f.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.",
        b"\x97.",  # An external buffer.
        b"I" + b"9" * 100_000 + b"\n.",
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b"",
    ],
)
def test_damaged_programs_are_refused(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "body.pkl"
    path.write_bytes(program)
    with pytest.raises(FileError) as caught:
        read_body_file(path)
    assert str(caught.value).isprintable()


def test_small_pickles_of_excessive_content_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that share an object, matrices of zeros, and lists of lists."""
    monkeypatch.setattr(body_file_reader, "_MAX_ENTRIES", 10**6)  # Counting to the real limit takes ten seconds.
    path = tmp_path / "body.pkl"
    shared = body_files.Ch(x=np.zeros(100_000))
    body_files.write_pickle(path, {f"entry{number}": shared for number in range(10_000)})
    assert len(read_body_file(path)) == 10_000
    rows = [[0.0] * 1000] * 1000
    empty = scipy.sparse.csc_matrix((1000, 9000))
    for entries in ([empty.copy() for _ in range(50)], [[rows[0]] * 1000 for _ in range(100)]):
        body_files.write_pickle(path, {f"entry{number}": entry for number, entry in enumerate(entries)})
        with pytest.raises(FileError):
            read_body_file(path)


def test_compressed_pytorch_archives_are_refused(tmp_path: Path) -> None:
    path, packed = tmp_path / "weights.pth", tmp_path / "packed.pth"
    torch.save({"conv1.weight": torch.zeros(1000, 1000)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in archive.namelist():
            target.writestr(name, archive.read(name))
    with pytest.raises(FileError):
        load_weights("resnet18", packed)
