"""Load networks written by `i2l-meshnet export` and run them with ONNX Runtime or OpenVINO.

A file contains the graph, from crops in [0, 1] to the tensors of a `LixelOutput`, and a description of the network as
JSON under the key `KEY` of the format's metadata. The steps after the network stay in PyTorch: decoding, and the fit of
the parameters (`fitting.ParameterFit`), which needs the camera. The statistics of the fit are in the description.

OpenVINO's format has two files (.xml and .bin); an exported file is an uncompressed zip archive of both.
"""

import base64
import dataclasses
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load as decode
from safetensors.torch import save as encode
from torch import Tensor

from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.library import LICENSED, load_body
from i2l_meshnet.devices import choose_device
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import first_line, parse_json, read_bytes, reading, require_stored
from i2l_meshnet.models.checkpoint import Metadata
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.fitting import ParameterFit
from i2l_meshnet.models.graph_limits import (
    is_onnx_out_of_memory,
    require_bounded_openvino,
    require_plain_onnx,
    share_memory,
)
from i2l_meshnet.models.inference import for_inference
from i2l_meshnet.models.loading import DEFAULT_WEIGHTS, load_network, shipped_weights
from i2l_meshnet.models.output import LixelNetwork, LixelOutput
from i2l_meshnet.precision import Precision, require_precision, supported_precisions
from i2l_meshnet.runtimes import import_openvino, onnxruntime, openvino_core

Runtime = Literal["torch", "onnx", "openvino"]
ARCHIVE_SUFFIX = ".openvino"
READERS: dict[str, tuple[Runtime, ...]] = {
    ".onnx": ("onnx", "openvino"),
    ARCHIVE_SUFFIX: ("openvino",),
    ".xml": ("openvino",),
}
"""Suffix of an exported file → runtimes that read it, the default first."""
MAX_NETWORK_BYTES = 2 * 10**9
"""Maximum size of a file; the published body network has 570 million bytes."""
FORMAT, VERSION = "i2l-meshnet export", 1
KEY = "i2l_meshnet"
IR_NAMES = ("model.xml", "model.bin")
"""Members of an OpenVINO archive."""
IMAGE, JOINT_REGRESSOR = "image", "joint_regressor"
"""Inputs of a graph. The second is for licensed bodies, whose data are not in the file."""

Runner = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


@dataclasses.dataclass(frozen=True)
class Description:
    """The description in an exported file.

    outputs: names of the graph's outputs, in order. software: our version that wrote it. fit: state of the network's
    `ParameterFit`, None if it has none.
    """

    metadata: Metadata
    outputs: tuple[str, ...]
    software: str
    fit: dict[str, Tensor] | None

    def to_json(self) -> str:
        """The description as JSON text."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "software": self.software,
            **self.metadata.to_json(),
            "outputs": self.outputs,
            "fit": None if self.fit is None else base64.b64encode(encode(self.fit)).decode(),
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> "Description":
        """The inverse of `to_json`. Raises FileError with `path` for other texts."""
        with reading(path, "a network that `i2l-meshnet export` wrote", "export it again"):
            if not text:
                raise ValueError("it has no description")
            content = parse_json(text)
            version, software = content["version"], content["software"]
            if content["format"] != FORMAT:
                raise ValueError("its description has another format")
            if version != VERSION:
                raise FileError(
                    f"{path} has export version {version} (i2l-meshnet {software}); this software reads {VERSION}: "
                    "export the network again"
                )
            if content.get("arithmetic") == "int8":
                raise FileError(f"{path}: 8-bit networks are no longer supported: export it again")
            fit = None if content["fit"] is None else decode(base64.b64decode(content["fit"]))
            outputs = tuple(content["outputs"])
            metadata = Metadata.from_json(content)
            missing = {"joints", "vertices", "mesh_joints"} - {*outputs}
            if missing or not {*outputs} <= {*sizes(metadata.network)} or ("pose" in outputs) != ("shape" in outputs):
                raise ValueError("its description has other outputs")
            return cls(metadata, outputs, software, fit)


class ExportedNetwork:
    """A network run by ONNX Runtime or OpenVINO on the CPU, with the interface of a `MeshNet`."""

    def __init__(self, description: Description, runner: Runner, body: Body) -> None:
        """body: the body of the description."""
        self.config = description.metadata.network
        self.config.check_body(body)
        self.grid = self.config.grid
        self._outputs, self._runner = description.outputs, runner
        self._constants = constants(self.config, body)
        self.parameter_fit: ParameterFit | None = None
        if description.fit is not None and isinstance(body, AnnyBody):
            self.parameter_fit = ParameterFit(body)
            try:
                self.parameter_fit.load_state_dict(description.fit)
            except RuntimeError as error:
                raise FileError(
                    f"the fit in the exported file does not belong to the body {body.name!r}: export it again"
                ) from error

    @property
    def predicts_parameters(self) -> bool:
        """Whether outputs contain body parameters."""
        return "pose" in self._outputs

    def __call__(self, image: Float[Tensor, "b 3 h w"]) -> LixelOutput:
        """RGB crops in [0, 1]. Raises InputError if they do not have the grid's crop size."""
        if image.shape[2:] != self.grid.crop_size:
            wanted, given = ("x".join(map(str, size)) for size in (self.grid.crop_size, image.shape[2:]))
            raise InputError(f"this network needs crops of {wanted} (height x width) pixels, not {given}")
        pixels = np.ascontiguousarray(image.cpu().numpy())
        try:
            found = self._runner({IMAGE: pixels, **self._constants})
        except Exception as error:  # each runtime has its own classes; all mean that the graph is wrong
            if is_onnx_out_of_memory(error):
                raise MemoryError from error
            raise InputError(
                f"the exported network fails for {len(image)} crops: {first_line(error)}: export it again"
            ) from error
        values = self._values(found, len(image))
        params = None
        if self.predicts_parameters:
            shape = values["shape"]
            params = BodyParams(values["pose"], shape, shape.new_zeros(len(shape), 3))
        return LixelOutput(values["joints"], values["vertices"], values["mesh_joints"], params, values.get("keypoints"))

    def _values(self, found: Sequence[np.ndarray], count: int) -> dict[str, Tensor]:
        """A graph's outputs for `count` crops, by name. Raises InputError if they do not fit the description."""
        expected = sizes(self.config)
        if len(found) != len(self._outputs):
            raise InputError(
                f"the exported network has {len(found)} outputs, not {len(self._outputs)}: export it again"
            )
        for name, value in zip(self._outputs, found, strict=True):
            same = len(value.shape) == len(expected[name]) + 1 and len(value) == count
            for wanted, length in zip(expected[name], value.shape[1:], strict=False):
                same &= wanted in (None, length)
            if not same or value.dtype != np.float32 or not np.isfinite(value).all():
                raise InputError(
                    f"the exported network's output {name!r} does not fit its description or is not finite: "
                    "export it again"
                )
        return {name: torch.from_numpy(np.array(value)) for name, value in zip(self._outputs, found, strict=True)}


