"""Write a network as a graph of tensors, with any batch size, in the formats of other runtimes."""

import contextlib
import importlib.util
import logging
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from i2l_meshnet.bodies.library import LICENSED
from i2l_meshnet.errors import InputError
from i2l_meshnet.models.exported import (
    IMAGE,
    IR_NAMES,
    JOINT_REGRESSOR,
    KEY,
    Description,
)
from i2l_meshnet.models.inference import for_inference
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.runtimes import import_openvino, openvino_core


class TensorNetwork(nn.Module):
    """A network that returns the tensors of its `LixelOutput` as a tuple."""

    def __init__(self, network: MeshNet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, image: Float[Tensor, "b 3 h w"], joint_regressor: Float[Tensor, "j v"] | None = None
    ) -> tuple[Tensor, ...]:
        """joint_regressor: replaces the network's own."""
        if joint_regressor is None:
            return tuple(named_tensors(self.network(image)).values())
        output = torch.func.functional_call(self.network, {JOINT_REGRESSOR: joint_regressor}, (image,))
        return tuple(named_tensors(output).values())


def named_tensors(output: LixelOutput) -> dict[str, Tensor]:
    """The tensors of an output that are not None, by their names in exported files."""
    found = {"joints": output.joints, "vertices": output.vertices, "mesh_joints": output.mesh_joints}
    if output.params is not None:
        found |= {"pose": output.params.pose, "shape": output.params.shape}
    return found if output.keypoints is None else {**found, "keypoints": output.keypoints}


@torch.no_grad()
def trace(network: MeshNet) -> tuple[ExportedProgram, tuple[str, ...]]:
    """The network's graph, with BatchNorm folded into convolutions, and the names of its outputs.

    The inputs are crops and, for networks of a licensed body, the joint regressor, which is then not in the graph.
    """
    assert network.config is not None
    ready = for_inference(network).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    # A batch of two: a batch of one would fix the batch size to one.
    image = torch.rand(2, 3, *network.grid.crop_size, generator=torch.Generator().manual_seed(0))
    names = tuple(named_tensors(ready(image)))
    inputs, shapes = (image,), ({0: Dim("batch")},)
    if network.config.body in LICENSED:
        # A program keeps its example inputs, so they must not contain it either.
        ready.joint_regressor = torch.zeros_like(ready.joint_regressor)
        inputs, shapes = (image, ready.joint_regressor.clone()), (*shapes, None)
    return torch.export.export(TensorNetwork(ready).eval(), inputs, dynamic_shapes=shapes), names


def write_onnx(program: ExportedProgram, description: Description, path: Path) -> None:
    """Write an ONNX file with its weights. Raise InputError if the converter is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise InputError("writing ONNX, and OpenVINO from it, needs a converter: pip install 'i2l-meshnet[onnx]'")
    inputs = [IMAGE, JOINT_REGRESSOR][: len(program.graph_signature.user_inputs)]
    with _quiet():
        converted = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=inputs, output_names=description.outputs
        )
        assert converted is not None
        converted.model.metadata_props[KEY] = description.to_json()
        converted.save(path, external_data=False)


def write_openvino(onnx: Path, path: Path) -> None:
    """Convert one of our ONNX files. Raise InputError if OpenVINO is not installed."""
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = (Path(folder) / name for name in IR_NAMES)
        # openvino.convert_model would send telemetry.
        openvino.save_model(openvino_core().read_model(onnx), graph, compress_to_fp16=False)
        with zipfile.ZipFile(path, "w") as archive:
            for member in (graph, weights):
                # Without a time, so that the same network gives the same bytes.
                archive.writestr(zipfile.ZipInfo(member.name), member.read_bytes())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings about packages that we do not use and future versions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
