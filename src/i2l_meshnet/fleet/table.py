"""A table of rows as a folder of Parquet parts, each of which appears whole or not at all."""

import io
import secrets
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from i2l_meshnet.errors import FileError
from i2l_meshnet.files import atomic_path

PART_ROWS = 2_000
"""Rows of a part, about 5 MB; what a run that is killed has to do again."""


class TableFolder:
    """Writes tables into a folder (a path, or an address for fsspec), `PART_ROWS` rows at a time.

    Used as a context: on leaving, by an error too, the rows that wait are written. Several runs may write into one
    folder at once. Every method raises FileError where the folder cannot be read or written.
    """

    def __init__(self, address: str, part_rows: int = PART_ROWS) -> None:
        """Opens the folder, which need not exist."""
        self.address, self._part_rows = address, part_rows
        self._waiting: list[pa.Table] = []
        try:
            self._system, self._root = url_to_fs(address)
            self._system.makedirs(self._root, exist_ok=True)
            self._number = len(self._parts())
        except Exception as error:  # every file system's library has errors of its own
            raise FileError(f"cannot use {address} as the table's folder: {error}") from error

    def _parts(self) -> list[str]:
        return sorted(str(path) for path in self._system.glob(f"{self._root}/people-*.parquet"))

    def clear(self) -> None:
        """Removes the parts of earlier runs."""
        for part in self._parts():
            self._system.rm_file(part)

    def pictures(self) -> set[str]:
        """The pictures that have rows already."""
        found: set[str] = set()
        for part in self._parts():
            try:
                with self._system.open(part, "rb") as file:
                    found.update(pq.read_table(file, columns=["picture"])["picture"].to_pylist())
            except (OSError, KeyError, pa.ArrowException) as error:
                raise FileError(f"cannot read {part}: it is no part of a table of people; remove it") from error
        return found

    def append(self, rows: pa.Table) -> None:
        """Adds rows, and writes a part when there are enough."""
        self._waiting.append(rows)
        if sum(table.num_rows for table in self._waiting) >= self._part_rows:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        # The random end keeps apart the parts of runs that write at the same time.
        path = f"{self._root}/people-{self._number:06}-{secrets.token_hex(4)}.parquet"
        rows = pa.concat_tables(self._waiting)
        if isinstance(self._system, LocalFileSystem):
            with atomic_path(Path(path)) as temporary:
                pq.write_table(rows, temporary)
        else:
            content = io.BytesIO()
            pq.write_table(rows, content)
            try:
                self._system.pipe_file(path, content.getvalue())
            except Exception as error:  # every file system's library has errors of its own
                raise FileError(f"cannot write {path}: {error}") from error
        self._number += 1
        self._waiting.clear()

    def __enter__(self) -> "TableFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._write()
