"""Results of several files that appear together, the record (.json) last: where it is, they are whole."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from i2l_meshnet.errors import FileError, TakenError
from i2l_meshnet.folders import LOCK, empty, remove, work_folder
from i2l_meshnet.io import read_json, sync, write_bytes

_PLAN = ".plan"
"""Names the files that are being moved into place or replaced, so that after a kill they are known for ours."""


def record_of(base: Path) -> Path:
    """The record of the results whose names begin with that of `base`."""
    return base.with_name(base.name + ".json")


def is_finished(base: Path) -> bool:
    """Whether the results exist. If they do, remove what a killed process may have left beside them."""
    if not record_of(base).exists():
        return False
    discard(_staging(base))
    return True


def discard(folder: Path) -> None:
    """Remove the work folder of finished results, unless another process uses it or it is not ours."""
    if folder.exists():
        with contextlib.suppress(FileError), work_folder(folder):
            remove(folder)


@contextlib.contextmanager
def staged(base: Path, overwrite: bool) -> Iterator[Path]:
    """Yields the beginning of the names to write results under, a record among them; then they take their places.

    The files may be written as they come: nobody else writes them, and all are synced before the first is moved.
    Until all are written, earlier results stay as they are; then, with `overwrite`, all files that their record names
    go. Raises TakenError if a file is there already or another process writes these results, FileError where the
    folder cannot be written.
    """
    record, staging = record_of(base), _staging(base)
    with work_folder(staging):
        try:
            for name in _listed(staging / _PLAN, base.name):
                base.with_name(name).unlink(missing_ok=True)
            empty(staging)
            # Before the work as well as after it: another process may have done the same.
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
    there = next((path for path in map(base.with_name, names) if path.exists()), None)
    if there is not None and not overwrite:
        raise TakenError(f"{there} is there already, and is not to be overwritten")


def _listed(record: Path, start: str) -> list[str]:
    """The files that a record names, as far as they lie beside it and begin so; none if it is no record of ours."""
    try:
        content = read_json(record)
        listed = [*content["files"].values()]
        meshes = [m for person in content.get("people", []) for m in (person, *person.get("hands", {}).values())]
        listed += [name for mesh in meshes for kind in mesh["files"].values() for name in kind.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [name for name in listed if isinstance(name, str) and Path(name).name == name and name.startswith(start)]
