"""Write stand-ins for the licensed body files: procedural shapes with SMPL's and MANO's sizes, in the official format.

The numbers are from goldens/models.npz, which we made; they contain nothing of SMPL or MANO. The pickles look like
pickles of Python 2: byte strings, chumpy objects, scipy and numpy classes with their module names of 2015.
"""

import pickle
import struct
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

GOLDENS = Path(__file__).parent / "goldens"
SMPL_FOLDER = "common/utils/smplpytorch/smplpytorch/native/models"
MANO_FOLDER = "common/utils/manopth/mano/models"


def body_entries(which: str, gender: str = "neutral") -> dict[str, Any]:
    """The entries of a body file: arrays, and J_regressor as a sparse matrix. which: "smpl" or "mano"."""
    with np.load(GOLDENS / "models.npz") as archive:
        part = {key.split("/")[1]: archive[key] for key in archive.files if key.startswith(f"{which}/")}
    vertices, bones = len(part["v_template"]), len(part["parents"])
    weights = np.zeros((vertices, bones))
    np.put_along_axis(weights, part["weights_idx"].astype(int), part["weights_val"].astype(float), 1)
    index = part["J_row"].astype(np.int32), part["J_col"].astype(np.int32)
    regressor = scipy.sparse.csc_matrix((part["J_val"].astype(float), index), shape=(bones, vertices))
    size, spread = {"neutral": (1.0, 1.0), "male": (1.04, 1.1), "female": (0.96, 0.9)}[gender]
    template = part["v_template"].astype(float) * size
    entries = {
        "v_template": template,
        "f": part["f"].astype(np.uint32),
        "weights": weights,
        "shapedirs": part["shapedirs"].astype(float) * spread,
        "posedirs": part["posedirs_B"].astype(float) @ part["posedirs_C"].astype(float),
        "J_regressor": regressor,
        "J": regressor @ template,
        "kintree_table": np.stack([part["parents"], np.arange(bones, dtype=np.uint32)]),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    if which == "mano":
        entries |= {key: part[key].astype(float) for key in ("hands_components", "hands_coeffs", "hands_mean")}
    return entries


class Ch:
    """Stand-in for chumpy.ch.Ch, which is pickled as its attributes."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


class Select(Ch):
    """Stand-in for chumpy.reordering.Select."""


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text and bytes as str of Python 2, like the published pickles."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str2(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        if self.proto:  # type: ignore[has-type]
            self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        else:
            self.write(pickle.STRING + repr(raw)[1:].encode("ascii") + b"\n")
        self.memoize(value)

    dispatch[str] = save_str2
    dispatch[bytes] = save_str2


def write_pickle(path: Path, entries: dict[str, Any], protocol: int = 2) -> None:
    """Pickle entries like the published files."""
    fakes = {"chumpy": [], "chumpy.ch": [Ch], "chumpy.reordering": [Select]}
    before = {name: sys.modules.get(name) for name in fakes}
    homes = {kind: kind.__module__ for kind in (Ch, Select)}
    try:
        for name, kinds in fakes.items():
            sys.modules[name] = types.ModuleType(name)
            for kind in kinds:
                kind.__module__ = name
                setattr(sys.modules[name], kind.__name__, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            pickler = Python2Pickler(_Renaming(stream), protocol=protocol)
            pickler.dump(entries)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        for kind, home in homes.items():
            kind.__module__ = home


class _Renaming:
    """A stream that gives modules their names of 2015."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, data: bytes) -> int:
        if len(data) < 1000:
            data = data.replace(b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")
            data = data.replace(b"cnumpy._core.", b"cnumpy.core.")
        return self.stream.write(data)


def write_body_files(root: Path) -> None:
    """Write the four files to the published code's folders below `root`."""
    neutral = body_entries("smpl")
    neutral["shapedirs"] = Ch(x=neutral["shapedirs"], _dirty_vars=set(), _itr=None)
    write_pickle(root / SMPL_FOLDER / "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl", neutral)
    for letter, gender in (("m", "male"), ("f", "female")):
        write_pickle(root / SMPL_FOLDER / f"basicModel_{letter}_lbs_10_207_0_v1.0.0.pkl", body_entries("smpl", gender))
    hand = body_entries("mano")
    # As in MANO's file, the shape directions are a selection of a longer chumpy array.
    longer = Ch(x=np.concatenate([hand["shapedirs"], np.ones((778, 3, 2))], 2))
    index = np.arange(778 * 3 * 12).reshape(778, 3, 12)[:, :, :10].ravel()
    hand["shapedirs"] = Select(a=longer, idxs=index, preferred_shape=(778, 3, 10))
    write_pickle(root / MANO_FOLDER / "MANO_RIGHT.pkl", hand)
