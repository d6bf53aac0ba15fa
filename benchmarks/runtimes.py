"""Networks as other runtimes compute them, for rows beside PyTorch's."""

from pathlib import Path

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.exporting.export import write
from i2l_meshnet.models.checkpoint import Metadata
from i2l_meshnet.models.exported import ExportedNetwork, Runtime, open_exported, openvino_precisions
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.precision import Precision


def exported_ways(network: MeshNet, body: Body, folder: Path) -> dict[str, ExportedNetwork]:
    """The network by ONNX Runtime and OpenVINO, in all numbers that the processor computes with, by name.

    folder: where the files are written. Raises InputError where the extra openvino is not installed.
    """
    assert network.config is not None
    precisions = openvino_precisions()
    path = folder / "network.onnx"
    write(network, Metadata(network.config, "", ""), "onnx", path)
    ways: list[tuple[Runtime, Precision]] = [("onnx", "fp32"), *(("openvino", name) for name in precisions)]
    opened = {f"{runtime} {precision}": open_exported(path, runtime, precision) for runtime, precision in ways}
    return {way: ExportedNetwork(description, runner, body) for way, (description, runner) in opened.items()}
