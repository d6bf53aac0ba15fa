"""Full and read-only disks, files that vanish, clocks that jump: one clear line, and what was there stays whole."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kill_jobs
import pyarrow.parquet as pq
import pytest
import torch
from kill_jobs import JOBS, Job, ended, files, fresh, start

from i2l_meshnet.bodies import load_body
from i2l_meshnet.data.sources import open_source
from i2l_meshnet.errors import FileError
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.assembly import published_config
from i2l_meshnet.prediction.images import PictureFile
from i2l_meshnet.training.train import _newest_lixel_snapshot
from i2l_meshnet.video import predict as predict_clips

QUICK = ("cache", "synthesis", "rig")
SHARES = dict.fromkeys(JOBS, 0.4) | {"training": 0.6}
"""Of what a job writes, what finds room."""


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    # Where annotations' caches go if there is no room beside the data: nowhere.
    (tmp_path / "file").touch()
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "file" / "cache"))
    with kill_jobs.stand_ins():
        yield


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of its own, of that size, meanwhile; skips the test where that is not allowed."""
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
    """Kilobytes that the files of a folder take on a small disk, where folders take none."""
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in JOBS])
def test_a_full_and_then_a_read_only_disk(tmp_path: Path, name: str) -> None:
    job, template, whole = JOBS[name], tmp_path / "template", tmp_path / "disk"
    job.prepare(template)
    with small_disk(whole, 10**6):
        fresh(template, whole / "run")
        before = used(whole)
        assert run_logged(job, whole / "run", tmp_path) == 0
        after, expected = used(whole), job.result(whole / "run")
        complete = files(whole / "run")
    whole.rmdir()
    with small_disk(whole, int(before + SHARES[name] * (after - before))):
        place = whole / "run"
        fresh(template, place)
        given = files(place)
        code = run_logged(job, place, tmp_path)
        lines = (tmp_path / "log").read_text().splitlines()
        # Annotations are read without a cache where there is no room for one; a table tells of every picture.
        assert code == (0 if name == "cache" else 1), lines
        assert not any("Traceback" in line for line in lines)
        told = [line for line in lines if "No space left" in line or "disk may be full" in line]
        assert name == "cache" or told, lines
        for path, data in files(place).items():
            fine = path in given or not is_result(path) or data in (b"folder", complete.get(path))
            assert fine or (path not in complete and is_whole(place / path)), f"{path} is not whole"
        remount(whole, "ro")
        assert run_logged(job, place, tmp_path) == (0 if name == "cache" else 1)
        lines = (tmp_path / "log").read_text().splitlines()
        assert not any("Traceback" in line for line in lines)
        assert name == "cache" or any("ead-only file system" in line for line in lines), lines
        remount(whole, "rw,size=1000000k")
        assert run_logged(job, place, tmp_path) == 0, (tmp_path / "log").read_text()
        assert job.result(place) == expected


def is_result(path: str) -> bool:
    """Whether a file is one that is looked at: no log, and nothing hidden or in a folder of unfinished work."""
    parts = Path(path).parts
    return not any(part.startswith(".") or part.endswith(".unfinished") for part in parts) and parts[-1] != "lixel.csv"


def is_whole(path: Path) -> bool:
    """Of what an undisturbed run does not leave: a training's older states, a table's parts of other names."""
    if path.suffix == ".pt":
        return bool(torch.load(path, weights_only=True))
    return path.suffix == ".parquet" and pq.read_table(path).num_rows > 0


def run_logged(job: Job, place: Path, log: Path) -> int:
    """Runs a job whose output goes to `<log>/log`, which is not on the small disk."""
    (log / "log").unlink(missing_ok=True)
    return ended(start(job, place, log / "log"))


def test_a_picture_that_vanishes_or_is_damaged_costs_no_other_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_source_that_vanishes_is_told_in_one_line(tmp_path: Path) -> None:
    JOBS["cache"].prepare(tmp_path / "run")
    source = next((tmp_path / "run" / "data" / "PW3D").rglob("*test*.json"))
    source.unlink()
    with pytest.raises(FileError, match=rf"{source.name} is missing"):
        open_source("PW3D", tmp_path / "run" / "data", "test")


@pytest.mark.parametrize("years", [-20, 20], ids=["past", "future"])
def test_annotations_are_read_again_when_their_files_time_changes_either_way(tmp_path: Path, years: int) -> None:
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


def test_the_newest_snapshot_is_told_by_its_epoch_not_by_a_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"snapshot_2": ("lixel", 2), "snapshot_10": ("lixel", 10), "snapshot_11": ("param", 11)}
    for age, name in enumerate(stages):
        path = tmp_path / f"{name}.safetensors"
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))

    def read(path: Path) -> checkpoint.Metadata:
        stage, epoch = stages[path.stem]
        return checkpoint.Metadata(published_config(load_body("toy")), "", "", {"stage": stage, "epoch": epoch})

    monkeypatch.setattr(checkpoint, "read_metadata", read)
    assert _newest_lixel_snapshot(tmp_path).name == "snapshot_10.safetensors"
