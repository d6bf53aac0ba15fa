"""Known attacks by pickle against both readers of pickles: no call is made, and each is refused by what it asks for."""

import builtins
import copyreg
import functools
import os
import pickle
import pickletools
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
NAMED = (
    *("os.system", "posix.system", "nt.system", "os.popen", "os.execv", "os.remove", "subprocess.Popen"),
    *("subprocess.check_output", "builtins.eval", "__builtin__.eval", "builtins.exec", "builtins.compile"),
    *("builtins.getattr", "builtins.setattr", "builtins.__import__", "builtins.open", "builtins.input"),
    *("builtins.breakpoint", "builtins.map", "builtins.type", "builtins.globals", "io.open", "io.FileIO"),
    *("importlib.import_module", "runpy.run_path", "runpy._run_code", "pty.spawn", "commands.getoutput"),
    *("code.InteractiveInterpreter", "timeit.timeit", "pdb.run", "bdb.Bdb", "cProfile.run", "trace.Trace"),
    *("functools.partial", "functools.reduce", "operator.attrgetter", "operator.methodcaller", "itertools.accumulate"),
    *("types.FunctionType", "types.CodeType", "marshal.loads", "pickle.loads", "_pickle.loads", "shelve.open"),
    *("shutil.rmtree", "tempfile.mktemp", "webbrowser.open", "urllib.request.urlopen", "socket.create_connection"),
    *("http.client.HTTPSConnection", "ssl.get_server_certificate", "ctypes.CDLL", "ctypes.cdll.LoadLibrary"),
    *("multiprocessing.Process", "threading.Thread", "asyncio.run", "logging.config.fileConfig", "gc.get_objects"),
    *("sys.setprofile", "sys.exit", "linecache.getlines", "pip.main", "setuptools.setup", "site.addsitedir"),
    *("numpy.load", "numpy.fromfile", "numpy.memmap", "numpy.f2py.crackfortran.myeval", "numpy.ctypeslib.load_library"),
    *("numpy.testing._private.utils.runstring", "numpy.distutils.exec_command.exec_command", "numpy.save"),
    *("numpy.core.multiarray.fromfile", "numpy.core.multiarray.frombuffer", "numpy.core.multiarray._reconstruct.x"),
    *("scipy.io.loadmat", "scipy.sparse.load_npz", "scipy.sparse.csc.csc_matrix.__init__.__globals__"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.storage._load_from_bytes", "torch.ops.load_library"),
    *("torch._dynamo.guards.GuardBuilder.get", "torch.utils.cpp_extension.load", "torch.fx.experimental.x.y"),
    *("torch.serialization._get_restore_location", "torch.distributed.rpc.internal._run_function"),
    *("chumpy.utils.timer", "chumpy.ch.Ch.__init__", "copyreg.add_extension", "copyreg.__newobj__", "copy_reg.pickle"),
    *("collections.OrderedDict.__init__", "_codecs.decode", "codecs.open", "pathlib.Path", "i2l_meshnet.io.sync"),
)
"""What such files ask for: of Python, NumPy, SciPy, PyTorch, chumpy, and names that begin like allowed ones."""


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
    "in a dictionary": lambda module, name: b"\x80\x02}" + text("v_template") + global_line(module, name) + b")Rs.",
    "in a list of lists": lambda module, name: b"\x80\x02}" + text("f") + b"]]" + global_line(module, name) + b")Raas.",
    "as an argument": lambda module, name: (
        b"\x80\x02}"
        + text("f")
        + global_line("numpy.core.multiarray", "_reconstruct")
        + global_line(module, name)
        + b"\x85Rs."
    ),
    "as a state": lambda module, name: (
        b"\x80\x02}" + text("f") + global_line("chumpy.ch", "Ch") + b")\x81" + global_line(module, name) + b"bs."
    ),
    "rebuilt by copyreg": lambda module, name: (
        global_line("copy_reg", "_reconstructor")
        + b"("
        + global_line(module, name)
        + global_line("__builtin__", "object")
        + b"NtR."
    ),
    "thrown away": lambda module, name: global_line(module, name) + text("x") + b"\x85R0}.",
    "after a whole body": lambda module, name: b"}0" + global_line(module, name) + b")R0}.",
    "framed": lambda module, name: (
        b"\x80\x04\x95" + struct.pack("<Q", len(stack_global(module, name)) + 3) + stack_global(module, name) + b")R."
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_name_but_a_bodys_own_is_ever_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """Each is refused by its name, and modules are not even imported for it."""
    path = tmp_path / "body.pkl"
    imported: list[str] = []
    monkeypatch.setattr(builtins, "__import__", _noting(imported, builtins.__import__))
    for what in NAMED:
        module, name = what.rsplit(".", 1)
        path.write_bytes(SPELLINGS[spelling](module, name))
        with pytest.raises(FileError) as caught:
            read_body_file(path)
        assert what in str(caught.value), what
        assert "code" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert module not in imported


def _noting(imported: list[str], real: Callable[..., Any]) -> Callable[..., Any]:
    def note(name: str, *arguments: Any, **options: Any) -> Any:
        imported.append(name)
        return real(name, *arguments, **options)

    return note


class Reduces:
    """An object whose pickle calls a function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def ran(*_: object) -> None:
    CALLED.append("ran")


class Built:
    """An object with a state that its class takes by a call."""

    def __setstate__(self, state: object) -> None:
        CALLED.append(state)

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}


def gadgets(folder: Path) -> dict[str, object]:
    """Objects that are attacks, whichever reader unpickles them."""
    touch = f"touch {folder / 'touched'}"
    return {
        "system": Reduces(os.system, (touch,)),
        "Popen": Reduces(subprocess.Popen, (["touch", str(folder / "touched")],)),
        "eval": Reduces(eval, (f"__import__('os').system({touch!r})",)),
        "exec": Reduces(exec, (f"__import__('os').system({touch!r})",)),
        "partial": functools.partial(ran),
        "getattr": Reduces(getattr, (1, "real")),
        "state": Built(),
        "state setter": Reduces(object, (), {"x": 1}, None, None, ran),
        "list items": Reduces(ran, (), None, iter([1])),
        "dictionary items": Reduces(ran, (), None, None, iter([(1, 2)])),
        "exception": Reduces(SystemExit, (7,)),
        "bytes loader": Reduces(torch.storage._load_from_bytes, (b"",)),
        "add extension": Reduces(copyreg.add_extension, ("os", "system", 240)),
        "class": Built,
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_that_call_are_refused_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    CALLED.clear()
    path = tmp_path / "body.pkl"
    for attack in gadgets(tmp_path).values():
        for content in (attack, {"f": attack}, {attack: 1} if isinstance(attack, Built) else [attack]):
            path.write_bytes(pickle.dumps(content, protocol))
            with pytest.raises(FileError):
                read_body_file(path)
    assert CALLED == []
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pytorch_files_that_call_are_refused(tmp_path: Path, zipped: bool) -> None:
    CALLED.clear()
    path = tmp_path / "weights.pth"
    for name, attack in gadgets(tmp_path).items():
        for content in (attack, {"conv1.weight": attack}):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(FileError) as caught:
                load_weights("resnet18", path)
            assert "\n" not in str(caught.value), name
    assert CALLED == []
    assert not (tmp_path / "touched").exists()


def test_the_registry_of_extensions_is_not_asked(tmp_path: Path) -> None:
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
        b"Pid\n.",  # persistent ids
        b"\x80\x02X\x02\x00\x00\x00idQ.",
        b"h\x00.",  # a memo that is empty
        b"}q\x00h\x01.",
        b"}j\xff\xff\xff\xff.",
        b"0.",  # a stack that is empty
        b"R.",
        b"b.",
        b"s.",
        b"]}b.",  # a list's state
        b"\x80\x02c__builtin__\nobject\n)\x81}X\x09\x00\x00\x00__class__K\x01sb.",
        b"\x80\x02cchumpy.ch\nCh\n)\x81N}X\x09\x00\x00\x00__class__c__builtin__\nset\ns\x86b.",
        b"\x80\x63.",  # a protocol of the future
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff.",  # a frame of 16 EB
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # bytes, an integer, a text, a bytearray of as much
        b"\x8b\xff\xff\xff\x7f.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x0f.",
        b"\x97.",  # a buffer from elsewhere
        b"I" + b"9" * 100_000 + b"\n.",
        b"(" * 100_000 + b".",
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b"(" * 50_000 + b"t" * 50_000 + b".",
        b"",
        b".",
        b"\xff" * 100,
    ],
)
def test_bent_programs_are_refused(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "body.pkl"
    path.write_bytes(program)
    with pytest.raises(FileError) as caught:
        read_body_file(path)
    assert "\n" not in str(caught.value)


def test_one_small_array_named_a_million_times_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred kilobytes that would unfold to terabytes: entries that share an object, and matrices of zeros."""
    # Counting list entries up to the real limit takes ten seconds.
    monkeypatch.setattr(body_file_reader, "_MOST", 10**6)
    path = tmp_path / "body.pkl"
    shared = body_files.Ch(x=np.zeros(100_000))
    body_files.write_pickle(path, {f"entry{number}": shared for number in range(10_000)})
    assert len(read_body_file(path)) == 10_000
    empty = scipy.sparse.csc_matrix((1000, 9000))
    body_files.write_pickle(path, {f"entry{number}": empty.copy() for number in range(50)})
    with pytest.raises(FileError, match="too long"):
        read_body_file(path)
    rows = [[0.0] * 1000] * 1000
    path.write_bytes(pickle.dumps({f"entry{number}": [rows[0]] * 1000 for number in range(100)}, protocol=2))
    with pytest.raises(FileError, match="too long"):
        read_body_file(path)


def test_archives_for_pytorch_that_unfold_are_refused(tmp_path: Path) -> None:
    path, packed = tmp_path / "weights.pth", tmp_path / "packed.pth"
    torch.save({"conv1.weight": torch.zeros(1000, 1000)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in archive.namelist():
            target.writestr(name, archive.read(name))
    with pytest.raises(FileError):
        load_weights("resnet18", packed)


def test_the_spellings_are_pickles() -> None:
    """Python's own reader would follow them: these are attacks, and no broken files."""
    for name, spell in SPELLINGS.items():
        operations = [operation.name for operation, _, _ in pickletools.genops(spell("os", "getcwd"))]
        assert operations[-1] == "STOP", name
        assert {"GLOBAL", "STACK_GLOBAL", "INST"} & {*operations}, name
