"""Every reader against damaged and hostile files: 30 for each reader, 10,000 with `make fuzz`."""

import os
import signal
import sys
from pathlib import Path

import pytest
from fuzzing import FOLDER, SECRET, Reader, Tally, fuzz, probe
from readers import READERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
CASES = int(os.environ.get("FUZZ_CASES", "10000"))
each_reader = pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])


@each_reader
def test_hostile_files_give_a_result_or_one_line(reader: Reader, tmp_path: Path) -> None:
    tally = fuzz(reader, tmp_path, 30)
    assert tally.outcomes.total() >= 30
    # A damaged cache is replaced.
    assert tally.outcomes["FileError"] > 3 or reader.name == "annotation cache"


@pytest.mark.slow
@each_reader
def test_many_hostile_files_give_a_result_or_one_line(reader: Reader, tmp_path: Path) -> None:
    print(f"\n{reader.name}: {fuzz(reader, tmp_path, CASES)}", flush=True)


@each_reader
def test_places_that_are_no_files_are_told_in_one_line(reader: Reader, tmp_path: Path) -> None:
    """Empty and endless files, folders, links to nowhere, to themselves and to another file."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    other = tmp_path / "other"
    other.write_text(SECRET * 100)
    calls = reader.make(folder)
    for name in sorted(calls)[:4]:
        calls[name]()
        path, whole = folder / name, (folder / name).read_bytes()

        def endless(path: Path = path) -> None:
            with path.open("wb") as file:
                file.truncate(2**40)

        places = {
            "empty": path.touch,
            "endless": endless,
            "folder": path.mkdir,
            "link to nowhere": lambda path=path: path.symlink_to("nowhere"),
            "link to itself": lambda path=path: path.symlink_to(path.name),
            "link to another file": lambda path=path: path.symlink_to(other),
        }
        for what, make in places.items():
            path.unlink()
            make()
            outcome = probe(calls[name], folder, Tally())
            # An empty list of clips is one, a broken cache is made anew, what is no file is no part of a table.
            may_be = ("SURREAL's clips", "annotation cache", "clips", "Parquet tables")
            assert outcome != "result" or reader.name in may_be, what
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            path.write_bytes(whole)


@each_reader
def test_pipes_and_devices_are_refused(reader: Reader, tmp_path: Path) -> None:
    """A pipe without a writer would block, and an endless device would fill the memory."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    calls = reader.make(folder)

    def stop(*_: object) -> None:
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for name in sorted(calls):
            path, whole = folder / name, (folder / name).read_bytes()
            for make in (lambda path=path: os.mkfifo(path), lambda path=path: path.symlink_to("/dev/zero")):
                path.unlink()
                make()
                signal.alarm(30)
                outcome = probe(calls[name], folder, Tally())
                signal.alarm(0)
                # A cache that cannot be read is made again; what is not a file is no part of a table, and not a clip
                # unless its ending says so.
                may_be = name == "clip" or reader.name in ("annotation cache", "Parquet tables")
                assert outcome == "FileError" or may_be, name
            path.unlink()
            path.write_bytes(whole)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
