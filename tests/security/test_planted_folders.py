"""A folder or link that somebody else put where a job keeps unfinished work is refused and left unchanged."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from i2l_meshnet import assets
from i2l_meshnet.data.convert.resumable import Part, convert_parts
from i2l_meshnet.errors import FileError
from i2l_meshnet.folders import own_folder
from i2l_meshnet.io import write_bytes
from i2l_meshnet.prediction.staging import is_finished, staged
from i2l_meshnet.video.unfinished import WorkFolder

LOCK = ".i2l-meshnet.lock"
NOBODY = 65534
Plant = Callable[[Path], object]


def link(path: Path) -> None:
    private = path.parents[1] / "private"
    (private / "sub").mkdir(parents=True)
    (private / "sub" / "diary.txt").write_text("mine")
    path.symlink_to(private)


def link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def own_notes(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def writable_by_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)
    (path / LOCK).touch()
    (path / "notes.txt").write_text("theirs")


def foreign(path: Path) -> None:
    """A folder of another user with a link to a file of this user."""
    if os.geteuid():
        pytest.skip("only root can make another user's folder")
    path.mkdir(mode=0o700)
    (path / LOCK).touch()
    (path.parents[1] / "profile").write_text("mine")
    (path / "photo.json").symlink_to(path.parents[1] / "profile")
    for entry in (*path.iterdir(), path):
        os.chown(entry, NOBODY, NOBODY, follow_symlinks=False)


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
        raise AssertionError("an asset was fetched into a planted folder")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("I2L_MESHNET_CACHE", str(folder))
        patch.setattr(assets, "_download", download)
        assets.ensure("makehuman")


JOBS = {
    "results": (save_results, ".photo.unfinished"),
    "clip": (follow_clip, "clip.unfinished"),
    "conversion": (convert, ".train-parts"),
    "asset": (fetch, f".{assets._folder(assets.ASSETS['makehuman']).name}.fetching"),
}


def everything(folder: Path) -> dict[str, object]:
    """Content of all files and targets of all links below a folder."""
    return {
        str(path): path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("plant", [link, link_to_nowhere, own_notes, writable_by_others, foreign])
@pytest.mark.parametrize("name", JOBS)
def test_a_planted_folder_is_refused(name: str, plant: Plant, tmp_path: Path) -> None:
    job, folder = JOBS[name]
    (tmp_path / "out").mkdir()
    plant(tmp_path / "out" / folder)
    before = everything(tmp_path)
    with pytest.raises(FileError) as caught:
        job(tmp_path / "out")
    assert str(tmp_path / "out" / folder) in str(caught.value)
    assert everything(tmp_path) == before


def test_finished_results_do_not_remove_a_planted_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    link(tmp_path / "out" / ".photo.unfinished")
    (tmp_path / "out" / "photo.json").write_text("{}")
    before = everything(tmp_path)
    assert is_finished(tmp_path / "out" / "photo")
    assert everything(tmp_path) == before


def test_links_under_the_names_of_locks_and_temporary_files_are_not_followed(tmp_path: Path) -> None:
    for name in (LOCK, ".lock"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError), own_folder(tmp_path):
        pass
    (tmp_path / ".log.0.txt").write_text("mine")
    write_bytes(tmp_path / "log.txt", b"new")
    assert (tmp_path / ".log.0.txt").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
