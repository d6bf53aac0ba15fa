"""A network in other runtimes, for comparison with PyTorch."""

from pathlib import Path

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.exporting.export import write
from i2l_meshnet.models.checkpoint import Metadata
from i2l_meshnet.models.exported import ExportedNetwork, Runtime, open_exported, openvino_precisions
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.precision import Precision


def exported_ways(network: MeshNet, body: Body, folder: Path) -> dict[str, ExportedNetwork]:
    """The network in ONNX Runtime and OpenVINO, in all precisions that the processor supports, by name.

    folder: where the exported file is written. Raise InputError if the extra openvino is not installed.
    """
    assert network.config is not None
    path = folder / "network.onnx"
    write(network, Metadata(network.config, "", ""), "onnx", path)
    runtimes: list[tuple[Runtime, Precision]] = [("onnx", "fp32"), *(("openvino", p) for p in openvino_precisions())]
    opened = {f"{runtime} {precision}": open_exported(path, runtime, precision) for runtime, precision in runtimes}
    return {name: ExportedNetwork(description, runner, body) for name, (description, runner) in opened.items()}
