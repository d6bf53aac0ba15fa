"""Hostile files: made from whole ones, read under guard, and what must come of it.

A reader gives a result, or raises one of the user's errors in one line. It never takes more than `MOST_SECONDS` of the
processor or more than `MOST_MEGABYTES` beyond what it had, starts no program, opens no connection and writes nowhere
but below the folder it was given.
"""

import contextlib
import copy
import dataclasses
import io
import json
import os
import pickletools
import random
import re
import resource
import signal
import struct
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jaxtyping
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from i2l_meshnet.errors import UserError

MOST_SECONDS, MOST_MEGABYTES = 5.0, 400
ADDRESSES = 8 * 2**30
"""Beyond this much more address space the system itself says no, so that a giant does not take the machine down."""
FOLDER = "härte\n\x1b[31m 日本"
"""Folders may be called so; messages must not pass on what does not print."""
SECRET = "the-content-of-another-file"

Calls = Mapping[str, Callable[[], object]]


@dataclasses.dataclass(frozen=True)
class Reader:
    """A way in. make: writes whole files into a folder and tells, for each one to be broken, what reads it."""

    name: str
    make: Callable[[Path], Calls]


@dataclasses.dataclass
class Tally:
    """What came of the cases of a reader; seconds (of the processor) and megabytes: the most of any case."""

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    seconds: float = 0.0
    megabytes: float = 0.0

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.outcomes.items()))
        return f"{counts}; at most {self.seconds:.2f} s and {self.megabytes:.0f} MB"


# Reading under guard


class Hang(BaseException):
    """A case takes too long; no `except Exception` keeps it."""


class _Watch:
    """Python's audit events while a reader is at work: what it must not do."""

    forbidden = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in self.forbidden:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = str(Path(os.fsdecode(arguments[0])).absolute()), arguments[2]
            kept = path.startswith(self.folder) or "__pycache__" in path or path == os.devnull
            if isinstance(flags, int) and flags & self.writing and not kept:
                self.seen.append(f"writes {path}")
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link"):
            path = str(Path(os.fsdecode(arguments[0])).absolute())
            if not path.startswith(self.folder) and "__pycache__" not in path:
                self.seen.append(f"{event} {path}")


_watch = _Watch()


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Within: time is limited, memory too, and what a reader does beyond reading is noted in `_watch`."""
    if not hasattr(sys, "_i2l_meshnet_watched"):
        sys.addaudithook(_watch)
        sys._i2l_meshnet_watched = True  # pyright: ignore[reportAttributeAccessIssue] (a hook cannot be removed)

    def late(number: int, frame: FrameType | None) -> None:
        raise Hang

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, late)
    # Types are checked in tests only: what they would find must be found without them.
    checked, jaxtyping.config.jaxtyping_disable = jaxtyping.config.jaxtyping_disable, True
    _watch.seen, _watch.folder = [], str(folder.resolve())
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, before[1]))
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
        _watch.folder = None
        jaxtyping.config.jaxtyping_disable = checked


def most_memory(restart: bool = False) -> float:
    """The most memory that this process has had since the last restart, MB."""
    if restart:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def probe(call: Callable[[], object], folder: Path, tally: Tally) -> str:
    """Reads one case; returns "result" or the name of the error's class, and fails for whatever must not be."""
    before, begun, told = most_memory(restart=True), time.process_time(), None
    try:
        with guarded(folder):
            call()
    except UserError as error:
        told = error
    except Hang:
        pytest.fail(f"took more than {MOST_SECONDS} s")
    outcome = "result" if told is None else type(told).__name__
    assert outcome != "UserError", "the error has no class of its own"
    assert told is None or str(told).isprintable(), f"not one line of print: {told!r}"
    assert SECRET not in str(told)
    seconds, megabytes = time.process_time() - begun, most_memory() - before
    tally.outcomes[outcome] += 1
    tally.seconds, tally.megabytes = max(tally.seconds, seconds), max(tally.megabytes, megabytes)
    assert megabytes < MOST_MEGABYTES, f"took {megabytes:.0f} MB"
    assert not _watch.seen, _watch.seen
    return outcome


