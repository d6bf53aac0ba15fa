"""ONNX Runtime and OpenVINO, imported with their telemetry off. Other modules import both from here.

Both report to their makers by default, from the moment they are imported: ONNX Runtime keeps a device id, the
hardware, the executable's path and error texts in the user's cache folder and sends them; OpenVINO sends an event and
keeps an id in `~/intel`. Neither can be stopped afterwards: a program that imports them before this package must switch
them off itself.
"""

import functools
import os
import sys
from typing import Any

from i2l_meshnet.errors import InputError

# ONNX Runtime's own switch, which child processes inherit.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["import_openvino", "onnxruntime", "openvino_core"]


def import_openvino() -> Any:
    """OpenVINO, an extra. Raises InputError if it is not installed."""
    # OpenVINO's switch is a file in the home folder. Without this package it sends nothing; None refuses its import.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        import openvino  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise InputError("the runtime openvino is not installed: pip install 'i2l-meshnet[openvino]'") from error
    return openvino


@functools.cache
def openvino_core() -> Any:
    """The one `openvino.Core` of this process, which is never released. Raises InputError if it is not installed.

    OpenVINO gives signal handlers a stack that it frees together with a plugin. If another plugin was loaded later,
    the freed stack stays registered, and the next signal (a child's end, for example) kills the process.
    """
    return import_openvino().Core()
