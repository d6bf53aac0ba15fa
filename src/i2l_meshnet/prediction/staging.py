"""Writes the files of a result together, the record (.json) last: if the record exists, the result is complete."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from i2l_meshnet.errors import FileError, TakenError
from i2l_meshnet.folders import LOCK, empty, remove, work_folder
from i2l_meshnet.io import read_json, sync, write_bytes

_PLAN = ".plan"
"""Lists the files that are being moved or replaced, so that the next run can clean up after a kill."""


def record_of(base: Path) -> Path:
    """The record of the results whose file names start with the name of `base`."""
    return base.with_name(base.name + ".json")


def is_finished(base: Path) -> bool:
    """Whether the results exist. If so, remove the work folder that a killed process may have left."""
    if not record_of(base).exists():
        return False
    discard(_staging(base))
    return True


def discard(folder: Path) -> None:
    """Remove the work folder of finished results, unless another process uses it or another program made it."""
    if folder.exists():
        with contextlib.suppress(FileError), work_folder(folder):
            remove(folder)


@contextlib.contextmanager
def staged(base: Path, overwrite: bool) -> Iterator[Path]:
    """Yield the start of the file names in a work folder. When the context ends, the files are moved beside `base`.

    The files must include a record. They are synced before the first one is moved. Until then, earlier results do not
    change; with `overwrite`, all files that the earlier record names are then removed. Raises TakenError if a file
    exists or another process writes these results, FileError if the folder cannot be written.
    """
    record, staging = record_of(base), _staging(base)
    with work_folder(staging):
        try:
            for name in _listed(staging / _PLAN, base.name):
                base.with_name(name).unlink(missing_ok=True)
            empty(staging)
            # Checked before and after the work: another process may write the same results in between.
            _require_free(base, [record.name], overwrite)
            yield staging / base.name
            names = [path.name for path in staging.iterdir() if path.name != LOCK]
            for name in names:
                sync(staging / name)
            _require_free(base, names, overwrite)
            earlier = _listed(record, base.name) if overwrite else []
            write_bytes(staging / _PLAN, json.dumps({"files": {name: name for name in [*earlier, *names]}}).encode())
            record.unlink(missing_ok=True)
            for name in {*earlier} - {*names}:
                base.with_name(name).unlink(missing_ok=True)
            for name in sorted(names, key=lambda name: name == record.name):
                (staging / name).replace(base.with_name(name))
            sync(base.parent)
        except OSError as error:
            raise FileError(f"cannot write results in {base.parent}: {error.strerror}") from error
        finally:
            if not (staging / _PLAN).exists() or record.exists():
                remove(staging)


def _staging(base: Path) -> Path:
    return base.with_name(f".{base.name}.unfinished")


def _require_free(base: Path, names: list[str], overwrite: bool) -> None:
    existing = next((path for path in map(base.with_name, names) if path.exists()), None)
    if existing is not None and not overwrite:
        raise TakenError(f"{existing} exists and overwrite is off")


def _listed(record: Path, start: str) -> list[str]:
    """The files beside a record that it names and whose names start with `start`; empty for an unknown record."""
    try:
        content = read_json(record)
        listed = [*content["files"].values()]
        meshes = [m for person in content.get("people", []) for m in (person, *person.get("hands", {}).values())]
        listed += [name for mesh in meshes for kind in mesh["files"].values() for name in kind.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [name for name in listed if isinstance(name, str) and Path(name).name == name and name.startswith(start)]
