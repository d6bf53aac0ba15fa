"""Predictions for FreiHAND's server: `pred.json` and its zip."""

import zipfile
from pathlib import Path

import numpy as np
import orjson
from jaxtyping import Float

from i2l_meshnet.errors import InputError
from i2l_meshnet.io import atomic_path

JSON, ARCHIVE = "pred.json", "pred.zip"


def write_submission(
    joints: Float[np.ndarray, "n j 3"], vertices: Float[np.ndarray, "n v 3"], folder: Path
) -> tuple[Path, Path]:
    """Write [joints, vertices], metres, in the order of the dataset, as `pred.json` and as `pred.zip`.

    Raise InputError for values that are not finite, FileError if the folder cannot be written.
    """
    if not (np.isfinite(joints).all() and np.isfinite(vertices).all()):
        raise InputError("the predictions have NaN or infinite values: the server would refuse them")
    text = orjson.dumps(
        [np.ascontiguousarray(joints, np.float32), np.ascontiguousarray(vertices, np.float32)],
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    path, archive = folder / JSON, folder / ARCHIVE
    with atomic_path(path) as temporary:
        temporary.write_bytes(text)
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(JSON, text)
    return path, archive
