"""Full disks, missing files, wrong clocks, two processes at once: one clear line, and complete files stay complete."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kill_jobs
import pytest
from kill_jobs import JOBS, Job, ended, files, fresh, start

from i2l_meshnet import assets
from i2l_meshnet.data.sources import open_source
from i2l_meshnet.prediction.images import PictureFile
from i2l_meshnet.video import predict as predict_clips

ENSURE, FIND = assets.ensure, assets.find
"""The real functions, which `kill_jobs.stand_ins` replaces."""

EXCLUSIVE = ("conversion", "video", "training")
"""Jobs of which only one at a time can work in a folder. The other one says so."""


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    # No cache folder of the user: caches can only be written beside the data.
    (tmp_path / "file").touch()
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "file" / "cache"))
    with kill_jobs.stand_ins():
        yield


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Mount a file system of that size. Skips the test where that is not allowed."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)


def used(folder: Path) -> int:
    """Kilobytes that the files of a folder use on a small disk."""
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())


def each_job(*fast: str) -> pytest.MarkDecorator:
    """Parametrize by job. Only the `fast` ones are in the default run."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in JOBS]
    )


@each_job("synthesis")
def test_a_full_and_then_a_read_only_disk(tmp_path: Path, name: str) -> None:
    job, template, disk = JOBS[name], tmp_path / "template", tmp_path / "disk"
    job.prepare(template)
    with small_disk(disk, 10**6):
        fresh(template, disk / "run")
        before = used(disk)
        assert run_logged(job, disk / "run", tmp_path)[0] == 0
        after, expected, complete = used(disk), job.result(disk / "run"), files(disk / "run")
    disk.rmdir()
    with small_disk(disk, int(before + (0.6 if name == "training" else 0.4) * (after - before))):
        place = disk / "run"
        fresh(template, place)
        given = files(place)
        # Annotations are read without a cache if there is no space for one.
        failure, messages = (0, ("",)) if name == "cache" else (1, ("No space left", "disk may be full"))
        code, log = run_logged(job, place, tmp_path)
        assert code == failure, log
        assert any(message in log for message in messages), log
        found = {path: data for path, data in files(place).items() if is_result(path) and path not in given}
        partial = [path for path, data in found.items() if path in complete and data not in (b"folder", complete[path])]
        assert partial == []
        remount(disk, "ro")
        code, log = run_logged(job, place, tmp_path)
        assert code == failure, log
        assert name == "cache" or "ead-only file system" in log
        remount(disk, "rw,size=1000000k")
        code, log = run_logged(job, place, tmp_path)
        assert code == 0, log
        assert job.result(place) == expected


def is_result(path: str) -> bool:
    """Whether a file is a result: no log, not hidden, not in a folder of unfinished work."""
    parts = Path(path).parts
    return not any(part.startswith(".") or part.endswith(".unfinished") for part in parts) and parts[-1] != "lixel.csv"


def run_logged(job: Job, place: Path, log: Path) -> tuple[int, str]:
    """Run a job. Returns its exit code and its output, which must have no traceback."""
    (log / "log").unlink(missing_ok=True)
    code = ended(start(job, place, log / "log"))
    text = (log / "log").read_text()
    assert "Traceback" not in text
    return code, text


@each_job("cache")
def test_two_processes_at_once_give_the_same_as_one(tmp_path: Path, name: str) -> None:
    job, template, place = JOBS[name], tmp_path / "template", tmp_path / "run"
    job.prepare(template)
    fresh(template, place)
    assert ended(start(job, place)) == 0
    expected = job.result(place)
    fresh(template, place)
    both = [start(job, place, tmp_path / f"log{number}") for number in (0, 1)]
    codes = [ended(pid) for pid in both]
    logs = [(tmp_path / f"log{number}").read_text() for number in (0, 1)]
    assert 0 in codes
    for code, log in zip(codes, logs, strict=True):
        assert "Traceback" not in log
        assert code == 0 or (name in EXCLUSIVE and ("another process" in log or "is there already" in log)), log
    found = job.result(place)
    if name == "table":  # Both processes may write the same row.
        found, expected = ((set(rows), others) for rows, others in (found, expected))  # type: ignore[misc]
    assert found == expected


def test_an_asset_that_several_processes_need_is_fetched_once(tmp_path: Path) -> None:
    def download(package: assets.Package, folder: Path) -> Path:
        with (tmp_path / "fetched").open("a") as file:
            file.write("x")
        time.sleep(0.3)
        (folder / "package").mkdir(parents=True)
        return folder

    fetch = Job("fetch", lambda folder: None, lambda folder: int(not ENSURE("makehuman").exists()))
    (tmp_path / "run").mkdir()
    with pytest.MonkeyPatch.context() as patch:  # Undone before `stand_ins`, which replaces `find` too.
        patch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))
        patch.setattr(assets, "_extract", lambda archive, content, prefixes: archive.rename(content))
        patch.setattr(assets, "_download", download)
        patch.setattr(assets, "find", FIND)
        assert [ended(pid) for pid in [start(fetch, tmp_path / "run") for _ in range(3)]] == [0, 0, 0]
    assert (tmp_path / "fetched").read_text() == "x"


def test_missing_and_damaged_pictures_do_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, place = JOBS["pictures"], tmp_path / "run"
    job.prepare(place)
    (place / "tmp").mkdir()
    (place / "photos" / "photo_0.png").write_bytes(b"no picture")
    find = predict_clips.find_pictures

    def find_and_lose(*arguments: Any) -> list[PictureFile]:
        found = find(*arguments)
        (place / "photos" / "photo_2.png").unlink()
        return found

    monkeypatch.setattr(predict_clips, "find_pictures", find_and_lose)
    assert ended(start(job, place)) == 1
    lines = place.with_suffix(".log").read_text().splitlines()
    assert sum(line.startswith("failed: ") for line in lines) == 2
    assert "2 pictures failed" in lines[-1]
    assert (place / "out" / "more" / "photo_1.json").exists()


@pytest.mark.parametrize("years", [-20, 20], ids=["past", "future"])
def test_a_changed_time_of_the_annotations_replaces_the_cache(tmp_path: Path, years: int) -> None:
    JOBS["cache"].prepare(tmp_path / "run")
    root = tmp_path / "run" / "data"

    def depth() -> float:
        return float(open_source("PW3D", root, "test").table.arrays["root_depth"][0])

    known = depth()
    for path in (root / "PW3D").rglob("*.json"):
        when = path.stat().st_mtime + years * 3.15e7
        os.utime(path, (when, when))
    cache = next((root / "PW3D").rglob("*.safetensors"))
    before = cache.stat().st_ino
    assert depth() == known
    assert cache.stat().st_ino != before
