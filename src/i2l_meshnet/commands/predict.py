"""`i2l-meshnet predict`."""

import importlib.util
from typing import Annotated

import tyro

from i2l_meshnet.errors import InputError
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.video import predict as clips
from i2l_meshnet.video.options import ClipOptions


def predict(
    options: Annotated[tyro.conf.OmitArgPrefixes[PredictOptions], tyro.conf.arg(name="")],
    clip: tyro.conf.OmitArgPrefixes[ClipOptions],
) -> int:
    """Turn photos and videos of people into 3D meshes: overlays, mesh files, parameters, animation."""
    if clip.webcam is not None:
        from i2l_meshnet.video import webcam

        return webcam.run(options, clip)
    if options.table.parquet is None:
        return clips.run(options, clip)
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError("it needs Arrow: pip install 'i2l-meshnet[parquet]'", argument="parquet")
    # Imported late: it needs an extra, and takes a second.
    from i2l_meshnet.fleet import predict_table

    return predict_table.run(options)
