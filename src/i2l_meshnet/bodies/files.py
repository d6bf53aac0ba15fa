"""Find and read the user's licensed files of SMPL and MANO, without running code in them.

The published files are Python pickles of chumpy, numpy and scipy objects, and a pickle is a program. Here it can only
name the passive classes of `_PASSIVE`. Neither chumpy, scipy nor numpy's own unpickling is used: arrays are rebuilt
from raw bytes and checked.
"""

import math
import os
import pickle  # noqa: TID251 (this reader builds passive objects only)
from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.errors import FileError
from i2l_meshnet.io import open_regular, read_arrays, reading

ENVIRONMENT = "I2L_MESHNET_BODIES"
"""Environment variable with the folder of body files."""

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
"""Possible names of the file of each body, the published name first."""

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
"""Subfolders of the given folder that are searched; the last two are the layout of the published code."""

_SMPL = "https://smpl.is.tue.mpg.de"
_SITES = {
    "smpl": f"https://smplify.is.tue.mpg.de, version 1.1.0 from {_SMPL},",
    "smpl-male": _SMPL,
    "smpl-female": _SMPL,
    "mano": "https://mano.is.tue.mpg.de",
}


def find_body_file(name: str, directory: Path | None = None) -> Path:
    """Find the file of a body ("smpl", "smpl-male", "smpl-female", "mano") below `directory`.

    directory: default is the environment variable I2L_MESHNET_BODIES. Raises FileError with the download address if
    there is no such file.
    """
    names = FILE_NAMES[name]
    root = directory or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if root is not None:
        for folder in FOLDERS:
            for file in names:
                if (path := root / folder / file).is_file():
                    return path
    where = f"no {names[0]} (or {names[1]}) in {root}" if root else "no folder of body files is given"
    raise FileError(
        f"{where}: the body {name!r} needs it; download it from {_SITES[name]} (free registration) into a folder "
        f"and give the folder with --body-dir or {ENVIRONMENT}"
    )