def fuzz(reader: Reader, root: Path, cases: int) -> Tally:
    """Breaks the reader's files in `cases` ways; fails at the first that is not answered as it must be."""
    folder = root / FOLDER
    folder.mkdir()
    calls, tally, whole = reader.make(folder), Tally(), Tally()
    contents = {name: (folder / name).read_bytes() for name in calls}
    for name, call in calls.items():
        call()  # libraries prepare themselves when they are first used
        assert probe(call, folder, whole) == "result", f"{name} is not read as it is"

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(st.sampled_from(sorted(calls)), st.integers(0, 2**32 - 1))
    def attack(name: str, seed: int) -> None:
        data = broken(name, contents, random.Random(seed))
        (folder / name).write_bytes(data)
        try:
            probe(calls[name], folder, tally)
        finally:
            (folder / name).write_bytes(contents[name])

    attack()
    return tally


# Breaking files


def broken(name: str, contents: Mapping[str, bytes], draw: random.Random) -> bytes:
    """A file like one of `contents`, but not whole: by its structure, by its bytes, or both."""
    data, form = contents[name], STRUCTURES.get("".join(Path(name).suffixes[-1:]))
    if form is not None and draw.random() < 0.7:
        data = form(data, draw)
    if form is None or draw.random() < 0.4:
        for _ in range(draw.choice((1, 1, 1, 2, 8))):
            data = draw.choice(BYTES)(data, draw)
    if draw.random() < 0.01:
        data = contents[draw.choice(sorted(contents))]
    return data


def _place(data: bytes, draw: random.Random) -> int:
    # Headers decide most: half of all places are near the beginning.
    return draw.randrange(min(len(data), 400 if draw.random() < 0.5 else len(data)) or 1)


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 4, 64))):
        changed[_place(changed, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def _put(data: bytes, draw: random.Random) -> bytes:
    place, width = _place(data, draw), draw.choice((1, 2, 4, 8))
    value = draw.choice((0, 1, -1, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1)), 0x7F, 100, 65535))
    value = (value % 2 ** (8 * width)).to_bytes(width, draw.choice(("little", "big")))
    return data[:place] + value + data[place + width :]


def _remove(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return data[:place] + data[place + draw.choice((1, 4, 100, 5000)) :]


def _repeat(data: bytes, draw: random.Random) -> bytes:
    place, length = _place(data, draw), draw.choice((1, 4, 100, 5000))
    return data[: place + length] + data[place : place + length] * draw.choice((1, 1, 10, 200)) + data[place + length :]


def _insert(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return data[:place] + draw.randbytes(draw.choice((1, 4, 100, 5000))) + data[place:]


def _blank(data: bytes, draw: random.Random) -> bytes:
    place, length = _place(data, draw), draw.choice((4, 100, 5000, len(data)))
    fill = draw.choice((b"\0", b"\xff", b"9", b"[", b"{"))
    return data[:place] + fill * len(data[place : place + length]) + data[place + length :]


BYTES = (_flip, _flip, _cut, _put, _put, _remove, _repeat, _insert, _blank)

GIANT = "a giant number"
DEEP = "a deep nest"
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 1e308, -1e-308, 0.5, GIANT),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "nan", "\0", "../../../../etc/passwd", "/etc/passwd"),
    *("x" * 50_000, "\u202e\x1b[2J\r\n", "日本", "\ud800", [], {}, [[]], [None], {"": None}, [0] * 20_000, DEEP),
    *({"x": [1, {"y": 2}]}, [[1, 2], [3]], [1, 2, 3, 4], ["a", "b", "c"], [float("nan")] * 4, [1e300] * 4),
)


