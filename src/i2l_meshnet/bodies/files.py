"""Reading the licensed files of SMPL and MANO, which users bring, without running anything that they contain.

The published files are Python pickles of chumpy, numpy and scipy objects. A pickle is a program; here it can name
only the few passive classes of `_PASSIVE`, so neither chumpy nor scipy nor numpy's own unpickling is used, and
arrays are rebuilt from raw bytes and checked.
"""

import math
import os
import pickle  # noqa: TID251 (its reader lets no object but arrays be built)
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from i2l_meshnet.errors import FileError
from i2l_meshnet.io import open_regular, read_arrays

ENVIRONMENT = "I2L_MESHNET_BODIES"
"""Environment variable that names the folder of body files."""

FILE_NAMES: dict[str, tuple[str, ...]] = {
    "smpl": (
        "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
        "SMPL_NEUTRAL.pkl",
        "SMPL_NEUTRAL.npz",
        "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl",
    ),
    "smpl-male": (
        "basicModel_m_lbs_10_207_0_v1.0.0.pkl",
        "basicmodel_m_lbs_10_207_0_v1.0.0.pkl",
        "SMPL_MALE.pkl",
        "SMPL_MALE.npz",
        "basicmodel_m_lbs_10_207_0_v1.1.0.pkl",
    ),
    "smpl-female": (
        "basicModel_f_lbs_10_207_0_v1.0.0.pkl",
        "SMPL_FEMALE.pkl",
        "SMPL_FEMALE.npz",
        "basicmodel_f_lbs_10_207_0_v1.1.0.pkl",
    ),
    "mano": ("MANO_RIGHT.pkl", "MANO_RIGHT.npz"),
}
"""What a body's file may be called, the published name first."""

FOLDERS = (
    "",
    "smpl",
    "mano",
    "models",
    "smpl/models",
    "mano/models",
    "common/utils/smplpytorch/smplpytorch/native/models",
    "common/utils/manopth/mano/models",
)
"""Where the files may be below the given folder; the last two are the published code's layout."""

_SITES = {"smpl": "https://smpl.is.tue.mpg.de", "mano": "https://mano.is.tue.mpg.de"}


def find_body_file(name: str, directory: Path | None = None) -> Path:
    """The file of a body ("smpl", "smpl-male", "smpl-female", "mano") below `directory`.

    Without a directory, the one that the environment variable I2L_MESHNET_BODIES names. Raises FileError, which
    says what to get where, if there is none.
    """
    names = FILE_NAMES[name]
    root = directory or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if root is not None:
        for folder in FOLDERS:
            for file in names:
                if (path := root / folder / file).is_file():
                    return path
    where = f"no {names[0]} (or {names[1]}) in {root}" if root else "no folder of body files is named"
    raise FileError(
        f"{where}: the body {name!r} needs it; get it from {_SITES[name[:4]]} (free registration), put it in a folder "
        f"and name that with --body-dir or {ENVIRONMENT}"
    )


def read_body_file(path: Path) -> dict[str, Any]:
    """The entries of a .pkl or .npz body file: arrays as float64 or int64, sparse ones made dense; texts as they are.

    Lists of arrays, as in the sequence files of 3DPW, stay lists. Raises FileError, with the path, if the file
    cannot be read, is damaged, or is a pickle that asks for anything but plain data.
    """
    try:
        if path.suffix == ".npz":
            return {key: _normal(array) for key, array in read_arrays(path).items()}
        with open_regular(path) as stream:
            return _read_pickle(stream)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    except _Refused as error:
        raise FileError(f"{path} is refused: {error}; get the file anew from its makers' site") from error
    except ValueError as error:
        raise FileError(f"{path} is refused: it is not an .npz archive of plain arrays ({error})") from error


_MOST = 2 * 10**7
"""Entries of all lists and arrays of a file together; SMPL's with 300 shape values has 11 million."""


class _Refused(Exception):
    """The file is not what it should be; the message says how."""


def _read_pickle(stream: BinaryIO) -> dict[str, Any]:
    try:
        content = _Unpickler(stream, encoding="latin1").load()
        if not isinstance(content, dict):
            raise _Refused(f"it holds a {type(content).__name__.lstrip('_')}, not a dictionary")
        return _Plain().entries(content)
    except _Refused:
        raise
    except Exception as error:  # Damaged pickles raise almost anything: EOFError, IndexError, UnicodeError ...
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise _Refused(f"it is not a whole pickle of a body ({reason})") from error


