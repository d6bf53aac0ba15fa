"""Writing files so that they appear whole or not at all, and folders that one process at a time works in.

What is being written has a hidden name beside its target and is locked. The lock ends with its process however that
ends, so whoever writes the same target next knows a killed writer's remains from a living one's work, and removes them.
"""

import contextlib
import functools
import json
import os
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from jaxtyping import UInt8

from i2l_meshnet.errors import FileError, TakenError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Not on Windows: there, what a killed process leaves is not found again.
    fcntl = None

WRITERS = 8
"""So many processes can write one file at once and be told apart."""
LOCK = ".lock"
_OWNED: set[int] = set()
"""Handles of the lock files of the folders that this process keeps."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` (same suffix); on success it is synced and renamed to `path`.

    On any exception the temporary file is removed and `path` is left as it was; after a kill the next writer of
    `path` removes it. Of processes that write `path` at once, the last one's file stays. Raises FileError where the
    file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _claim(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from error
    renamed = False
    try:
        yield temporary
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
    """Writes a file, whole or not at all. Raises FileError where that cannot be done."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_safetensors(path: Path, data: bytes) -> None:
    """Writes what safetensors' `save` has made, its metadata in the order of their names: its own order is random."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = dict(sorted(header.pop("__metadata__", {}).items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(memoryview(data)[8 + length :])


def write_picture(path: Path, picture: UInt8[np.ndarray, "h w 3"], quality: int = 95) -> None:
    """Writes an RGB picture in the format of the path's suffix. quality: of a JPEG, to 100.

    Raises FileError for another suffix than .jpg, .jpeg and .png, and where the file cannot be written.
    """
    write_bytes(path, encode_picture(picture, path.suffix, quality))


def encode_picture(picture: UInt8[np.ndarray, "h w 3"], suffix: str, quality: int = 95) -> bytes:
    """An RGB picture as the bytes of a file of the format of `suffix`; see `write_picture`."""
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise FileError(f"cannot write pictures of the kind {suffix!r}: name a .jpg or .png")
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    # OpenCV's own writer of files does not tell of a full disk.
    done, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise FileError(f"cannot encode a picture of {picture.shape[1]}x{picture.shape[0]} pixels as {suffix}")
    return data.tobytes()


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders, and keeps their names by itself.
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def abandoned(path: Path) -> list[Path]:
    """The temporary files of `path` whose writers were killed."""
    return [temporary for temporary in _temporaries(path) if _is_abandoned(temporary)]


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Removes what killed writers left of the files in `folder` whose names match `pattern`.

    For files that are not written again under the same name, which `atomic_path` would see to.
    """
    stem, suffix = Path(pattern).stem, Path(pattern).suffix
    for temporary in folder.glob(f".{stem}.[0-{WRITERS - 1}]{suffix}"):
        if _is_abandoned(temporary):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def own_folder(folder: Path, wait: bool = False) -> Iterator[None]:
    """Makes `folder` and keeps other processes out of it meanwhile, by a locked file; its content is left as it is.

    Where another process is in it already, waits for its end or raises TakenError. Processes that this one forks do
    not keep the folder when it has ended. Where the file system has no locks nobody is kept out.
    """
    try:
        handle = _enter(folder, wait)
    except BlockingIOError as error:
        raise TakenError(f"another process is at work in {folder}: wait for its end, or name another folder") from error
    except OSError as error:
        raise FileError(f"cannot write {folder}: {error.strerror}; choose a folder that you may write to") from error
    _leave_to_parent()
    _OWNED.add(handle)
    try:
        yield
    finally:
        if handle in _OWNED:
            _OWNED.remove(handle)
            (folder / LOCK).unlink(missing_ok=True)
            os.close(handle)


@functools.cache
def _leave_to_parent() -> None:
    """From now on, forked processes close the locks that they would share with this one."""

    def disown() -> None:
        while _OWNED:
            os.close(_OWNED.pop())

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=disown)


def empty(folder: Path) -> None:
    """Removes what is in a folder that `own_folder` keeps, but the lock. Raises OSError."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _enter(folder: Path, wait: bool) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # Its last owner has just removed it.
            continue
        try:
            if not _lock(handle, wait) or _is_same(handle, folder / LOCK):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _temporaries(path: Path) -> list[Path]:
    return [path.with_name(f".{path.stem}.{number}{path.suffix}") for number in range(WRITERS)]


def _claim(path: Path) -> tuple[int, Path]:
    """A temporary file of `path` that nobody writes, open, locked and empty; abandoned ones beyond it are removed."""
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
    """Opens the file, made if it is missing, and locks it; None if it is not ours or cannot be locked.

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
            if not _lock(handle):
                temporary.unlink(missing_ok=True)
                os.close(handle)
                return None
            if _is_same(handle, temporary):
                os.truncate(handle, 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open_own(temporary: Path) -> int | None:
    """A regular file of this user, opened; None for anything else, which a stranger may have laid there."""
    try:
        handle = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
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
        return _lock(handle) and _is_same(handle, temporary)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def _lock(handle: int, wait: bool = False) -> bool:
    """Locks an open file until it is closed, by the end of its process at the latest; False if that cannot be done.

    Raises BlockingIOError if another process has locked it and `wait` is not given.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:  # This file system has no locks.
        return False
    return True


def _is_same(handle: int, path: Path) -> bool:
    """Whether the open file is still what the path names: its last owner may have renamed or removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
