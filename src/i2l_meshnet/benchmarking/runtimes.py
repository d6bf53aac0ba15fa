"""Networks as other runtimes compute them, for rows beside PyTorch's."""

from pathlib import Path

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.exporting.job import write
from i2l_meshnet.exporting.people import subjects, varied_crops
from i2l_meshnet.exporting.quantize import quantize
from i2l_meshnet.models.checkpoint import Metadata
from i2l_meshnet.models.exported import (
    IMAGE,
    ExportedNetwork,
    Runtime,
    open_exported,
    openvino_precisions,
)
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.precision import Precision
from i2l_meshnet.prediction.predictor import MeshPredictor

INT8: tuple[Runtime, ...] = ("onnx", "openvino")
CALIBRATION = 24
"""Crops that the ranges of 8 bits are taken from."""


def exported_ways(network: MeshNet, body: Body, folder: Path) -> dict[str, ExportedNetwork]:
    """The network by ONNX Runtime and OpenVINO, in all numbers that the processor computes with, by name.

    folder: where the files are written. Raises InputError where the extra openvino is not installed.
    """
    assert network.config is not None
    precisions = openvino_precisions()
    whole, small = folder / "fp32.onnx", folder / "int8.onnx"
    write(network, Metadata(network.config, "", ""), "onnx", whole)
    predictor = MeshPredictor(network, body)
    crops = varied_crops(predictor, subjects(predictor, None), CALIBRATION)
    quantize(whole, small, [{IMAGE: crop.numpy()} for crop in crops])
    ways: list[tuple[Runtime, Precision]] = [("onnx", "fp32"), *(("openvino", name) for name in precisions)]
    opened = {f"{runtime} {precision}": open_exported(whole, runtime, precision) for runtime, precision in ways}
    opened |= {f"{runtime} int8": open_exported(small, runtime) for runtime in INT8}
    return {way: ExportedNetwork(description, runner, body) for way, (description, runner) in opened.items()}