def _nodes(value: Any, found: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        _nodes(inner, found)


def break_tree(value: Any, draw: random.Random) -> Any:
    """A JSON value in which some nodes are others, gone, or twice there."""
    box = [json.loads(json.dumps(value))]
    for _ in range(draw.choice((1, 1, 1, 3))):
        found: list[tuple[Any, Any]] = []
        _nodes(box, found)
        # Of the many numbers of an annotation one is as good as another: keys are drawn first.
        named = [node for node in found if isinstance(node[1], str)]
        parent, key = draw.choice(named if named and draw.random() < 0.6 else found)
        kind = draw.random()
        if kind < 0.7:
            parent[key] = copy.deepcopy(draw.choice(VALUES))
        elif kind < 0.85 and parent is not box:
            del parent[key]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[draw.choice(("x", "", "id", "\0"))] = copy.deepcopy(parent[key])
    return box[0]


def as_json(value: Any) -> bytes:
    """JSON text, with a number of 5,000 digits and 100,000 brackets where the marks for them are."""
    text = json.dumps(value, ensure_ascii=True)
    text = text.replace(json.dumps(GIANT), "1" + "0" * 5000).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)
    return text.encode()


def _break_json(data: bytes, draw: random.Random) -> bytes:
    return as_json(break_tree(json.loads(data), draw))