def sizes(config: NetworkConfig) -> dict[str, tuple[int | None, ...]]:
    """Sizes of a graph's possible outputs after the batch axis, by name. None: any size."""
    joints = (len(config.joints), 3)
    return {
        "joints": joints,
        "vertices": (config.vertices, 3),
        "mesh_joints": joints,
        "pose": (config.bones, 3, 3),
        "shape": (config.shape_values,),
        "keypoints": (None, 3),
    }


def constants(config: NetworkConfig, body: Body) -> dict[str, np.ndarray]:
    """Inputs of a graph in addition to the crops, by name. body: the predicted body."""
    return {JOINT_REGRESSOR: body.joint_regressor.numpy()} if config.body in LICENSED else {}


@dataclasses.dataclass(frozen=True)
class ReadyNetwork:
    """A network for prediction, on `device`, and its body.

    weights: name of its file; "default" for a file in the package. metadata: the description in the file.
    """

    network: LixelNetwork
    body: Body
    weights: str
    metadata: Metadata
    runtime: Runtime
    precision: Precision
    predicts_parameters: bool
    device: torch.device

    @property
    def facts(self) -> dict[str, Any]:
        """Properties that are saved with every result."""
        return {
            "weights": self.weights,
            "kind": self.metadata.network.kind,
            "backbone": self.metadata.network.backbone,
            "body": self.metadata.network.body,
            "parameters": self.predicts_parameters,
            "licence": self.metadata.licence,
            "source": self.metadata.source,
            "runtime": self.runtime,
            "precision": self.precision,
        }


def load_ready(
    weights: Path | str | None = None,
    body_directory: Path | str | None = None,
    runtime: Runtime | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    shipped: str = DEFAULT_WEIGHTS,
) -> ReadyNetwork:
    """Load the network of a checkpoint, a published snapshot or an exported file for prediction.

    weights: the file; default: `shipped`, a file in the package. body_directory: folder of the licensed files of SMPL
    and MANO. runtime: default: by the suffix of the file. precision, device: see `for_inference` and `choose_device`;
    OpenVINO supports precisions too, and exported networks run on the CPU. Raises UserError if the network cannot be
    loaded.
    """
    chosen = choose_device(device)
    path = shipped_weights(shipped) if weights is None else Path(weights)
    name = "default" if weights is None else path.name
    directory = None if body_directory is None else Path(body_directory)
    if path.suffix.lower() == ".pt2":
        raise InputError(f"{path}: .pt2 networks are no longer supported: export the network to .onnx or .openvino")
    readers = READERS.get(path.suffix.lower())
    if readers is None:
        if runtime not in (None, "torch"):
            raise InputError(
                f"{path.name} is for PyTorch: export it with `i2l-meshnet export --format {runtime}`, or do not choose "
                "a runtime",
                argument="runtime",
            )
        require_precision(precision, chosen)  # before reading the weights
        network, body, metadata = load_network(path, directory)
        ready = for_inference(network, precision, chosen)
        parameters = network.parameter_regressor is not None
        return ReadyNetwork(ready, body, name, metadata, "torch", precision, parameters, chosen)
    runtime = runtime or readers[0]
    if runtime not in readers:
        message = f"{path.name} is for the runtime {' or '.join(readers)}, not {runtime}: export it to {runtime}"
        raise InputError(message, argument="runtime")
    if device not in ("auto", "cpu"):
        argument = "device" if device == "cuda" else "gpu"
        raise InputError(f"{path.name} is an exported network, which runs on the CPU", argument=argument)
    exported, body, metadata = load_exported(path, directory, runtime, precision)
    parameters, cpu = exported.predicts_parameters, torch.device("cpu")
    return ReadyNetwork(exported, body, name, metadata, runtime, precision, parameters, cpu)


