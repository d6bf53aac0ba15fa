"""Read untrusted files with limits on size, and write files completely or not at all.

`reading` is the one error boundary: it turns any exception that a damaged file causes into one FileError.

A file that is being written has a hidden name beside its target and is locked. The lock ends with its process. So the
next writer of the same target can recognise and remove the files of a killed process.
"""

import contextlib
import dataclasses
import errno
import io
import json
import os
import stat
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np
from jaxtyping import AbstractArray, jaxtyped

from i2l_meshnet.errors import FileError, UserError
from i2l_meshnet.locks import NOFOLLOW, NONBLOCK, fcntl, is_same_file, lock_file

WRITERS = 8
"""Number of processes that can write the same file at the same time."""

_UNFINISHED = "i2l-meshnet-"
"""Part of the names of temporary files, so that they cannot be the user's."""

_PASSED_PIPES = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""Paths of files that were open when this process started, such as a shell's `<(command)`."""

MAX_JSON_BYTES = 4 * 10**9
"""Maximum size of a JSON file. Parsed, it needs up to about 30 times as much memory."""

MAX_BYTES = 500 * 10**6
"""Maximum size of other files that are read completely."""

FREE_BYTES, MAX_RATIO = 16 * 10**6, 50
"""Maximum size of a decompressed archive: FREE_BYTES, or MAX_RATIO times its file size beyond that."""

MAX_EMPTY_LENGTH = 10**6
"""Maximum length of an array without values: a loop over more would take forever."""


@contextlib.contextmanager
def reading(path: Path | str, what: str, fix: str = "", missing: str = "") -> Iterator[None]:
    """The error boundary of a reader: raise FileError, in one line, for any exception that a damaged file causes.

    what: what the file should be, with its article, such as "a 3DPW sequence". fix: what the user can do about a
    damaged file. missing: what the user can do about a missing file (default: `fix`). UserErrors and errors of our
    own code pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise FileError(_sentence(f"{path} does not exist", missing or fix)) from error
    except Exception as error:  # Libraries report damaged files with almost any exception.
        if _is_bug(error):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise FileError(f"cannot read {path}: {error.strerror}") from error
        raise FileError(_sentence(f"{path} is not {what} ({_reason(error)})", fix)) from error


def _is_bug(error: Exception) -> bool:
    """Whether no file can cause this exception. A wrong JSON value can: it lacks the attributes of the right type.

    Failed shape checks are not among them: tests make them where `require_shapes` finds a damaged file later.
    """
    if isinstance(error, AttributeError):
        return type(error.obj).__module__.startswith("i2l_meshnet")
    return isinstance(error, NameError | ImportError | AssertionError)


def _sentence(fault: str, fix: str) -> str:
    return f"{fault}: {fix}" if fix else fault


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0] if error.args else 'such entry'!r}"
    if not isinstance(error, ValueError):
        return "it is damaged"
    return getattr(error, "strerror", None) or first_line(error)  # FFmpeg's errors have both


def first_line(error: Exception) -> str:
    """The first line of what an exception says, shortened; the name of its type if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading. Raises OSError for anything but a regular file.

    Named pipes and devices can block or never end. Pipes are read only where the user passed an open one:
    /dev/stdin or /dev/fd/N, as a shell's `<(command)` does.
    """
    _require_kind(path, path.stat())  # Before opening too: opening a device can change its state.
    handle = os.open(path, os.O_RDONLY | NONBLOCK | getattr(os, "O_BINARY", 0))
    try:
        _require_kind(path, os.fstat(handle))
        if NONBLOCK:
            os.set_blocking(handle, True)
        return open(handle, "rb")  # noqa: PTH123 (a descriptor; os.fdopen would import io)
    except BaseException:
        os.close(handle)
        raise


def require_regular(path: Path) -> None:
    """Raises OSError unless `path` is a readable regular file: for libraries that open files by name."""
    with open_regular(path) as file:
        _require_kind(path, os.fstat(file.fileno()), pipes=False)


def _require_kind(path: Path, status: os.stat_result, pipes: bool = True) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if pipes and stat.S_ISFIFO(mode) and str(path.absolute()).startswith(_PASSED_PIPES):
        return
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", str(path))


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix). On success it is synced and renamed to `path`.

    After an exception the temporary file is removed and `path` is unchanged. After a kill, the next writer of `path`
    removes it. If several processes write `path` at the same time, the last one wins. Raises FileError if the file
    cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _claim(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from error
    renamed = False
    try:
        yield temporary
        if not is_same_file(handle, temporary):
            raise FileError(
                f"cannot write {path}: another program replaced its temporary file; use a folder of your own"
            )
        sync(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        renamed = True
        sync(path.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # Once renamed, another process may be writing under the temporary name.
        if not renamed:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file completely or not at all. Raise FileError if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_safetensors(path: Path, data: bytes) -> None:
    """Write bytes from safetensors' `save`, with sorted metadata, because safetensors' own order is random."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = dict(sorted(header.pop("__metadata__", {}).items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(memoryview(data)[8 + length :])


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders.
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def abandoned(path: Path) -> list[Path]:
    """Temporary files of `path` whose writers were killed."""
    return [temporary for temporary in _temporaries(path) if _is_abandoned(temporary)]


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove temporary files of killed writers, for files in `folder` whose names match `pattern`.

    Needed only for names that are not written again: `atomic_path` removes the abandoned files of its own path.
    """
    stem, suffix = Path(pattern).stem, Path(pattern).suffix
    for temporary in folder.glob(f".{stem}.{_UNFINISHED}[0-{WRITERS - 1}]{suffix}"):
        if _is_abandoned(temporary):
            temporary.unlink(missing_ok=True)


def _temporaries(path: Path) -> list[Path]:
    return [path.with_name(f".{path.stem}.{_UNFINISHED}{number}{path.suffix}") for number in range(WRITERS)]


def _claim(path: Path) -> tuple[int, Path]:
    """Open, lock and empty a free temporary file of `path`. Remove other abandoned files."""
    names = iter(_temporaries(path) if fcntl else [])
    for temporary in names:
        with contextlib.suppress(BlockingIOError):
            handle = _claim_one(temporary)
            if handle is None:
                continue
            for other in names:
                if _is_abandoned(other):
                    other.unlink(missing_ok=True)
            return handle, temporary
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    return handle, Path(name)


def _claim_one(temporary: Path) -> int | None:
    """Create or open a temporary file and lock it. Returns None if it is not ours or cannot be locked.

    Raises BlockingIOError if another process writes it.
    """
    while True:
        try:
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            handle = _open_own(temporary)
            if handle is None:
                if os.path.lexists(temporary):
                    return None
                continue
        try:
            if not lock_file(handle):
                temporary.unlink(missing_ok=True)
                os.close(handle)
                return None
            if is_same_file(handle, temporary):
                os.truncate(handle, 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open_own(temporary: Path) -> int | None:
    """Open a regular file of this user. Returns None for anything else, which another user may have created."""
    try:
        handle = os.open(temporary, os.O_RDWR | NOFOLLOW | NONBLOCK)
    except OSError:
        return None
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1:
        return handle
    os.close(handle)
    return None


def _is_abandoned(temporary: Path) -> bool:
    handle = _open_own(temporary) if fcntl and temporary.is_file() else None
    if handle is None:
        return False
    try:
        return lock_file(handle) and is_same_file(handle, temporary)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def parse_json(text: bytes | str) -> Any:
    """Parse a JSON text, which may have NaN and Infinity as Python writes them."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of at most `limit` bytes."""
    return parse_json(read_bytes(path, limit))


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file, or a pipe that the user passed, of at most `limit` bytes."""
    parts: list[bytes] = []
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Regular files are read in one piece. Pipes, and files that grow, need more.
        while size <= limit and (part := file.read(max(size + 1, 2**20))):
            parts.append(part)
            size = max(size, sum(map(len, parts)))
    if size > limit:
        raise ValueError(f"it has more than {limit / 1e6:g} MB, the limit")
    return b"".join(parts)


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays of numbers and texts from an .npz file: all, or those in `names`.

    Raises ValueError if they decompress to much more than the file's size.
    """
    require_regular(path)
    with zipfile.ZipFile(path) as archive:
        decompressed = sum(member.file_size for member in archive.infolist())
    if decompressed > FREE_BYTES + MAX_RATIO * path.stat().st_size:
        raise ValueError(f"it decompresses to {decompressed / 1e6:.0f} MB, too much for its size")
    with np.load(path, allow_pickle=False) as archive:
        return {name: _bounded(archive[name]) for name in names or archive.files}


