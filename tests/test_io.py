import contextlib
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from i2l_meshnet import io, locks
from i2l_meshnet.errors import FileError, TakenError
from i2l_meshnet.folders import LOCK, empty, own_folder, remove, work_folder
from i2l_meshnet.io import (
    abandoned,
    atomic_path,
    open_regular,
    remove_abandoned,
    require_regular,
    write_bytes,
    write_safetensors,
)
from i2l_meshnet.pictures import write_picture


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed(work: Callable[[], object], ready: Path) -> None:
    """Fork a process that does the work, and kill it once `ready` exists."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            work()
        os._exit(1)
    while not ready.exists():
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def hang(path: Path, ready: Path) -> None:
    """Write half of a file and wait to be killed."""
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        ready.touch()
        time.sleep(60)


def test_an_error_leaves_the_old_file_and_no_remains(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_appears_when_it_is_complete(tmp_path):
    target, plain = tmp_path / "new" / "a.txt", tmp_path / "plain"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".txt"
        assert not target.exists()
    plain.touch()
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    with pytest.raises(FileError), atomic_path(plain / "a.txt"):
        pass


def test_files_of_killed_writers_are_removed(tmp_path):
    folder, ready = tmp_path / "data", tmp_path / "ready"
    target = folder / "a-7.txt"
    folder.mkdir()
    target.write_text("old")
    killed(lambda: hang(target, ready), ready)
    assert target.read_text() == "old"
    (left,) = abandoned(target)
    assert left.read_text() == "half"
    write_bytes(target, b"new")
    assert target.read_text() == "new"
    assert names(folder) == ["a-7.txt"]
    ready.unlink()
    killed(lambda: hang(target, ready), ready)
    remove_abandoned(folder, "other-*.txt")
    assert len(names(folder)) == 2
    remove_abandoned(folder, "a-*.txt")
    assert names(folder) == ["a-7.txt"]


def test_several_processes_can_write_one_file(tmp_path):
    target = tmp_path / "a_1.txt"
    with atomic_path(target) as first:
        first.write_text("first")
        assert abandoned(target) == []
        remove_abandoned(tmp_path, "a_*.txt")
        with atomic_path(target) as second:
            assert second != first
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    assert names(tmp_path) == ["a_1.txt"]


def replace_temporary(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.unlink()
        temporary.write_text("another")


def test_links_and_other_files_under_the_temporary_name_are_not_used(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / ".a.i2l-meshnet-0.txt").symlink_to(precious)
    os.link(precious, tmp_path / ".a.i2l-meshnet-1.txt")
    write_bytes(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert precious.read_text() == "keep"
    with pytest.raises(FileError):
        replace_temporary(tmp_path / "b.txt")
    assert not (tmp_path / "b.txt").exists()


def test_file_systems_without_locks_work(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "fcntl", None)
    monkeypatch.setattr(locks, "fcntl", None)
    write_bytes(tmp_path / "a.txt", b"new")
    with own_folder(tmp_path / "work"):
        pass
    assert names(tmp_path) == ["a.txt", "work"]


def test_a_folder_is_locked_until_its_process_ends(tmp_path):
    """A fork of that process does not keep the lock."""
    folder, ready = tmp_path / "folder", tmp_path / "ready"
    with own_folder(folder):
        with pytest.raises(TakenError), own_folder(folder):
            pass
        (folder / "kept").touch()

    def keep() -> None:
        with own_folder(folder):
            if not os.fork():
                ready.touch()
                time.sleep(5)
                os._exit(0)
            time.sleep(5)

    killed(keep, ready)
    with own_folder(folder):
        assert names(folder) == [LOCK, "kept"]
    assert names(folder) == ["kept"]


def test_a_work_folder_is_private_and_stays_until_it_is_removed(tmp_path: Path) -> None:
    precious, work = tmp_path / "precious", tmp_path / "new" / "work"
    (precious / "sub").mkdir(parents=True)
    (precious / "sub" / "a.txt").write_text("keep")
    with work_folder(work):
        (work / "deep").mkdir()
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    with work_folder(work):
        assert names(work) == [LOCK, "deep"]
        with pytest.raises(TakenError), work_folder(work):
            pass
        for folder in (work, work / "deep"):
            (folder / "link").symlink_to(precious)
        empty(work)
        assert names(work) == [LOCK]
        work.rename(tmp_path / "moved")
        work.symlink_to(precious)  # The link is not followed.
        with pytest.raises(FileError):
            empty(work)
        remove(work)
        remove(tmp_path / "moved")
    assert names(tmp_path) == ["new", "precious"]
    assert (precious / "sub" / "a.txt").read_text() == "keep"


def test_the_same_tensors_have_the_same_bytes(tmp_path):
    tensors, metadata = {"b": torch.arange(3), "a": torch.ones(2, 2)}, {name: name for name in "zyxwvutsrqp"}
    path = tmp_path / "a.safetensors"
    write_safetensors(path, save(tensors, metadata=metadata))
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        assert all(torch.equal(file.get_tensor(name), value) for name, value in tensors.items())
    starts = [path.read_bytes().index(f'"{name}":'.encode(), 8) for name in sorted(metadata)]
    assert starts == sorted(starts)


def test_an_image_is_written_in_the_format_of_its_suffix(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 200
    write_picture(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)
    with pytest.raises(FileError):
        write_picture(tmp_path / "a.gif", picture)
    assert names(tmp_path) == ["a.png"]


def test_only_regular_files_and_passed_pipes_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"
    require_regular(tmp_path / "link")
    end, start = os.pipe()
    os.close(start)
    with open_regular(Path(f"/dev/fd/{end}")) as file:
        assert file.read() == b""
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "missing", Path(f"/dev/fd/{end}")):
        with pytest.raises(OSError) as caught:  # noqa: PT011 (the class is the content)
            require_regular(path)
        assert caught.value.strerror
    os.close(end)