class _Passive:
    """What a pickle may build: an object that keeps its arguments and state, and does nothing."""

    # Of the class, because a pickle may also make objects without calling __init__.
    arguments: tuple[object, ...] = ()
    state: object = None

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Array(_Passive):
    """numpy.ndarray. Its state: (version, shape, dtype, whether in Fortran order, bytes or list)."""


class _Scalar(_Passive):
    """A numpy number. Its arguments: dtype, bytes."""


class _Type(_Passive):
    """numpy.dtype. Its arguments: code such as f8, and two flags; its state: (version, byte order, ...)."""


class _Variable(_Passive):
    """A chumpy array, whose value is the state's entry x."""


class _Selection(_Passive):
    """A chumpy selection: the state's array a, flattened, at idxs, reshaped to preferred_shape."""


class _Columns(_Passive):
    """scipy.sparse.csc_matrix, whose state holds data, indices, indptr and _shape."""


class _Rows(_Passive):
    """scipy.sparse.csr_matrix."""


class _Names(_Passive):
    """The names ndarray and object, passed as arguments to the classes above."""


class _Collection(_Passive):
    """A set or an ordered dictionary, which chumpy may keep in its state; never looked at."""

    def __setitem__(self, key: object, value: object) -> None:
        """Forgets the item."""


class _Rebuild(_Passive):
    """copyreg._reconstructor(class, base, state): makes the passive class."""

    def __new__(cls, kind: object, *_: object) -> "_Passive":  # type: ignore[misc]
        if not (isinstance(kind, type) and issubclass(kind, _Passive)):
            raise _Refused("it rebuilds something that is not a body's data")
        return kind()


class _Bytes(_Passive):
    """_codecs.encode(text, "latin1"): how newer Pythons write bytes for older ones."""

    def __new__(cls, text: object, encoding: object) -> bytes:  # type: ignore[misc]
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _Refused("it encodes text in an unexpected way")
        return text.encode("latin1")


