"""Locks on open files. A lock ends with its process, so files of a killed process can be recognised."""

import os
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows. There, files of a killed process are not recognised.
    fcntl = None

NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)

NONBLOCK = getattr(os, "O_NONBLOCK", 0)


def lock_file(handle: int, wait: bool = False) -> bool:
    """Lock an open file until it is closed or the process ends. Returns False if the system has no locks.

    Raises BlockingIOError if another process has locked it and `wait` is false.
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


def is_same_file(handle: int, path: Path) -> bool:
    """Whether the path still names the open file: another process may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
