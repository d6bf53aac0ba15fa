"""`i2l-meshnet export`."""

from typing import Annotated

import tyro

from i2l_meshnet.exporting import export as exporting
from i2l_meshnet.exporting.export import ExportOptions


def export(options: Annotated[ExportOptions, tyro.conf.arg(name="")]) -> int:
    """Write a network as one file for ONNX Runtime or OpenVINO, after comparing its meshes with PyTorch's."""
    return exporting.run(options)
