"""Damage files, read them under limits, and check the outcome.

A reader must return a result or raise one of the user's errors, in one line. It must not use more than `MAX_SECONDS`
of processor time or `MAX_MEGABYTES` of additional memory, start a program, open a connection or write outside the
folder it was given.
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
import pytest

from i2l_meshnet.errors import UserError

MAX_SECONDS, MAX_MEGABYTES = 5.0, 400
ADDRESS_SPACE = 8 * 2**30
"""Limit for additional address space, so that an excessive allocation fails instead of exhausting the machine."""
FOLDER = "härte\n\x1b[31m 日本"
"""A folder name with unprintable characters, which messages must escape."""
SECRET = "the-content-of-another-file"

Calls = Mapping[str, Callable[[], object]]
"""The files to damage, and what reads each of them."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader of untrusted files. make: writes valid files into a folder."""

    name: str
    make: Callable[[Path], Calls]


class Hang(BaseException):
    """A case takes too long. `except Exception` does not catch it."""


class _Watch:
    """Records Python's audit events that a reader must not cause."""

    forbidden = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")
    changing = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link")
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in self.forbidden:
            self.seen.append(f"{event} {arguments!r:.200}")
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & self.writing
        if (is_write and isinstance(arguments[0], str | bytes)) or event in self.changing:
            path = str(Path(os.fsdecode(arguments[0])).absolute())
            if not path.startswith(self.folder) and "__pycache__" not in path and path != os.devnull:
                self.seen.append(f"{event} {path}")


_watch = _Watch()


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Limit time and memory, and record forbidden events in `_watch`."""
    if not hasattr(sys, "_i2l_meshnet_watched"):
        sys.addaudithook(_watch)
        sys._i2l_meshnet_watched = True  # pyright: ignore[reportAttributeAccessIssue] (a hook cannot be removed)

    def late(number: int, frame: FrameType | None) -> None:
        raise Hang

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handlers = {number: signal.signal(number, late) for number in (signal.SIGPROF, signal.SIGALRM)}
    # Only tests check tensor shapes, so readers must find wrong shapes without these checks.
    checked, jaxtyping.config.jaxtyping_disable = jaxtyping.config.jaxtyping_disable, True
    _watch.seen, _watch.folder = [], str(folder.resolve())
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, before[1]))
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    signal.alarm(30)  # Waiting, for example for a named pipe, takes no processor time.
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
        _watch.folder = None
        jaxtyping.config.jaxtyping_disable = checked


def peak_memory(restart: bool = False) -> float:
    """Peak memory of this process since the last restart, MB."""
    if restart:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def probe(call: Callable[[], object], folder: Path) -> str:
    """Read one file. Returns "result" or the class name of the user's error; fails for any other outcome."""
    before, outcome, message = peak_memory(restart=True), "result", ""
    try:
        with guarded(folder):
            call()
    except UserError as error:
        outcome, message = type(error).__name__, str(error)
    except Hang:
        pytest.fail(f"took more than {MAX_SECONDS} s")
    assert outcome != "UserError", "the error has no class of its own"
    assert message.isprintable(), f"not one printable line: {message!r}"
    assert SECRET not in message
    assert peak_memory() - before < MAX_MEGABYTES
    assert not _watch.seen, _watch.seen
    return outcome


def fuzz(reader: Reader, folder: Path, cases: int) -> Counter[str]:
    """Damage the reader's files in `cases` ways and count the outcomes. Fails at the first wrong one."""
    folder.mkdir()
    calls, outcomes = reader.make(folder), Counter[str]()
    contents = {name: (folder / name).read_bytes() for name in calls}
    for name, call in calls.items():
        call()  # Libraries initialise themselves at their first use.
        assert probe(call, folder) == "result", f"{name} is not read as it is"
    started = time.process_time()
    for seed in range(cases):
        draw = random.Random(seed)
        name = draw.choice(sorted(calls))
        (folder / name).write_bytes(damaged(name, contents, draw))
        try:
            outcomes[probe(calls[name], folder)] += 1
        except BaseException as error:
            error.add_note(f"file {name!r}, seed {seed}")
            raise
        finally:
            (folder / name).write_bytes(contents[name])
    print(f"\n{reader.name}: {dict(outcomes)} in {time.process_time() - started:.0f} s", flush=True)
    return outcomes


def damaged(name: str, contents: Mapping[str, bytes], draw: random.Random) -> bytes:
    """One of `contents`, damaged in its structure, in its bytes, or both."""
    data, form = contents[name], STRUCTURES.get(Path(name).suffix)
    if form is not None and draw.random() < 0.7:
        data = form(data, draw)
    if form is None or draw.random() < 0.4:
        for _ in range(draw.choice((1, 1, 1, 2, 8))):
            data = _damage_bytes(data, draw)
    if draw.random() < 0.01:
        data = contents[draw.choice(sorted(contents))]
    return data