_PASSIVE: dict[str, type[_Passive]] = {
    "numpy.ndarray": _Names,
    "numpy.dtype": _Type,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _Scalar,
    "numpy._core.multiarray.scalar": _Scalar,
    "chumpy.ch.Ch": _Variable,
    "chumpy.reordering.Select": _Selection,
    "scipy.sparse.csc.csc_matrix": _Columns,
    "scipy.sparse._csc.csc_matrix": _Columns,
    "scipy.sparse.csr.csr_matrix": _Rows,
    "scipy.sparse._csr.csr_matrix": _Rows,
    "copy_reg._reconstructor": _Rebuild,
    "copyreg._reconstructor": _Rebuild,
    "__builtin__.object": _Names,
    "builtins.object": _Names,
    "__builtin__.set": _Collection,
    "builtins.set": _Collection,
    "collections.OrderedDict": _Collection,
    "_codecs.encode": _Bytes,
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """An unpickler for which only the names of `_PASSIVE` exist, each a class that does nothing.

    It is the one in Python, because the one in C makes a table as long as any number that a file names.
    """

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path not in _PASSIVE:
            raise _Refused(f"it asks for {path!r}, which is code and not a body's data")
        return _PASSIVE[path]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to data outside the file")


class _Plain:
    """Turns passive objects into arrays; texts and numbers stay; anything else becomes None (and is not used).

    A few bytes of a pickle can name one object many times over, or an array of any size: so each object is turned once,
    and all that they hold together is counted.
    """

    def __init__(self) -> None:
        self._left = _MOST
        self._done: dict[int, Any] = {}

    def entries(self, content: dict[Any, Any]) -> dict[str, Any]:
        """The entries of a file."""
        return {key: self._value(value, 0) for key, value in content.items() if isinstance(key, str)}

    def _value(self, value: object, depth: int) -> Any:
        # Kept by identity: the file's objects all live until the last is done.
        if id(value) not in self._done:
            self._done[id(value)] = self._turned(value, depth)
        return self._done[id(value)]

    def _turned(self, value: object, depth: int) -> Any:
        if depth > 6:
            raise _Refused("its objects are nested too deeply")
        state = value.state if isinstance(value, _Passive) else None
        if isinstance(value, _Array):
            return self._normal(_array(state))
        if isinstance(value, _Scalar):
            kind, raw = (*value.arguments, None, None)[:2]
            return self._normal(_array((1, (), kind, False, raw)))
        if isinstance(value, _Variable | _Selection | _Columns | _Rows):
            if not isinstance(state, dict):
                raise _Refused("an object of it has no state")
            if isinstance(value, _Variable):
                return self._part(state, "x", depth)
            if isinstance(value, _Selection):
                chosen, shape = self._part(state, "a", depth), state.get("preferred_shape")
                chosen = self._normal(_select(chosen, self._part(state, "idxs", depth)))
                return chosen if shape is None else _reshape(chosen, self._shape(shape))
            return self._sparse(state, by_columns=isinstance(value, _Columns))
        if isinstance(value, list):
            self._count(len(value))
            if depth == 0 and any(isinstance(item, _Passive) for item in value):
                return [self._value(item, depth + 1) for item in value]
            return self._from_lists(value)
        if isinstance(value, np.ndarray | str | int | float | bytes):
            return value
        return None

    def _count(self, entries: int) -> None:
        self._left -= entries
        if self._left < 0:
            raise _Refused("its lists and arrays are too long")

    def _normal(self, array: np.ndarray) -> np.ndarray:
        self._count(array.size)
        return _normal(array)

    def _part(self, state: dict[str, Any], key: str, depth: int) -> np.ndarray:
        part = self._value(state.get(key), depth + 1)
        if not isinstance(part, np.ndarray):
            raise _Refused(f"a chumpy object of it lacks the array {key!r}")
        return part

    def _from_lists(self, value: list[object]) -> np.ndarray | None:
        """An array from a list of numbers or texts, or a list of such lists; None for any other list."""
        rows = value if value and all(isinstance(row, list) for row in value) else [value]
        self._count(sum(len(row) for row in rows if isinstance(row, list)))
        items = [item for row in rows if isinstance(row, list) for item in row]
        if not all(isinstance(item, int | float | str) for item in items):
            return None
        # NumPy gives every text the room of the longest.
        self._count(len(items) * max((len(item) for item in items if isinstance(item, str)), default=0))
        try:
            return _normal(np.array(value))
        except (ValueError, TypeError, OverflowError):
            return None

    def _shape(self, shape: object) -> tuple[int, ...]:
        if isinstance(shape, _Passive):
            shape = self._value(shape, 0)
        if isinstance(shape, np.ndarray):
            shape = shape.tolist()
        if not isinstance(shape, tuple | list) or not all(isinstance(n, int) for n in shape):
            raise _Refused("a shape of it is not a list of whole numbers")
        return tuple(shape)

    def _sparse(self, state: dict[str, Any], by_columns: bool) -> np.ndarray:
        """A dense array from the state of scipy's compressed sparse matrix."""
        data, index, starts = (self._value(state.get(key), 0) for key in ("data", "indices", "indptr"))
        if not all(isinstance(part, np.ndarray) and part.ndim == 1 for part in (data, index, starts)):
            raise _Refused("a sparse matrix of it lacks its data")
        shape = self._shape(state.get("_shape", state.get("shape")))
        if len(shape) != 2 or min(shape) < 0:
            raise _Refused("a sparse matrix of it has not two axes")
        rows, columns = shape
        lines, width = (columns, rows) if by_columns else (rows, columns)
        self._count(lines * width)
        counts = np.diff(starts)
        whole = len(starts) == lines + 1 and (counts >= 0).all() and len(index) == len(data) == counts.sum()
        if not whole or (len(index) and not (index.min() >= 0 and index.max() < width)):
            raise _Refused("a sparse matrix of it is damaged")
        dense = np.zeros((lines, width))
        np.add.at(dense, (np.repeat(np.arange(lines), counts), index.astype(np.int64)), data)
        return dense.T if by_columns else dense


def _array(state: object) -> np.ndarray:
    """An array from the state that numpy pickles: only plain numbers, and exactly as many bytes as it needs."""
    match state:
        case (int(), tuple(shape), _Type(arguments=(str(code), *_), state=kind), fortran, str() | bytes() as raw):
            pass
        case _:
            raise _Refused("an array of it is not of plain numbers")
    order = kind[1] if isinstance(kind, tuple) and len(kind) > 1 else "="
    if code[:1] not in set("fiub") or not code[1:].isdigit() or order not in ("<", ">", "=", "|"):
        raise _Refused(f"an array of it is of type {code!r}, not of plain numbers")
    try:
        dtype = np.dtype(("<" if order == "=" else order) + code)
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if not all(isinstance(n, int) and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
            raise _Refused("an array of it has not the length that its shape asks for")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    except (TypeError, ValueError) as error:
        raise _Refused(f"an array of it is damaged ({error})") from error


def _normal(array: np.ndarray) -> np.ndarray:
    """Numbers as float64 or int64, whatever they were stored as; other arrays as they are."""
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _select(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    try:
        return array.ravel()[index.astype(np.int64)]
    except (IndexError, ValueError, TypeError) as error:
        raise _Refused(f"a chumpy selection of it is damaged ({error})") from error


def _reshape(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise _Refused(f"a chumpy selection of it is damaged ({error})") from error
