"""`i2l-meshnet predict`."""

import importlib.util
from typing import Annotated

import tyro

from i2l_meshnet.errors import InputError
from i2l_meshnet.video import job as clips
from i2l_meshnet.video.job import ClipOptions


def predict(options: Annotated[ClipOptions, tyro.conf.arg(name="")]) -> int:
    """Turn photos and videos of people into 3D meshes: overlays, mesh files, parameters, animation."""
    if options.webcam is not None:
        from i2l_meshnet.video import webcam

        return webcam.run(options)
    if options.parquet is None:
        return clips.run(options)
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError("--parquet needs Arrow: pip install 'i2l-meshnet[parquet]'")
    # Imported late: it is an extra, and takes a second.
    from i2l_meshnet.fleet import job as fleet

    return fleet.run(options)