def read_body_file(path: Path) -> dict[str, Any]:
    """Read a .pkl or .npz body file: arrays as float64 or int64, sparse arrays as dense arrays, texts unchanged.

    Lists of arrays, as in the sequence files of 3DPW, stay lists. Raises FileError with the path if the file cannot be
    read, is damaged, or is a pickle that contains anything but plain data.
    """
    with reading(path, "a body file", fix="download it again from the authors' site"):
        if path.suffix == ".npz":
            return {key: _normal(array) for key, array in read_arrays(path).items()}
        with open_regular(path) as stream:
            content = _Unpickler(stream, encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError(f"it contains a {type(content).__name__.lstrip('_')}, not a dictionary")
        reader = _Reader()
        return {key: reader.value(value) for key, value in content.items() if isinstance(key, str)}


_MAX_ENTRIES = 2 * 10**7
"""Maximum entries of all lists and arrays of a file; SMPL with 300 shape values has 11 million."""
_MAX_DEPTH = 6
"""Maximum nesting of objects."""


class _Reader:
    """Convert passive objects to arrays. Texts and numbers stay; anything else becomes None, which is never used.

    A few bytes of a pickle can refer to one object many times, or to an array of any size. Therefore each object is
    read once, and the entries of all arrays and lists are counted.
    """

    def __init__(self) -> None:
        self._entries_left = _MAX_ENTRIES
        self._done: dict[int, Any] = {}

    def value(self, given: object, depth: int = 0) -> Any:
        """The content of an object of the file."""
        # By identity: all objects of the file exist until the last is read.
        if id(given) not in self._done:
            self._done[id(given)] = self._read(given, depth)
        return self._done[id(given)]

    def _read(self, given: object, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("its objects are nested too deeply")
        if isinstance(given, _Passive):
            return given.read(self, depth)
        if isinstance(given, list):
            self._count(len(given))
            if depth == 0 and any(isinstance(item, _Passive) for item in given):
                return [self.value(item, depth + 1) for item in given]
            return self._from_lists(given)
        return given if isinstance(given, str | int | float | bytes) else None

    def _count(self, entries: int) -> None:
        self._entries_left -= entries
        if self._entries_left < 0:
            raise ValueError("its lists and arrays are too long")

    def _from_lists(self, given: list[object]) -> np.ndarray | None:
        """An array from a list of numbers or texts, or a list of such lists; None for any other list."""
        rows = given if given and all(isinstance(row, list) for row in given) else [given]
        self._count(sum(len(row) for row in rows if isinstance(row, list)))
        items = [item for row in rows if isinstance(row, list) for item in row]
        if not all(isinstance(item, int | float | str) for item in items):
            return None
        # NumPy allocates the length of the longest text for every text.
        self._count(len(items) * max((len(item) for item in items if isinstance(item, str)), default=0))
        try:
            return _normal(np.array(given))
        except (ValueError, TypeError, OverflowError):
            return None

    def array(self, given: object, depth: int) -> np.ndarray:
        """The content of an object that must be an array."""
        array = self.value(given, depth + 1)
        if not isinstance(array, np.ndarray):
            raise ValueError("an object in it has no numbers")
        return array

    def shape(self, given: object) -> tuple[int, ...]:
        """The axes of an array: a tuple, a list or an array."""
        axes = self.value(given).tolist() if isinstance(given, _Passive) else given
        if not isinstance(axes, tuple | list) or not all(isinstance(n, int) for n in axes):
            raise ValueError("a shape in it is not a list of integers")
        return tuple(axes)

    def counted(self, array: np.ndarray) -> np.ndarray:
        """Count the entries of a new array, and convert it to float64 or int64."""
        self._count(array.size)
        return _normal(array)

    def numbers(self, shape: object, kind: object, raw: object, order: object) -> np.ndarray:
        """An array of plain numbers, from exactly the bytes that it needs."""
        match kind, shape, raw:
            case _Type(arguments=(str(code), *_), state=state), tuple(axes), str() | bytes() | bytearray():
                pass
            case _:
                raise ValueError("an array in it does not contain plain numbers")
        bytes_order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        if code[:1] not in set("fiub") or not code[1:].isdigit() or bytes_order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array in it has type {code!r}, not plain numbers")
        dtype = np.dtype(("<" if bytes_order == "=" else bytes_order) + code)
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if not all(isinstance(n, int) and n >= 0 for n in axes) or math.prod(axes) * dtype.itemsize != len(data):
            raise ValueError("the length of an array in it does not fit its shape")
        return self.counted(np.frombuffer(data, dtype).reshape(axes, order="F" if order == "F" else "C"))

    def sparse(self, shape: object, data: np.ndarray, indices: list[np.ndarray]) -> np.ndarray:
        """A dense array from values and their row and column indices. Values with equal indices are added."""
        axes = self.shape(shape)
        if len(axes) != 2 or min(axes) < 0:
            raise ValueError("a sparse matrix in it does not have two axes")
        self._count(math.prod(axes))
        for index, length in zip(indices, axes, strict=True):
            if not index.shape == data.shape == (len(data),) or (
                len(data) and not 0 <= index.min() <= index.max() < length
            ):
                raise ValueError("a sparse matrix in it is damaged")
        dense = np.zeros(axes)
        np.add.at(dense, tuple(index.astype(np.int64) for index in indices), data)
        return dense


class _Passive:
    """An object that a pickle may build: it stores its arguments and state, and does nothing."""

    # Class attributes, because a pickle can create objects without calling __init__.
    arguments: tuple[object, ...] = ()
    state: object = None

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore the items of dictionaries: chumpy stores some, and nothing here reads them."""

    @property
    def attributes(self) -> dict[str, Any]:
        """The state of an object whose state is its attributes."""
        if not isinstance(self.state, dict):
            raise ValueError("an object in it has no state")
        return self.state

    def read(self, reader: _Reader, depth: int) -> Any:
        """The content of the object; None if it is not needed."""
        return None


class _Type(_Passive):
    """numpy.dtype. Arguments: a code such as f8, and two flags. State: (version, byte order, ...)."""


class _Array(_Passive):
    """numpy.ndarray. State: (version, shape, dtype, whether in Fortran order, bytes)."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        match self.state:
            case (_, shape, kind, fortran, raw):
                return reader.numbers(shape, kind, raw, "F" if fortran else "C")
        raise ValueError("an array in it has no numbers")


class _Buffer(_Passive):
    """numpy.ndarray in protocol 5. Arguments: bytes, dtype, shape, order."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        raw, kind, shape, order = self.arguments
        return reader.numbers(shape, kind, raw, order)


class _Scalar(_Passive):
    """A numpy number. Arguments: dtype, bytes."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        kind, raw = self.arguments
        return reader.numbers((), kind, raw, "C")


class _Variable(_Passive):
    """A chumpy array. Its value is the entry x of the state."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        return reader.array(self.attributes.get("x"), depth)


class _Selection(_Passive):
    """A chumpy selection. State: array a, which is flattened, indices idxs, and preferred_shape of the result."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        state = self.attributes
        array, index = (reader.array(state.get(key), depth) for key in ("a", "idxs"))
        chosen = reader.counted(array.ravel()[index.astype(np.int64)])
        shape = state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(reader.shape(shape))


class _Compressed(_Passive):
    """scipy.sparse.csr_matrix and csr_array: data, column indices, and the start of each row in both."""

    axis = 0

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        state = self.attributes
        data, columns, starts = (reader.array(state.get(key), depth) for key in ("data", "indices", "indptr"))
        shape, counts = state.get("_shape", state.get("shape")), np.diff(starts)
        whole = starts.ndim == 1 and (counts >= 0).all() and counts.sum() == len(data)
        if not whole or len(counts) != reader.shape(shape)[self.axis]:
            raise ValueError("a sparse matrix in it is damaged")
        rows = np.repeat(np.arange(len(counts)), counts)
        return reader.sparse(shape, data, [columns, rows] if self.axis else [rows, columns])


class _Columns(_Compressed):
    """scipy.sparse.csc_matrix and csc_array: the same with rows and columns swapped."""

    axis = 1


class _Coordinates(_Passive):
    """scipy.sparse.coo_matrix and coo_array: data, row indices and column indices."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        state = self.attributes
        indices = state.get("coords", (state.get("row"), state.get("col")))
        if not isinstance(indices, tuple) or len(indices) != 2:
            raise ValueError("a sparse matrix in it does not have two axes")
        data, rows, columns = (reader.array(part, depth) for part in (state.get("data"), *indices))
        return reader.sparse(state.get("_shape", state.get("shape")), data, [rows, columns])


class _Rebuild(_Passive):
    """copyreg._reconstructor(class, base, state): creates an object of a passive class."""

    def __new__(cls, kind: object, *_: object) -> "_Passive":  # type: ignore[misc]
        if not (isinstance(kind, type) and issubclass(kind, _Passive)):
            raise ValueError("it creates an object that is not data of a body")
        return kind()


class _Bytes(_Passive):
    """_codecs.encode(text, "latin1") and bytes(): how Python 3 writes bytes in old pickle protocols."""

    def __new__(cls, text: object = "", encoding: object = "latin1") -> bytes:  # type: ignore[misc]
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("it encodes text in an unexpected way")
        return text.encode("latin1")


_NUMPY: dict[str, type[_Passive]] = {
    "multiarray._reconstruct": _Array,
    "numeric._frombuffer": _Buffer,
    "multiarray.scalar": _Scalar,
}
_SPARSE: dict[str, type[_Passive]] = {"csc": _Columns, "csr": _Compressed, "coo": _Coordinates}
_PASSIVE: dict[str, type[_Passive]] = {
    "numpy.ndarray": _Passive,
    "numpy.dtype": _Type,
    **{f"numpy.{core}.{name}": kind for name, kind in _NUMPY.items() for core in ("core", "_core")},
    **{
        f"scipy.sparse.{module}.{name}_{of}": kind
        for name, kind in _SPARSE.items()
        for module in (name, f"_{name}")
        for of in ("matrix", "array")
    },
    "chumpy.ch.Ch": _Variable,
    "chumpy.reordering.Select": _Selection,
    "copy_reg._reconstructor": _Rebuild,
    "copyreg._reconstructor": _Rebuild,
    "__builtin__.object": _Passive,
    "builtins.object": _Passive,
    "__builtin__.set": _Passive,
    "builtins.set": _Passive,
    "__builtin__.bytes": _Bytes,
    "collections.OrderedDict": _Passive,
    "_codecs.encode": _Bytes,
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """An unpickler that knows only the names of `_PASSIVE`. Each is a class that does nothing.

    It is the Python implementation, because the C implementation allocates a table of any size that a file names.
    """

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path not in _PASSIVE:
            raise ValueError(f"it uses {path!r}, which is code and not data of a body")
        return _PASSIVE[path]

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("it refers to data outside the file")


def _normal(array: np.ndarray) -> np.ndarray:
    """Convert numbers to float64 or int64. Other arrays are returned unchanged."""
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array