def _damage_bytes(data: bytes, draw: random.Random) -> bytes:
    # Headers matter most: half of all positions are near the start.
    position = draw.randrange(min(len(data), 400 if draw.random() < 0.5 else len(data)) or 1)
    length, width = draw.choice((1, 4, 100, 5000)), draw.choice((1, 2, 4, 8))
    start, part, rest = data[:position], data[position : position + length], data[position + length :]
    match draw.randrange(7):
        case 0:  # Flip a bit.
            return start + bytes([(data[position] if data else 0) ^ 1 << draw.randrange(8)]) + data[position + 1 :]
        case 1:  # Truncate.
            return start
        case 2:  # Write a number.
            value = draw.choice((0, 1, -1, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1)), 0x7F, 100, 65535))
            number = (value % 2 ** (8 * width)).to_bytes(width, draw.choice(("little", "big")))
            return start + number + data[position + width :]
        case 3:  # Remove.
            return start + rest
        case 4:  # Repeat.
            return start + part * draw.choice((2, 11, 201)) + rest
        case 5:  # Insert.
            return start + draw.randbytes(length) + data[position:]
        case _:  # Overwrite.
            return start + draw.choice((b"\0", b"\xff", b"9", b"[", b"{")) * len(part) + rest


GIANT = "a giant number"
DEEP = "a deep nest"
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, 2**64, 1e308, 0.5, GIANT, float("nan"), float("-inf"), "", "x", "\0"),
    *("../../../../etc/passwd", "/etc/passwd", "x" * 50_000, "\u202e\x1b[2J\r\n", "日本", "\ud800", DEEP),
    *([], {}, [[]], [None], {"": None}, [0] * 20_000, [[1, 2], [3]], [1, 2, 3, 4], ["a", "b"], [1e300] * 4),
)


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a JSON value with each of its keys."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _nodes(value[key])


def damage_tree(value: Any, draw: random.Random) -> Any:
    """A JSON value in which some nodes are replaced, removed or duplicated."""
    box = [copy.deepcopy(value)]
    for _ in range(draw.choice((1, 1, 1, 3))):
        found = list(_nodes(box))
        # Annotations have many equivalent numbers, so keys are preferred.
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
    """JSON text in which GIANT becomes a number of 5,000 digits and DEEP 100,000 nested lists."""
    text = json.dumps(value, ensure_ascii=True)
    text = text.replace(json.dumps(GIANT), "1" + "0" * 5000).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)
    return text.encode()


def _damage_json(data: bytes, draw: random.Random) -> bytes:
    return as_json(damage_tree(json.loads(data), draw))


ARRAYS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda array: array.astype(str),
    lambda array: array.ravel(),
    lambda array: array[None],
    lambda array: array[..., None],
    lambda array: array[:0] if array.ndim else array,
    lambda array: array[..., :1] if array.ndim else array,
    lambda array: np.concatenate([array, array]) if array.ndim else array,
    lambda array: array.T,
    lambda array: np.full(array.shape, np.nan),
    lambda array: np.full(array.shape, 1e300),
    lambda array: np.full(array.shape, -1),
    lambda array: np.full(array.shape, 2**62),
    lambda array: np.zeros(array.shape, complex),
    lambda array: np.zeros(array.shape, bool),
    lambda array: np.zeros(array.shape, "datetime64[s]"),
    lambda array: np.array(7),
    lambda array: np.array([{"an": "object"}], object),
    lambda array: np.zeros((3, 0, 2)),
)


