"""ONNX Runtime and OpenVINO, imported with their telemetry off. Other modules import both from here.

By default, both send telemetry as soon as they are imported. ONNX Runtime stores a device id, the hardware, the
executable's path and error texts in the user's cache folder and sends them. OpenVINO stores an id in `~/intel` and
sends an event. This cannot be stopped later: a program that imports them first must disable telemetry itself.
"""

import functools
import os
import sys
from typing import Any

from i2l_meshnet.errors import InputError

# ONNX Runtime's setting, which child processes inherit.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["import_openvino", "onnxruntime", "openvino_core"]


def import_openvino() -> Any:
    """Import OpenVINO, an extra. Raise InputError if it is not installed."""
    # OpenVINO's setting is a file in the home folder. None blocks the import of the package that sends telemetry.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        import openvino  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise InputError("the runtime openvino is not installed: pip install 'i2l-meshnet[openvino]'") from error
    return openvino


@functools.cache
def openvino_core() -> Any:
    """The `openvino.Core` of this process, which is never released. Raise InputError if OpenVINO is not installed.

    OpenVINO registers a stack for signal handlers and frees it with a plugin. If another plugin was loaded later, the
    freed stack stays registered, and the next signal (such as SIGCHLD) kills the process.
    """
    return import_openvino().Core()
