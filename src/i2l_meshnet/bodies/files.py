"""Reading the licensed files of SMPL and MANO, which users bring, without running anything that they contain.

The published files are Python pickles of chumpy, numpy and scipy objects. A pickle is a program; here it can name
only the few passive classes of `_PASSIVE`, so neither chumpy nor scipy nor numpy's own unpickling is used, and
arrays are rebuilt from raw bytes and checked.
"""

import math
import os
import pickle  # noqa: TID251 (its reader lets no object but arrays be built)
from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.errors import FileError
from i2l_meshnet.io import open_regular, read_arrays, reading

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
    with reading(path, "a body file", fix="download it again from its makers' site"):
        if path.suffix == ".npz":
            return {key: _normal(array) for key, array in read_arrays(path).items()}
        with open_regular(path) as stream:
            content = _Unpickler(stream, encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__.lstrip('_')}, not a dictionary")
        reader = _Reader()
        return {key: reader.value(value) for key, value in content.items() if isinstance(key, str)}


_MOST = 2 * 10**7
"""Entries of all lists and arrays of a file together; SMPL's with 300 shape values has 11 million."""
_DEEPEST = 6
"""Objects inside each other."""


class _Reader:
    """Turns passive objects into arrays. Texts and numbers stay. Anything else becomes None, which nobody uses.

    A few bytes of a pickle can name one object many times over, or an array of any size. So each object is read once,
    and the entries of all arrays and lists are counted.
    """

    def __init__(self) -> None:
        self._left = _MOST
        self._done: dict[int, Any] = {}

    def value(self, given: object, depth: int = 0) -> Any:
        """What an object of the file stands for."""
        # By identity: the file's objects live until the last is read.
        if id(given) not in self._done:
            self._done[id(given)] = self._read(given, depth)
        return self._done[id(given)]

    def _read(self, given: object, depth: int) -> Any:
        if depth > _DEEPEST:
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
        self._left -= entries
        if self._left < 0:
            raise ValueError("its lists and arrays are too long")

    def _from_lists(self, given: list[object]) -> np.ndarray | None:
        """An array from a list of numbers or texts, or a list of such lists; None for any other list."""
        rows = given if given and all(isinstance(row, list) for row in given) else [given]
        self._count(sum(len(row) for row in rows if isinstance(row, list)))
        items = [item for row in rows if isinstance(row, list) for item in row]
        if not all(isinstance(item, int | float | str) for item in items):
            return None
        # NumPy gives every text the room of the longest.
        self._count(len(items) * max((len(item) for item in items if isinstance(item, str)), default=0))
        try:
            return _normal(np.array(given))
        except (ValueError, TypeError, OverflowError):
            return None

    def array(self, given: object, depth: int) -> np.ndarray:
        """An object that must be an array."""
        array = self.value(given, depth + 1)
        if not isinstance(array, np.ndarray):
            raise ValueError("an object of it lacks its numbers")
        return array

    def shape(self, given: object) -> tuple[int, ...]:
        """The axes of an array: a tuple, a list or an array."""
        axes = self.value(given).tolist() if isinstance(given, _Passive) else given
        if not isinstance(axes, tuple | list) or not all(isinstance(n, int) for n in axes):
            raise ValueError("a shape of it is not a list of whole numbers")
        return tuple(axes)

    def counted(self, array: np.ndarray) -> np.ndarray:
        """Counts the entries of a new array."""
        self._count(array.size)
        return _normal(array)

    def numbers(self, shape: object, kind: object, raw: object, order: object) -> np.ndarray:
        """An array of plain numbers of which the file has exactly the bytes."""
        match kind, shape, raw:
            case _Type(arguments=(str(code), *_), state=state), tuple(axes), str() | bytes() | bytearray():
                pass
            case _:
                raise ValueError("an array of it is not of plain numbers")
        bytes_order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        if code[:1] not in set("fiub") or not code[1:].isdigit() or bytes_order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array of it is of type {code!r}, not of plain numbers")
        dtype = np.dtype(("<" if bytes_order == "=" else bytes_order) + code)
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if not all(isinstance(n, int) and n >= 0 for n in axes) or math.prod(axes) * dtype.itemsize != len(data):
            raise ValueError("an array of it has not the length that its shape asks for")
        return self.counted(np.frombuffer(data, dtype).reshape(axes, order="F" if order == "F" else "C"))

    def sparse(self, shape: object, data: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
        """A dense array from numbers and their rows and columns, of which equal ones add up."""
        axes = self.shape(shape)
        if len(axes) != 2 or min(axes) < 0:
            raise ValueError("a sparse matrix of it has not two axes")
        self._count(math.prod(axes))
        for place, length in zip(places, axes, strict=True):
            if not place.shape == data.shape == (len(data),) or (
                len(data) and not 0 <= place.min() <= place.max() < length
            ):
                raise ValueError("a sparse matrix of it is damaged")
        dense = np.zeros(axes)
        np.add.at(dense, tuple(place.astype(np.int64) for place in places), data)
        return dense


class _Passive:
    """What a pickle may build: an object that keeps its arguments and state, and does nothing."""

    # Of the class, because a pickle may also make objects without calling __init__.
    arguments: tuple[object, ...] = ()
    state: object = None

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Forgets the items of dictionaries, which chumpy keeps but nobody reads."""

    @property
    def attributes(self) -> dict[str, Any]:
        """The state, of an object whose state are its attributes."""
        if not isinstance(self.state, dict):
            raise ValueError("an object of it has no state")
        return self.state

    def read(self, reader: _Reader, depth: int) -> Any:
        """What the object stands for; None where nobody needs it."""
        return None


class _Type(_Passive):
    """numpy.dtype. Its arguments: code such as f8, and two flags; its state: (version, byte order, ...)."""


class _Array(_Passive):
    """numpy.ndarray. Its state: (version, shape, dtype, whether in Fortran order, bytes)."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        match self.state:
            case (_, shape, kind, fortran, raw):
                return reader.numbers(shape, kind, raw, "F" if fortran else "C")
        raise ValueError("an array of it has no numbers")


class _Buffer(_Passive):
    """numpy.ndarray in protocol 5. Its arguments: bytes, dtype, shape, order."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        raw, kind, shape, order = self.arguments
        return reader.numbers(shape, kind, raw, order)


class _Scalar(_Passive):
    """A numpy number. Its arguments: dtype, bytes."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        kind, raw = self.arguments
        return reader.numbers((), kind, raw, "C")


class _Variable(_Passive):
    """A chumpy array, whose value is the state's entry x."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        return reader.array(self.attributes.get("x"), depth)


class _Selection(_Passive):
    """A chumpy selection: the state's array a, flattened, at idxs, reshaped to preferred_shape."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        state = self.attributes
        array, index = (reader.array(state.get(key), depth) for key in ("a", "idxs"))
        chosen = reader.counted(array.ravel()[index.astype(np.int64)])
        shape = state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(reader.shape(shape))


class _Compressed(_Passive):
    """scipy.sparse.csr_matrix and csr_array: data, indices along the other axis, and where each row starts in them."""

    axis = 0

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        state = self.attributes
        data, index, starts = (reader.array(state.get(key), depth) for key in ("data", "indices", "indptr"))
        shape, counts = state.get("_shape", state.get("shape")), np.diff(starts)
        whole = starts.ndim == 1 and (counts >= 0).all() and counts.sum() == len(data)
        if not whole or len(counts) != reader.shape(shape)[self.axis]:
            raise ValueError("a sparse matrix of it is damaged")
        lines = np.repeat(np.arange(len(counts)), counts)
        return reader.sparse(shape, data, [index, lines] if self.axis else [lines, index])


class _Columns(_Compressed):
    """scipy.sparse.csc_matrix and csc_array, by columns."""

    axis = 1


class _Coordinates(_Passive):
    """scipy.sparse.coo_matrix and coo_array: data, and the row and column of each."""

    def read(self, reader: _Reader, depth: int) -> np.ndarray:
        state = self.attributes
        places = state.get("coords", (state.get("row"), state.get("col")))
        if not isinstance(places, tuple) or len(places) != 2:
            raise ValueError("a sparse matrix of it has not two axes")
        data, rows, columns = (reader.array(part, depth) for part in (state.get("data"), *places))
        return reader.sparse(state.get("_shape", state.get("shape")), data, [rows, columns])


class _Rebuild(_Passive):
    """copyreg._reconstructor(class, base, state): makes the passive class."""

    def __new__(cls, kind: object, *_: object) -> "_Passive":  # type: ignore[misc]
        if not (isinstance(kind, type) and issubclass(kind, _Passive)):
            raise ValueError("it rebuilds something that is not a body's data")
        return kind()


class _Bytes(_Passive):
    """_codecs.encode(text, "latin1") and bytes(): how newer Pythons write bytes for older ones."""

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
    """An unpickler for which only the names of `_PASSIVE` exist, each a class that does nothing.

    It is the one in Python: the one in C makes a table as long as any number that a file names.
    """

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path not in _PASSIVE:
            raise ValueError(f"it asks for {path!r}, which is code and not a body's data")
        return _PASSIVE[path]

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("it refers to data outside the file")


def _normal(array: np.ndarray) -> np.ndarray:
    """Numbers as float64 or int64, whatever they were stored as; other arrays as they are."""
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array
