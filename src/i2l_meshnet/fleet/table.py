"""A table as a folder of Parquet parts. Each part is written completely or not at all."""

import io
import secrets
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from i2l_meshnet.errors import FileError
from i2l_meshnet.fleet.addresses import remote_errors
from i2l_meshnet.io import atomic_path, open_regular, remove_abandoned

MAX_ROWS = 10_000_000
"""Maximum number of rows in a part that is read."""
PART_ROWS = 2_000
"""Rows in a part, about 5 MB. A run that is killed loses at most these."""


class TableFolder:
    """Writes tables to a folder (a path, or an address for fsspec), `PART_ROWS` rows at a time.

    Leaving the context writes the remaining rows, after an error too. Several runs may write to a folder at the same
    time. Every method raises FileError if the folder cannot be read or written.
    """

    def __init__(self, address: str, part_rows: int = PART_ROWS) -> None:
        """Open or create the folder."""
        self.address, self._part_rows = address, part_rows
        self._waiting: list[pa.Table] = []
        with remote_errors(f"cannot use {address} as the table's folder"):
            self._system, self._root = url_to_fs(address)
            self._system.makedirs(self._root, exist_ok=True)
            if isinstance(self._system, LocalFileSystem):
                remove_abandoned(Path(self._root), "people-*.parquet")
            self._number = len(self._parts())

    def _parts(self) -> list[str]:
        found = (str(path) for path in self._system.find(self._root, maxdepth=1))
        return sorted(path for path in found if PurePosixPath(path).match("people-*.parquet"))

    def _open(self, part: str) -> Any:
        return open_regular(Path(part)) if isinstance(self._system, LocalFileSystem) else self._system.open(part)

    def clear(self) -> None:
        """Remove all parts."""
        with remote_errors(f"cannot empty the table's folder {self.address}"):
            for part in self._parts():
                self._system.rm_file(part)

    def pictures(self) -> set[str]:
        """The images that have rows."""
        found: set[str] = set()
        for part in self._parts():
            with remote_errors(f"cannot read {part}, which should be a part of the table"), self._open(part) as file:
                rows = pq.ParquetFile(file, read_dictionary=["picture"])
                if rows.metadata.num_rows > MAX_ROWS:
                    raise FileError(f"{part} has {rows.metadata.num_rows} rows, more than a part of a table")
                # A dictionary keeps a name that is repeated a million times in memory once.
                found.update(rows.read(["picture"])["picture"].unique().to_pylist())
        return found

    def columns(self) -> list[str]:
        """Names of the columns; empty if there are no rows."""
        for part in self._parts():
            with remote_errors(f"cannot read {part}, which should be a part of the table"), self._open(part) as file:
                return pq.read_schema(file).names
        return []

    def append(self, rows: pa.Table) -> None:
        """Add rows. Write a part if there are enough rows."""
        self._waiting.append(rows)
        if sum(table.num_rows for table in self._waiting) >= self._part_rows:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        # The random suffix separates runs that write at the same time.
        path = f"{self._root}/people-{self._number:06}-{secrets.token_hex(4)}.parquet"
        rows = pa.concat_tables(self._waiting)
        if isinstance(self._system, LocalFileSystem):
            with atomic_path(Path(path)) as temporary:
                pq.write_table(rows, temporary)
        else:
            content = io.BytesIO()
            pq.write_table(rows, content)
            with remote_errors(f"cannot write {path}"):
                self._system.pipe_file(path, content.getvalue())
        self._number += 1
        self._waiting.clear()

    def __enter__(self) -> "TableFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._write()
