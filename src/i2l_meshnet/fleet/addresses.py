"""Find and read images by path or by address (s3://, gs://, https://, …), with fsspec."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from i2l_meshnet.errors import FileError, UserError
from i2l_meshnet.io import first_line
from i2l_meshnet.prediction.images import SUFFIXES, Photo, find_pictures, read_photo


@contextlib.contextmanager
def remote_errors(failure: str) -> Iterator[None]:
    """Raise FileError ("`failure`: reason") for any error of a file system; UserErrors pass unchanged."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # The library of each file system has its own errors.
        raise FileError(f"{failure}: {first_line(error)}") from error


def find_addresses(inputs: Sequence[str], recursive: bool = False) -> list[str]:
    """The images at paths and addresses of files, folders and patterns, without duplicates.

    An address with the suffix of an image is not checked. Raises FileError for a folder that cannot be listed or has no
    images.
    """
    found: dict[str, None] = {}
    for text in inputs:
        if "://" in text:
            found |= dict.fromkeys(_remote(text, recursive))
        else:
            found |= dict.fromkeys(str(picture.path) for picture in find_pictures([text], recursive))
    return list(found)


def read_address(address: str, max_pixels: int) -> Photo:
    """Read a photo from a path or an address. Raise FileError."""
    if "://" not in address:
        return read_photo(Path(address), max_pixels)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"picture{_suffix(address)}"
        with remote_errors(f"cannot fetch {address}"):
            system, path = url_to_fs(address)
            if isinstance(system, LocalFileSystem):
                return read_photo(Path(path), max_pixels)
            system.get_file(path, str(copy))
        try:
            return read_photo(copy, max_pixels)
        except FileError as error:
            raise FileError(str(error).replace(str(copy), address)) from error


def _remote(text: str, recursive: bool) -> list[str]:
    pattern = "*" in text or "[" in text
    if not pattern and _suffix(text) in SUFFIXES:
        return [text]
    with remote_errors(f"cannot look for pictures in {text}"):
        system, path = url_to_fs(text)
        if isinstance(system, LocalFileSystem):
            return [str(picture.path) for picture in find_pictures([path], recursive)]
        names = system.glob(path) if pattern else system.find(path, maxdepth=None if recursive else 1)
        found = [system.unstrip_protocol(str(name)) for name in names]
    pictures = sorted(address for address in found if _suffix(address) in SUFFIXES)
    if not pictures:
        hint = "" if recursive or pattern else "; its subfolders were not searched"
        raise FileError(f"no pictures in {text}{hint}")
    return pictures


def _suffix(address: str) -> str:
    return PurePosixPath(urlsplit(address).path).suffix.lower()
