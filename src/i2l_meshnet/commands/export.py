"""`i2l-meshnet export`."""

from typing import Annotated

import tyro

from i2l_meshnet.exporting import job
from i2l_meshnet.exporting.job import ExportOptions


def export(options: Annotated[ExportOptions, tyro.conf.arg(name="")]) -> int:
    """Write a network as one file for ONNX Runtime or OpenVINO, after comparing its meshes with PyTorch's."""
    return job.run(options)