def read_array(path: Path) -> np.ndarray:
    """Read the array of an .npy file."""
    with open_regular(path) as file:
        return _bounded(np.lib.format.read_array(file, allow_pickle=False))


def read_torch(path: Path, mmap: bool = False) -> Any:
    """Read a file of `torch.save` that has only tensors, numbers, texts and containers. No code in it is run.

    mmap: map the tensors from the file instead of reading them.
    """
    import torch  # Importing it takes seconds, and many commands do not need it.

    require_regular(path)
    with open_regular(path) as file:
        start = file.read(2)
    # PyTorch would read anything else as a tar archive, its oldest format, and create a folder for it.
    if start != b"PK" and start[:1] != b"\x80":
        raise ValueError("it does not start like a file of PyTorch")
    is_archive = zipfile.is_zipfile(path)
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            require_stored(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)  # noqa: TID251


def require_stored(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for a compressed archive: networks are stored uncompressed."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise ValueError("its content is compressed, which such files never are")


def inside(name: str) -> str:
    """Return `name` if it is a path inside a folder. Raise ValueError if it leads out of the folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name!r} leads out of its folder")
    return name


def require_shapes(read: Any) -> None:
    """Raise ValueError unless all arrays and tensors in a dataclass (also in nested ones) have the annotated shapes.

    Axes with the same name must have the same length.
    """
    # One context for all fields, so that an axis name keeps its length.
    with jaxtyped("context"):
        for name, value, kinds in _fields(read):
            if not any(isinstance(value, kind) for kind in kinds):
                found = f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
                raise ValueError(f"{name} is {found}, not {' or '.join(kind.__name__ for kind in kinds)}")


def _fields(read: Any) -> Iterator[tuple[str, Any, list[type]]]:
    """Names, values and types of the fields annotated as arrays, also in nested dataclasses."""
    for field in dataclasses.fields(read):
        value = getattr(read, field.name)
        kinds = [kind for kind in (get_args(field.type) or (field.type,)) if isinstance(kind, type)]
        if dataclasses.is_dataclass(value):
            yield from _fields(value)
        elif any(issubclass(kind, AbstractArray) for kind in kinds):
            yield field.name, value, kinds


def _bounded(array: object) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise ValueError("it has a member that is not an array of plain values")
    if max(array.shape, default=0) > max(array.nbytes, MAX_EMPTY_LENGTH):
        raise ValueError(f"it has an empty array of shape {array.shape}, which is too long")
    return array
