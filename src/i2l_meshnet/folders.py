"""Locked output folders, and folders for unfinished work.

Other users may be able to write to the same folders. So links are not followed, and an existing folder is used, emptied
or removed only if this program created it for this user.
"""

import contextlib
import errno
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from i2l_meshnet.errors import FileError, TakenError
from i2l_meshnet.locks import NOFOLLOW, NONBLOCK, is_same_file, lock_file

LOCK = ".i2l-meshnet.lock"
"""Name of a folder's lock file. In a work folder it stays, as the sign that this program created the folder."""

_OWNED: set[int] = set()
"""Handles of the lock files of the folders that this process has locked."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Create `folder` if it is missing and lock it. Its content is not changed. The lock file is removed at the end.

    Raises TakenError if another process has locked it, FileError if it cannot be written. On a file system without
    locks, several processes can use it.
    """
    with _locked(folder, wait=False, work=False):
        yield


@contextlib.contextmanager
def work_folder(folder: Path, wait: bool = False) -> Iterator[None]:
    """Create or reopen a folder for unfinished work and lock it. It stays until `remove` is called.

    An existing folder is accepted only if it is a real folder of this user, no other user can write to it, and it is
    empty or has our lock file. Raises FileError otherwise. wait: whether to wait for another process that has locked
    the folder, instead of raising TakenError.
    """
    with _locked(folder, wait, work=True):
        yield


@contextlib.contextmanager
def _locked(folder: Path, wait: bool, work: bool) -> Iterator[None]:
    try:
        handle = _enter(folder, wait, work)
    except BlockingIOError as error:
        raise TakenError(
            f"another process is at work in {folder}: wait until it ends, or name another folder"
        ) from error
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
    """Make forked processes close the locks that they would share with this one."""

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
    """Remove a work folder as far as possible. A folder that `work_folder` would refuse is not changed."""
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
    """How to name a file in an open folder: by its name, or by its path where the system cannot open folders."""
    return folder / name if handle is None else name


@contextlib.contextmanager
def _opened_work(folder: Path) -> Iterator[int | None]:
    """Check a work folder as `work_folder` does and open it. Yields None on Windows, which cannot open folders."""
    handle = None
    if os.name != "nt":
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | NOFOLLOW)
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
            raise _not_ours(folder, "it has other files")
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def only_ours(folder: Path) -> bool:
    """Whether permissions of a folder and its parents let only this user and root change its content."""
    if os.name == "nt":
        return True
    real = folder.resolve()
    for path in (real, *real.parents):
        status = path.stat()
        # In a sticky folder, users cannot replace what belongs to another user.
        writable = status.st_mode & _OTHERS_WRITE if path == real or not status.st_mode & stat.S_ISVTX else 0
        if status.st_uid not in (0, os.geteuid()) or writable & stat.S_IWOTH:
            return False
        if writable & stat.S_IWGRP and not _is_own_group(status.st_gid):
            return False
    return True


def _is_own_group(number: int) -> bool:
    """Whether this user is the only member of a group. Many systems create such a group for each user."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _require_private(folder: Path, status: os.stat_result) -> None:
    """Raise FileError for a folder that belongs to another user or that other users can write to."""
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
    return FileError(f"{folder} is not a work folder of this program ({reason}) and was not changed: move it away")


def _enter(folder: Path, wait: bool, work: bool) -> int:
    """Create or check the folder and lock it. Returns the handle of its lock file."""
    while True:
        try:
            if work:
                folder.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                with _opened_work(folder) as opened:
                    handle = _open_lock(_at(folder, LOCK, opened), opened)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                handle = _open_lock(folder / LOCK, None)
        except FileNotFoundError:  # Another process has removed the folder or the lock file since.
            continue
        try:
            if not lock_file(handle, wait) or is_same_file(handle, folder / LOCK):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open_lock(path: str | Path, folder: int | None) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | NOFOLLOW | NONBLOCK, 0o600, dir_fd=folder)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, f"{LOCK} in it is not a regular file")