def load_exported(
    path: Path, body_directory: Path | None, runtime: Runtime, precision: Precision = "fp32"
) -> tuple[ExportedNetwork, Body, Metadata]:
    """Load an exported file with one of its runtimes. Raises UserError like `load_ready`."""
    description, runner = open_exported(path, runtime, precision)
    body = load_body(description.metadata.network.body, body_directory).eval()
    return ExportedNetwork(description, runner, body), body, description.metadata


def open_exported(path: Path, runtime: Runtime, precision: Precision = "fp32") -> tuple[Description, Runner]:
    """Open an exported file without loading its body. Raises UserError like `load_ready`."""
    if not path.is_file():
        raise FileError(f"no exported network at {path}")
    if precision != "fp32" and runtime != "openvino":
        raise InputError(
            f"only OpenVINO runs exported networks in {precision}: choose the runtime openvino",
            argument="precision",
        )
    if runtime == "openvino":
        return _open_openvino(path, precision)
    return _open_onnx(path)


def _open_onnx(path: Path) -> tuple[Description, Runner]:
    with reading(path, "an ONNX file that ONNX Runtime can read", "export it again"):
        _, session = _onnx_session(path)
    description = Description.from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        return [np.asarray(value) for value in session.run(None, dict(inputs))]

    return description, run


def _onnx_session(path: Path, optimized: bool = True) -> tuple[bytes, onnxruntime.InferenceSession]:
    """The content of an ONNX file and a session for it. Raises OSError, ValueError or an error of onnxruntime."""
    graph = read_bytes(path, MAX_NETWORK_BYTES)
    require_plain_onnx(graph)
    share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # `enable_fallback` would try a second time and print messages.
    return graph, onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def openvino_precisions() -> tuple[Precision, ...]:
    """The precisions that OpenVINO supports on this processor. Raises InputError if it is not installed."""
    capabilities = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    supported = supported_precisions()
    return tuple(precision for precision in _HINTS if precision.upper() in capabilities and precision in supported)


def _open_openvino(path: Path, precision: Precision) -> tuple[Description, Runner]:
    openvino, core = import_openvino(), openvino_core()
    if precision not in openvino_precisions():
        raise InputError(f"OpenVINO does not support {precision} on this processor", argument="precision")
    hints = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    with reading(path, "a network that OpenVINO can read", "export it again"):
        graph, weights = _openvino_parts(path)
        model = core.read_model(graph, openvino.Tensor(np.frombuffer(weights, np.uint8)) if weights else None)
        entry = ["framework", KEY]  # OpenVINO's name of an ONNX file's metadata
        text = model.get_rt_info(entry).astype(str) if model.has_rt_info(entry) else None
        description = Description.from_json(text, path)
        require_bounded_openvino(model, {IMAGE: [1, 3, *description.metadata.network.grid.crop_size]})
        compiled = core.compile_model(model, "CPU", hints)

    def run(inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        return [*compiled(dict(inputs)).values()]

    return description, run


def _openvino_parts(path: Path) -> tuple[bytes, bytes]:
    """Graph and weights. An ONNX graph contains its weights. Broken files raise errors of any class."""
    suffix, weights = path.suffix.lower(), b""
    if suffix == ".onnx":
        # OpenVINO's ONNX reader does not check a graph: a wrong graph can make it hang or end the process.
        graph, _ = _onnx_session(path, optimized=False)
        return graph, weights
    if suffix == ARCHIVE_SUFFIX:
        with zipfile.ZipFile(path) as archive:
            require_stored(archive)
            graph, weights = (archive.read(name) for name in IR_NAMES)
    else:
        graph, binary = read_bytes(path, MAX_NETWORK_BYTES), path.with_suffix(".bin")
        with reading(binary, "the weights of an OpenVINO network", missing=f"it must be beside {path}"):
            weights = read_bytes(binary, MAX_NETWORK_BYTES)
    # Reject other formats that OpenVINO reads, and XML entities, which could expand or include files.
    if not graph.lstrip().startswith((b"<?xml", b"<net")) or b"<!" in graph:
        raise ValueError("its graph is not OpenVINO XML")
    return graph, weights
