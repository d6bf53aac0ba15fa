import hashlib
import re
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
    """A registry with one package, whose client copies a local file. Returns a function that registers an asset."""
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))

    def add(archive: Path, registry: str = "pypi", sha256: str | None = None, **changes) -> None:
        digest = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
        package = assets.Package(registry, "thing", "1", digest, 1)
        asset = assets.Asset("thing", "a test", "MIT", (package,), ("kept/",), **changes)
        script = f"import shutil; shutil.copy({str(archive)!r}, {archive.name!r})"
        monkeypatch.setitem(assets.ASSETS, "thing", asset)
        monkeypatch.setitem(assets._CLIENTS, registry, lambda package, folder: [sys.executable, "-c", script])

    return add


def test_a_folder_asset_is_fetched_once_and_has_only_the_wanted_members(tmp_path, registry):
    archive = _wheel(tmp_path / "thing.whl", {"kept/a.txt": "a", "kept/deep/b.txt": "b", "other/c.txt": "c"})
    registry(archive)
    assert assets.find("thing") is None
    folder = assets.ensure("thing")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.txt")) == ["kept/a.txt", "kept/deep/b.txt"]
    archive.unlink()
    assert assets.ensure("thing") == assets.find("thing") == folder
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "no scratch folder may remain"


def test_a_file_asset_is_the_file_and_is_refused_after_a_change(tmp_path, registry):
    digest = hashlib.sha256(b"a").hexdigest()
    registry(_wheel(tmp_path / "thing.whl", {"kept/a.txt": "a"}), file="kept/a.txt", file_sha256=digest)
    path = assets.ensure("thing")
    assert path.read_text() == "a"
    path.write_text("b")
    for get in (assets.find, assets.ensure):
        with pytest.raises(FileError, match=re.escape(str(path))):
            get("thing")


def test_npm_archives_are_unpacked(tmp_path, registry):
    source = tmp_path / "a.txt"
    source.write_text("a")
    with tarfile.open(tmp_path / "thing.tgz", "w:gz") as file:
        file.add(source, "kept/a.txt")
    registry(tmp_path / "thing.tgz", registry="npm")
    assert (assets.ensure("thing") / "kept/a.txt").read_text() == "a"


@pytest.mark.parametrize(
    ("member", "changes"),
    [
        ("kept/a.txt", {"sha256": "0" * 64}),
        ("kept/a.txt", {"file": "kept/a.txt", "file_sha256": "0" * 64}),
        ("kept/../../evil.txt", {}),
    ],
    ids=["another package", "another file", "a member outside"],
)
def test_an_unexpected_package_is_refused_and_nothing_is_kept(tmp_path, registry, member, changes):
    registry(_wheel(tmp_path / "thing.whl", {member: "a"}), **changes)
    with pytest.raises(FileError):
        assets.ensure("thing")
    assert assets.find("thing") is None
    assert list(assets.cache_folder().iterdir()) == []
    assert not list(tmp_path.rglob("evil.txt"))


FAILING = [sys.executable, "-c", "import sys; print('first line', flush=True); sys.exit('no route to host')"]


@pytest.mark.parametrize(("client", "named"), [(FAILING, "no route to host"), (["no-such-client"], "no-such-client")])
def test_a_client_that_fails_or_is_missing_is_named(tmp_path, registry, monkeypatch, client, named):
    registry(_wheel(tmp_path / "thing.whl", {"kept/a.txt": "a"}))
    monkeypatch.setitem(assets._CLIENTS, "pypi", lambda package, folder: client)
    with pytest.raises(FileError, match=named) as caught:
        assets.ensure("thing")
    assert "\n" not in str(caught.value)


def test_unknown_assets_are_refused():
    with pytest.raises(InputError, match="detectr"):
        assets.find("detectr")
