import hashlib
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from i2l_meshnet import assets
from i2l_meshnet.errors import FileError, InputError


def _wheel(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of one package, `thing`, whose client copies a local file. Returns what registers an asset in it."""
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))

    def add(archive: Path, registry: str = "pypi", sha256: str | None = None, **changes) -> None:
        digest = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
        package = assets.Package(registry, "thing", "1", digest, 1)
        asset = assets.Asset("thing", "a test", "MIT", (package,), ("kept/",), **changes)
        script = f"import shutil; shutil.copy({str(archive)!r}, {archive.name!r})"
        monkeypatch.setitem(assets.ASSETS, "thing", asset)
        monkeypatch.setitem(assets._CLIENTS, registry, lambda package, folder: [sys.executable, "-c", script])

    return add


def test_a_folder_asset_is_fetched_once_and_holds_only_the_wanted_members(tmp_path, registry):
    archive = _wheel(tmp_path / "thing.whl", {"kept/a.txt": "a", "kept/deep/b.txt": "b", "other/c.txt": "c"})
    registry(archive)
    assert assets.find("thing") is None
    folder = assets.ensure("thing")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.txt")) == ["kept/a.txt", "kept/deep/b.txt"]
    archive.unlink()
    assert assets.ensure("thing") == assets.find("thing") == folder
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "no scratch folder may stay behind"


def test_a_file_asset_is_the_file_itself(tmp_path, registry):
    registry(
        _wheel(tmp_path / "thing.whl", {"kept/a.txt": "a"}),
        file="kept/a.txt",
        file_sha256=hashlib.sha256(b"a").hexdigest(),
    )
    assert assets.ensure("thing").read_text() == "a"


def test_npm_archives_are_unpacked(tmp_path, registry):
    source = tmp_path / "a.txt"
    source.write_text("a")
    with tarfile.open(tmp_path / "thing.tgz", "w:gz") as file:
        file.add(source, "kept/a.txt")
    registry(tmp_path / "thing.tgz", registry="npm")
    assert (assets.ensure("thing") / "kept/a.txt").read_text() == "a"


def test_another_file_than_the_recorded_one_is_refused_and_nothing_is_kept(tmp_path, registry):
    registry(_wheel(tmp_path / "thing.whl", {"kept/a.txt": "a"}), sha256="0" * 64)
    with pytest.raises(FileError, match=r"has SHA-256 .* not the recorded 0000"):
        assets.ensure("thing")
    assert assets.find("thing") is None
    assert list(assets.cache_folder().iterdir()) == []


def test_a_wrong_member_is_refused(tmp_path, registry):
    registry(_wheel(tmp_path / "thing.whl", {"kept/a.txt": "b"}), file="kept/a.txt", file_sha256="0" * 64)
    with pytest.raises(FileError, match="is not the file that was recorded"):
        assets.ensure("thing")


def test_members_that_leave_the_folder_are_refused(tmp_path, registry):
    registry(_wheel(tmp_path / "thing.whl", {"kept/../../evil.txt": "a"}))
    with pytest.raises(FileError, match="leaves its folder"):
        assets.ensure("thing")
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_client_that_fails_is_told_in_one_line(tmp_path, registry, monkeypatch):
    registry(_wheel(tmp_path / "thing.whl", {"kept/a.txt": "a"}))
    failing = [sys.executable, "-c", "import sys; print('first line', flush=True); sys.exit('no route to host')"]
    monkeypatch.setitem(assets._CLIENTS, "pypi", lambda package, folder: failing)
    with pytest.raises(FileError, match="could not fetch pypi package thing 1: no route to host") as caught:
        assets.ensure("thing")
    assert "\n" not in str(caught.value)


def test_a_missing_client_is_named(tmp_path, registry, monkeypatch):
    registry(_wheel(tmp_path / "thing.whl", {"kept/a.txt": "a"}))
    monkeypatch.setitem(assets._CLIENTS, "pypi", lambda package, folder: ["no-such-client-here"])
    with pytest.raises(FileError, match="'no-such-client-here', which is not installed"):
        assets.ensure("thing")


def test_unknown_assets_are_told_with_the_known_ones():
    with pytest.raises(InputError, match=r"no asset 'detectr'; known: .*detector"):
        assets.find("detectr")


def test_a_file_that_has_changed_in_the_cache_is_refused(tmp_path, registry):
    registry(
        _wheel(tmp_path / "thing.whl", {"kept/a.txt": "a"}),
        file="kept/a.txt",
        file_sha256=hashlib.sha256(b"a").hexdigest(),
    )
    path = assets.ensure("thing")
    path.write_text("b")
    for get in (assets.find, assets.ensure):
        with pytest.raises(FileError) as caught:
            get("thing")
        assert str(path) in str(caught.value)
