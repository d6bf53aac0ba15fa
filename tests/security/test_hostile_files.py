"""Every reader, given damaged files and things that are not files.

The default run damages a few files per reader. `make fuzz` damages 10,000 per reader and tries every file's place.
"""

import os
import sys
from pathlib import Path

import pytest
from fuzzing import FOLDER, SECRET, Reader, fuzz, probe
from readers import READERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
CASES = int(os.environ.get("FUZZ_CASES", "10000"))
NOT_REFUSED = ("SURREAL's clips", "annotation cache", "clips", "Parquet tables")
"""Readers that skip some of these: an empty list is valid, a damaged cache is replaced, a non-file is not listed."""
each_reader = pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])


@each_reader
def test_damaged_files_and_other_things_are_refused(reader: Reader, tmp_path: Path) -> None:
    outcomes = fuzz(reader, tmp_path / FOLDER, 12)
    assert outcomes["FileError"] or reader.name == "annotation cache"
    try_other_things(reader, tmp_path / "other", 1)


@pytest.mark.slow
@each_reader
def test_many_damaged_files_are_refused(reader: Reader, tmp_path: Path) -> None:
    fuzz(reader, tmp_path / FOLDER, CASES)
    try_other_things(reader, tmp_path / "other", 100)


def try_other_things(reader: Reader, folder: Path, files: int) -> None:
    """Replace up to `files` of the reader's files by what is not a readable file of its kind."""
    folder.mkdir()
    other = folder.with_suffix(".txt")
    other.write_text(SECRET * 100)
    calls = reader.make(folder)

    def make_sparse(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(2**40)

    things = {
        "empty file": Path.touch,
        "file of 1 TB": make_sparse,
        "folder": Path.mkdir,
        "link to nowhere": lambda path: path.symlink_to("nowhere"),
        "link to itself": lambda path: path.symlink_to(path.name),
        "link to another file": lambda path: path.symlink_to(other),
        "named pipe": os.mkfifo,
        "endless device": lambda path: path.symlink_to("/dev/zero"),
    }
    for name in sorted(calls)[:files]:
        path, content = folder / name, (folder / name).read_bytes()
        calls[name]()
        for thing, make in things.items():
            path.unlink()
            make(path)
            outcome = probe(calls[name], folder)
            assert outcome != "result" or reader.name in NOT_REFUSED, f"{thing} for {name}"
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            path.write_bytes(content)