def _damage_arrays(data: bytes, draw: random.Random) -> bytes:
    """An .npz file in which one array is replaced, removed or damaged."""
    with np.load(io.BytesIO(data)) as archive:
        members = {f"{name}.npy": npy(archive[name]) for name in archive.files}
        name = f"{draw.choice(archive.files)}.npy"
        array = archive[name.removesuffix(".npy")]
    kind = draw.random()
    if kind < 0.6:
        members[name] = npy(draw.choice(ARRAYS)(array))
    elif kind < 0.75:
        shape = draw.choice(((10**12,), (2**62, 4), (-1,), (0, 10**15), (3,) * 40))
        numbers = draw.choice(("<f4", "|b1", "<U0", "|V0", "<U100000000", "|O", "<f4,<i4"))
        members[name] = npy_header(f"{{'descr': '{numbers}', 'fortran_order': False, 'shape': {shape!r}, }}")
    elif kind < 0.8:
        members[name] = npy_header(draw.choice(("{" * 3000, "[" * 9000, "()", "{'descr': " + "(" * 500, "\xff")))
    elif kind < 0.85:
        del members[name]
    elif kind < 0.9:
        members[draw.choice(("../../escaped.npy", "/escaped.npy", "x\0.npy", "x"))] = members[name]
    elif kind < 0.93:
        members[name] = npy(np.zeros(30_000_000, np.uint8))
    else:
        members[name] = _damage_bytes(members[name], draw)
    return _zipped(members, draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def npy(array: np.ndarray) -> bytes:
    """The content of an .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def npy_header(text: str) -> bytes:
    """The start of an .npy file with any header."""
    raw = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw


OPERATIONS = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"\x8c\x02os\x8c\x06system\x93", b"(S'x'\nios\nsystem\n"),
    *(b"R", b"b", b"o", b"\x81", b"}", b"]", b")", b"(", b"N", b"a", b"e", b"s", b"u", b"0", b"1", b"2", b"t"),
    *(b"r\xff\xff\xff\xff", b"j\xff\xff\xff\x7f", b"\x94", b"h\x00", b"Pid\n", b"Q", b"\x82\x01", b"\x97"),
    *(b"I" + b"9" * 5000 + b"\n", b"\x8b\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x0f", b"X\xff\xff\xff\x7f"),
    *(b"Fnan\n", b"(" * 5000, b"]" * 5000 + b"a" * 4999, b"cnumpy.core.multiarray\n_reconstruct\n"),
)


def _damage_pickle(data: bytes, draw: random.Random) -> bytes:
    """A pickle in which some operations are removed, duplicated, swapped or replaced."""
    starts = [position for _, _, position in pickletools.genops(data)]
    parts = [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
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
                parts[i] = parts[i][:1] + _damage_bytes(parts[i][1:], draw)
    return b"".join(parts)


def _damage_zip(data: bytes, draw: random.Random) -> bytes:
    """An archive of PyTorch or OpenVINO in which one member is damaged or missing."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    structured = [name for name in members if Path(name).suffix in STRUCTURES]
    name = draw.choice(structured) if draw.random() < 0.7 else draw.choice(list(members))
    if draw.random() < 0.1:
        del members[name]
    else:
        members[name] = STRUCTURES.get(Path(name).suffix, _damage_bytes)(members[name], draw)
    return _zipped(members, zipfile.ZIP_STORED if draw.random() < 0.9 else zipfile.ZIP_DEFLATED)


def _zipped(members: Mapping[str, bytes], method: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return packed.getvalue()


def _damage_safetensors(data: bytes, draw: random.Random) -> bytes:
    """A damaged header, sometimes with a wrong length."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    texts = [key for key, value in metadata.items() if value.startswith("{")]
    if texts and draw.random() < 0.6:
        key = draw.choice(texts)
        metadata[key] = _damage_json(metadata[key].encode(), draw).decode()
        text = as_json(header)
    else:
        text = as_json(damage_tree(header, draw))
    stated = len(text) if draw.random() < 0.9 else draw.choice((0, 1, 2**62, 2**64 - 1, len(data)))
    return struct.pack("<Q", stated) + text + data[8 + length :]


WORDS = (
    *(b"nan", b"-inf", b"1e999", b"-1", b"0", b"99999999999999999999", b"", b"{", b"}", b"\n", b"JOINT a {" * 300),
    *(b"../../../../etc/passwd", b"\0", b"\xff\xfe", b"x" * 20_000, b"&a;", b"<!--", b"End", b"MOTION", b"1" * 5000),
    b'<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
)


def _damage_text(data: bytes, draw: random.Random) -> bytes:
    """A text in which words or lines are replaced, removed or repeated."""
    words = re.split(rb"(\s+|[\"=<>])", data)
    for _ in range(draw.choice((1, 1, 3, 10))):
        i, j = draw.randrange(len(words)), draw.randrange(len(words))
        if draw.random() < 0.2:
            words[i:i] = words[i : i + 40] * draw.choice((1, 20))
        else:
            words[i] = draw.choice((b"", words[j], draw.choice(WORDS)))
    return b"".join(words)


STRUCTURES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _damage_json,
    ".npz": _damage_arrays,
    ".pkl": _damage_pickle,
    **dict.fromkeys((".pt", ".pth", ".tar", ".openvino"), _damage_zip),
    ".safetensors": _damage_safetensors,
    **dict.fromkeys((".xml", ".bvh", ".txt"), _damage_text),
}
"""How files with these suffixes are damaged in their structure."""