def _break_arrays(data: bytes, draw: random.Random) -> bytes:
    """An .npz file with an array that is another, or an archive that is no good one."""
    with np.load(io.BytesIO(data)) as archive:
        members = {f"{name}.npy": _npy(archive[name]) for name in archive.files}
        name = draw.choice(archive.files)
        array = archive[name]
    odd = draw.random()
    if odd < 0.6:
        members[f"{name}.npy"] = _npy(draw.choice(ARRAYS)(array))
    elif odd < 0.75:
        shape = draw.choice(((10**12,), (2**62, 4), (10**6, 10**6), (-1,), (0, 10**15), (10**12, 0), (3,) * 40))
        kind = draw.choice(("<f4", "|b1", "<U0", "|V0", "<U100000000", "|O", "<f4,<i4", "<M8[s]"))
        members[f"{name}.npy"] = _header(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape!r}, }}")
    elif odd < 0.8:
        members[f"{name}.npy"] = _header(draw.choice(("{" * 3000, "[" * 9000, "()", "{'descr': " + "(" * 500, "\xff")))
    elif odd < 0.85:
        del members[f"{name}.npy"]
    elif odd < 0.9:
        members[draw.choice(("../../escaped.npy", "/escaped.npy", "x\0.npy", "x", "é.npy", "self.npy"))] = _npy(array)
    else:
        members[f"{name}.npy"] = draw.choice(BYTES)(members[f"{name}.npy"], draw)
    packed = io.BytesIO()
    method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(packed, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        if draw.random() < 0.03:
            archive.writestr(f"{name}2.npy", _bomb(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


ARRAYS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda array: array.astype(str),
    lambda array: array.astype("S3"),
    lambda array: array.ravel(),
    lambda array: array[None],
    lambda array: array[..., None],
    lambda array: array[:0] if array.ndim else array,
    lambda array: array[:1] if array.ndim else array,
    lambda array: array[..., :1] if array.ndim else array,
    lambda array: np.concatenate([array, array]) if array.ndim else array,
    lambda array: array.T,
    lambda array: np.full(array.shape, np.nan),
    lambda array: np.full(array.shape, np.inf, np.float32),
    lambda array: np.full(array.shape, 1e300),
    lambda array: np.full(array.shape, -1),
    lambda array: np.full(array.shape, 2**62),
    lambda array: np.full(array.shape, 2**63, np.uint64),
    lambda array: np.zeros(array.shape, complex),
    lambda array: np.zeros(array.shape, bool),
    lambda array: np.zeros(array.shape, np.float16),
    lambda array: np.zeros(array.shape, "datetime64[s]"),
    lambda array: np.array(7),
    lambda array: np.array("text"),
    lambda array: np.array([{"an": "object"}], object),
    lambda array: np.zeros(0),
    lambda array: np.zeros((3, 0, 2)),
)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def _header(text: str) -> bytes:
    raw = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw


def _bomb() -> bytes:
    """30 MB that pack into a thousandth."""
    return _npy(np.zeros(30_000_000, np.uint8))


def _break_pickle(data: bytes, draw: random.Random) -> bytes:
    """A pickle in which some operations are gone, twice there, elsewhere or others."""
    places = [place for _, _, place in pickletools.genops(data)]
    parts = [data[start:end] for start, end in zip(places, [*places[1:], len(data)], strict=True)]
    for _ in range(draw.choice((1, 1, 2, 5))):
        i, j = draw.randrange(len(parts)), draw.randrange(len(parts))
        match draw.randrange(5):
            case 0:
                parts[i] = b""
            case 1:
                parts.insert(i, parts[j])
            case 2:
                parts[i], parts[j] = parts[j], parts[i]
            case 3:
                parts.insert(i, draw.choice(OPERATIONS))
            case 4 if len(parts[i]) > 1:
                parts[i] = parts[i][:1] + draw.choice(BYTES)(parts[i][1:], draw)
    return b"".join(parts)


OPERATIONS = (
    *(
        b"cos\nsystem\n",
        b"cbuiltins\neval\n",
        b"\x8c\x02os\x8c\x06system\x93",
        b"(S'x'\nios\nsystem\n",
        b"R",
        b"b",
        b"o",
    ),
    *(b"\x81", b"}", b"]", b")", b"(", b"N", b"a", b"e", b"s", b"u", b"0", b"1", b"2", b"t", b"\x85", b"\x86"),
    *(b"r\xff\xff\xff\xff", b"j\xff\xff\xff\x7f", b"\x94", b"h\x00", b"q\x00", b"Pid\n", b"Q", b"\x82\x01", b"\x97"),
    *(b"I" + b"9" * 5000 + b"\n", b"\x8b\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x0f", b"X\xff\xff\xff\x7f"),
    *(b"Fnan\n", b"Finf\n", b"I-1\n", b"(" * 5000, b"]" * 5000 + b"a" * 4999, b"\x95" + b"\xff" * 8),
    b"cnumpy.core.multiarray\n_reconstruct\n",
)


def _break_torch(data: bytes, draw: random.Random) -> bytes:
    """PyTorch's zip archive with broken members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    name = pickled if draw.random() < 0.7 else draw.choice(list(members))
    if name == pickled:
        members[name] = _break_pickle(members[name], draw)
    elif draw.random() < 0.2:
        del members[name]
    else:
        members[name] = draw.choice(BYTES)(members[name], draw)
    return _zipped(members, draw)


def _break_openvino(data: bytes, draw: random.Random) -> bytes:
    """A zip archive of a graph and its weights, one of which is broken."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    members[name] = (_break_text if name.endswith(".xml") else draw.choice(BYTES))(members[name], draw)
    return _zipped(members, draw)


def _zipped(members: Mapping[str, bytes], draw: random.Random) -> bytes:
    packed = io.BytesIO()
    method = zipfile.ZIP_STORED if draw.random() < 0.9 else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(packed, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return packed.getvalue()


def _break_safetensors(data: bytes, draw: random.Random) -> bytes:
    """A broken header, its length told rightly or not."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    texts = [key for key, value in metadata.items() if value.startswith("{")]
    if texts and draw.random() < 0.6:
        key = draw.choice(texts)
        metadata[key] = as_json(break_tree(json.loads(metadata[key]), draw)).decode()
        text = as_json(header)
    else:
        text = as_json(break_tree(header, draw))
    told = len(text) if draw.random() < 0.9 else draw.choice((0, 1, 2**62, 2**63, 2**64 - 1, len(data)))
    return struct.pack("<Q", told) + text + data[8 + length :]


def _break_text(data: bytes, draw: random.Random) -> bytes:
    """A text with words or lines that are others, gone or twice there."""
    words = re.split(rb"(\s+|[\"=<>])", data)
    for _ in range(draw.choice((1, 1, 3, 10))):
        i, j = draw.randrange(len(words)), draw.randrange(len(words))
        match draw.randrange(5):
            case 0:
                words[i] = b""
            case 1:
                words[i] = words[j]
            case 2 | 3:
                words[i] = draw.choice(WORDS)
            case 4:
                words[i:i] = words[i : i + 40] * draw.choice((1, 20))
    return b"".join(words)


def _break_onnx(data: bytes, draw: random.Random) -> bytes:
    """A graph in which some operations, numbers, types or inputs are others, or what is said of it is."""
    model = onnx.load_from_string(data)
    graph, said = model.graph, json.loads(model.metadata_props[0].value)
    for _ in range(draw.choice((1, 1, 2, 5))):
        node, other = draw.choice(graph.node), draw.choice(graph.node)
        weights, value = draw.choice(graph.initializer), draw.choice((*graph.input, *graph.output))
        giant = draw.choice((0, -1, 1, 2, 3, 7, 10**6, 2**31, 2**40, 2**62, -(2**63)))
        match draw.randrange(10):
            case 0:
                node.op_type = draw.choice(ONNX_OPERATIONS)
            case 1:
                node.input[draw.randrange(len(node.input))] = draw.choice((*other.input, *other.output, "", "nowhere"))
            case 2:
                again = copy.deepcopy(other)
                graph.node.remove(node)
                graph.node.append(again)
            case 3:
                weights.data_type = draw.randrange(26)
            case 4:
                value.type.tensor_type.elem_type = draw.randrange(26)
            case 5:
                for numbers in (weights.dims, *(one.ints for one in node.attribute)):
                    if numbers and draw.random() < 0.5:
                        numbers[draw.randrange(len(numbers))] = giant
                if draw.random() < 0.3:
                    draw.choice(value.type.tensor_type.shape.dim).dim_value = giant
            case 6:
                weights.raw_data = weights.raw_data[: draw.randrange(len(weights.raw_data) + 1)]
            case 7:
                model.opset_import[0].version = draw.choice((0, 1, 7, 13, 25, 2**62))
            case 8:
                model.metadata_props[0].value = as_json(break_tree(said, draw)).decode()
            case 9:
                attribute = node.attribute.add()
                attribute.name, attribute.i, attribute.type = "axis", giant, onnx.AttributeProto.INT
        if not graph.node or not graph.initializer:
            break
    return model.SerializeToString()


ONNX_OPERATIONS = (
    *("Identity", "Add", "MatMul", "Gemm", "Conv", "Reshape", "Expand", "Tile", "ConstantOfShape", "Range", "Concat"),
    *(
        "Gather",
        "Slice",
        "Pad",
        "Resize",
        "OneHot",
        "Loop",
        "NonZero",
        "TopK",
        "Einsum",
        "GridSample",
        "LSTM",
        "Nothing",
    ),
)

WORDS = (
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"99999999999999999999", b"1e308", b"", b"{", b"}", b"\n"),
    *(b"../../../../etc/passwd", b"/etc/passwd", b"\0", b"\xff\xfe", "日本".encode(), b"x" * 20_000, b"&a;", b"<!--"),
    *(b"JOINT a {" * 300, b"End", b"MOTION", b"1" * 5000, b'<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
)

STRUCTURES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _break_json,
    ".npz": _break_arrays,
    ".pkl": _break_pickle,
    ".pt": _break_torch,
    ".pth": _break_torch,
    ".tar": _break_torch,
    ".safetensors": _break_safetensors,
    ".onnx": _break_onnx,
    ".openvino": _break_openvino,
    ".xml": _break_text,
    ".bvh": _break_text,
    ".txt": _break_text,
}
"""How files with these endings are broken by their structure."""
