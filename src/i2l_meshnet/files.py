"""Opening files safely, writing them whole or not at all, and folders for unfinished work.

A file that is being written has a hidden name beside its target and is locked. The lock ends with its process, so the
next writer of the same target can tell the remains of a killed process from work in progress, and removes them.

Other users may be able to write where we work. So links are not followed, and a folder or file that is there already
is used, emptied or removed only if this program made it for this user.
"""

import contextlib
import errno
import functools
import io
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
_UNFINISHED = "i2l-meshnet-"
"""In the names of temporary files, so that no file of the user's has such a name."""
LOCK = ".i2l-meshnet.lock"
"""Name of the lock file of a folder. In a work folder it stays, and shows that this program made the folder."""
_OWNED: set[int] = set()
"""Handles of the lock files of the folders that this process has locked."""
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_PASSED = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""Names of files that were open when this process started."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading. Raises OSError for anything but a regular file.

    Named pipes and devices can block or never end. Pipes are read only where the user passed an open one:
    /dev/stdin or /dev/fd/N, as a shell's `<(command)` does.
    """
    _require_kind(path, path.stat())  # Before opening too: opening a device can change its state.
    handle = os.open(path, os.O_RDONLY | _NONBLOCK | getattr(os, "O_BINARY", 0))
    try:
        _require_kind(path, os.fstat(handle))
        if _NONBLOCK:
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
    if pipes and stat.S_ISFIFO(mode) and str(path.absolute()).startswith(_PASSED):
        return
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", str(path))


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
        if not _is_same(handle, temporary):
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
    for temporary in folder.glob(f".{stem}.{_UNFINISHED}[0-{WRITERS - 1}]{suffix}"):
        if _is_abandoned(temporary):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Create `folder` if it is missing and lock it. Its content is left alone; the lock file is removed at the end.

    Raises TakenError if another process has locked it, FileError where it cannot be written. Where the file system has
    no locks, nobody is kept out.
    """
    with _locked(folder, wait=False, work=False):
        yield


@contextlib.contextmanager
def work_folder(folder: Path, wait: bool = False) -> Iterator[None]:
    """Create or reopen a folder for unfinished work and lock it. It stays until `remove` is called.

    An existing folder is accepted only if it is a real folder of this user, no other user can write to it, and it is
    empty or has our lock file. Raises FileError otherwise. wait: for another process that has locked the folder; else
    raises TakenError.
    """
    with _locked(folder, wait, work=True):
        yield


@contextlib.contextmanager
def _locked(folder: Path, wait: bool, work: bool) -> Iterator[None]:
    try:
        handle = _enter(folder, wait, work)
    except BlockingIOError as error:
        raise TakenError(f"another process is at work in {folder}: wait for its end, or name another folder") from error
    except OSError as error:
        raise FileError(f"cannot write {folder}: {error.strerror}; choose a folder that you may write to") from error
    _leave_to_parent()
    _OWNED.add(handle)
    try:
        yield
    finally:
        # A forked process has closed the handle already.
        if handle in _OWNED:
            _OWNED.remove(handle)
            if not work:
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
    """Remove everything in a work folder except its lock file. Raises OSError, and FileError as `work_folder` does."""
    with _opened_work(folder) as handle:
        _empty(folder, handle)


def remove(folder: Path) -> None:
    """Remove a work folder as far as possible. One that `work_folder` would refuse is left alone."""
    with contextlib.suppress(OSError, FileError), _opened_work(folder) as handle:
        _empty(folder, handle)
        os.unlink(_at(folder, LOCK, handle), dir_fd=handle)
        folder.rmdir()


def _empty(folder: Path, handle: int | None) -> None:
    with os.scandir(folder if handle is None else handle) as entries:
        inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if entry.name != LOCK]
    for name, is_folder in inside:
        path = _at(folder, name, handle)
        if is_folder:
            shutil.rmtree(path, dir_fd=handle)
        else:
            os.unlink(path, dir_fd=handle)


def _at(folder: Path, name: str, handle: int | None) -> str | Path:
    """What names a file of an open folder: its name alone, or its path where the system cannot open folders."""
    return folder / name if handle is None else name


@contextlib.contextmanager
def _opened_work(folder: Path) -> Iterator[int | None]:
    """The open work folder (None on Windows, which cannot open folders), after the checks of `work_folder`."""
    handle = None
    if os.name != "nt":
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise _not_ours(folder, "it is a link or a file") from error
            raise
    try:
        status = folder.lstat() if handle is None else os.fstat(handle)
        if not stat.S_ISDIR(status.st_mode):
            raise _not_ours(folder, "it is a link or a file")
        if os.name != "nt":
            _require_private(folder, status)
        with os.scandir(folder if handle is None else handle) as entries:
            names = {entry.name for entry in entries}
        if names and LOCK not in names:
            raise _not_ours(folder, "it holds other files")
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def only_ours(folder: Path) -> bool:
    """Whether no other user than root can change what is in a folder, by its permissions and those above it."""
    if os.name == "nt":
        return True
    place = folder.resolve()
    for path in (place, *place.parents):
        status = path.stat()
        # In a sticky folder nobody can replace what belongs to somebody else.
        writable = status.st_mode & _OTHERS_WRITE if path == place or not status.st_mode & stat.S_ISVTX else 0
        if status.st_uid not in (0, os.geteuid()) or writable & stat.S_IWOTH:
            return False
        if writable & stat.S_IWGRP and not _is_own_group(status.st_gid):
            return False
    return True


def _is_own_group(number: int) -> bool:
    """Whether a group is that of this user alone, as many systems make one for each user."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _require_private(folder: Path, status: os.stat_result) -> None:
    """Raise FileError for a folder of another user, or that other users can write to."""
    if status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE:
        return
    # Some file systems show every folder with the same owner and permissions.
    with tempfile.TemporaryDirectory(prefix=".i2l-meshnet-", dir=folder.parent) as name:
        usual = Path(name).stat()
    if status.st_uid != usual.st_uid:
        raise _not_ours(folder, "it belongs to another user")
    if status.st_mode & _OTHERS_WRITE & ~usual.st_mode:
        raise _not_ours(folder, "other users can write to it")


def _not_ours(folder: Path, reason: str) -> FileError:
    return FileError(f"{folder} is not a work folder of this program ({reason}): it was left alone; move it away")


def _enter(folder: Path, wait: bool, work: bool) -> int:
    """Create the folder, or check it, and lock it. Returns the handle of its lock file, which is locked."""
    while True:
        try:
            if work:
                folder.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                with _opened_work(folder) as place:
                    handle = _open_lock(_at(folder, LOCK, place), place)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                handle = _open_lock(folder / LOCK, None)
        except FileNotFoundError:  # Another process has just removed the folder or the lock file.
            continue
        try:
            if not _lock(handle, wait) or _is_same(handle, folder / LOCK):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open_lock(path: str | Path, place: int | None) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW | _NONBLOCK, 0o600, dir_fd=place)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, f"{LOCK} in it is not a regular file")


def _temporaries(path: Path) -> list[Path]:
    return [path.with_name(f".{path.stem}.{_UNFINISHED}{number}{path.suffix}") for number in range(WRITERS)]


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
    """A regular file of this user, opened; None for anything else, which another user may have put there."""
    try:
        handle = os.open(temporary, os.O_RDWR | _NOFOLLOW | _NONBLOCK)
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
    """Whether the path still names the open file: another process may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
