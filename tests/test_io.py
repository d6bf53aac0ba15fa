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
    """Forks a process that does the work, and kills it once `ready` is there."""
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
    """Writes half of a file and waits to be killed."""
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        ready.touch()
        time.sleep(60)


def test_the_file_appears_whole_with_ordinary_permissions(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".txt"
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


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


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(FileError, match=r"cannot write .*file.a\.txt.*choose a folder"),
        atomic_path(tmp_path / "file" / "a.txt"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_in_one_line(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(FileError, match="Permission denied"), atomic_path(tmp_path / "a.txt"):
        pass


def test_what_a_killed_writer_left_is_known_and_removed(tmp_path):
    target, ready = tmp_path / "data" / "a.txt", tmp_path / "ready"
    target.parent.mkdir()
    target.write_text("old")
    killed(lambda: hang(target, ready), ready)
    assert target.read_text() == "old"
    (left,) = abandoned(target)
    assert left.read_text() == "half"
    write_bytes(target, b"new")
    assert target.read_text() == "new"
    assert names(target.parent) == ["a.txt"]


def test_a_living_writers_file_is_left_alone(tmp_path):
    target = tmp_path / "a_1.txt"
    with atomic_path(target) as first:
        first.write_text("first")
        assert abandoned(target) == []
        remove_abandoned(tmp_path, "a_*.txt")
        with atomic_path(target) as second:
            assert second != first
            second.write_text("second")
        assert target.read_text() == "second"
        assert first.read_text() == "first"
    assert target.read_text() == "first"
    assert names(tmp_path) == ["a_1.txt"]


def test_remains_of_files_that_are_not_written_again_are_removed_by_pattern(tmp_path):
    data, ready = tmp_path / "data", tmp_path / "ready"
    data.mkdir()
    killed(lambda: hang(data / "part-7.bin", ready), ready)
    (data / "part-1.bin").touch()
    remove_abandoned(data, "other-*.bin")
    assert len(names(data)) == 2
    remove_abandoned(data, "part-*.bin")
    assert names(data) == ["part-1.bin"]


def test_a_link_that_somebody_laid_under_the_temporary_name_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / ".a.i2l-meshnet-0.txt").symlink_to(precious)
    os.link(precious, tmp_path / ".a.i2l-meshnet-1.txt")
    write_bytes(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert precious.read_text() == "keep"


def test_without_locks_files_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "fcntl", None)
    monkeypatch.setattr(locks, "fcntl", None)
    write_bytes(tmp_path / "a.txt", b"new")
    with own_folder(tmp_path / "work"):
        pass
    assert names(tmp_path) == ["a.txt", "work"]


def test_a_folder_is_one_processs_own_until_that_ends(tmp_path):
    work, ready = tmp_path / "work", tmp_path / "ready"

    def sit():
        with own_folder(work):
            ready.touch()
            time.sleep(60)

    with own_folder(work):
        with pytest.raises(TakenError, match="another process is at work in"), own_folder(work):
            pass
        (work / "kept").touch()
    killed(sit, ready)
    with own_folder(work):
        assert (work / "kept").exists()
    assert names(work) == ["kept"]


def test_the_same_tensors_have_the_same_bytes(tmp_path):
    tensors, metadata = {"b": torch.arange(3), "a": torch.ones(2, 2)}, {name: name for name in "zyxwvutsrqp"}
    path = tmp_path / "a.safetensors"
    write_safetensors(path, save(tensors, metadata=metadata))
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        assert all(torch.equal(file.get_tensor(name), value) for name, value in tensors.items())
    header = path.read_bytes()[8:]
    assert [header.index(f'"{name}":'.encode()) for name in sorted(metadata)] == sorted(
        header.index(f'"{name}":'.encode()) for name in metadata
    )
    write_safetensors(path, save(tensors))
    with safe_open(path, "pt") as file:
        assert torch.equal(file.get_tensor("b"), tensors["b"])


def test_pictures_are_written_whole(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 200
    write_picture(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)
    with pytest.raises(FileError, match=r"name a \.jpg or \.png"):
        write_picture(tmp_path / "a.gif", picture)
    assert names(tmp_path) == ["a.png"]


def test_a_fork_does_not_keep_its_parents_folder(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def keep() -> None:
        with own_folder(tmp_path / "kept"):
            if not os.fork():
                ready.touch()
                time.sleep(5)
                os._exit(0)
            time.sleep(5)

    killed(keep, ready)
    with own_folder(tmp_path / "kept"):
        assert names(tmp_path / "kept") == [LOCK]
    assert names(tmp_path / "kept") == []


def test_a_work_folder_is_private_and_kept_for_the_next_run(tmp_path: Path) -> None:
    place = tmp_path / "new" / "work"
    with work_folder(place):
        (place / "kept").touch()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    with work_folder(place):
        assert names(place) == [LOCK, "kept"]
        with pytest.raises(TakenError), work_folder(place):
            pass


def test_links_in_a_work_folder_are_removed_and_not_followed(tmp_path: Path) -> None:
    precious, place = tmp_path / "precious", tmp_path / "work"
    (precious / "sub").mkdir(parents=True)
    (precious / "sub" / "a.txt").write_text("keep")
    with work_folder(place):
        (place / "deep").mkdir()
        for folder in (place, place / "deep"):
            (folder / "link").symlink_to(precious)
        empty(place)
        assert names(place) == [LOCK]
        remove(place)
    assert names(tmp_path) == ["precious"]
    assert (precious / "sub" / "a.txt").read_text() == "keep"


def test_a_work_folder_that_was_swapped_for_a_link_is_not_emptied(tmp_path: Path) -> None:
    precious, place = tmp_path / "precious", tmp_path / "work"
    precious.mkdir()
    (precious / "a.txt").write_text("keep")
    with work_folder(place):
        place.rename(tmp_path / "moved")
        place.symlink_to(precious)
        with pytest.raises(FileError):
            empty(place)
        remove(place)
    assert names(precious) == ["a.txt"]


def test_an_empty_work_folder_of_a_killed_process_is_used(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir(mode=0o700)
    with work_folder(tmp_path / "work"):
        assert names(tmp_path / "work") == [LOCK]


def test_a_temporary_file_that_was_swapped_is_refused(tmp_path: Path) -> None:
    def swap() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.unlink()
            temporary.write_text("another")

    with pytest.raises(FileError):
        swap()
    assert names(tmp_path) == []


def test_only_regular_files_and_passed_pipes_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file", tmp_path / "link"):
        with open_regular(path) as file:
            assert file.read() == b"text"
        require_regular(path)
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        for check in (open_regular, require_regular):
            with pytest.raises(OSError) as caught:  # noqa: PT011 (the class is the content)
                check(path)
            assert caught.value.strerror
    end, start = os.pipe()
    os.write(start, b"passed")
    os.close(start)
    try:
        with pytest.raises(OSError):  # noqa: PT011
            require_regular(Path(f"/dev/fd/{end}"))
        with open_regular(Path(f"/dev/fd/{end}")) as file:
            assert file.read() == b"passed"
    finally:
        os.close(end)
