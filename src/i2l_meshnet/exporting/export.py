"""The `export` command: writes a network as one file for another runtime, after comparing it with PyTorch."""

import dataclasses
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.console import output
from i2l_meshnet.errors import InputError
from i2l_meshnet.exporting.deviation import deviation, subjects
from i2l_meshnet.exporting.graph import trace, write_onnx, write_openvino
from i2l_meshnet.io import atomic_path
from i2l_meshnet.models.checkpoint import Metadata
from i2l_meshnet.models.exported import (
    ARCHIVE_SUFFIX,
    Description,
    Runtime,
    openvino_precisions,
)
from i2l_meshnet.models.loading import DEFAULT_WEIGHTS, HAND_WEIGHTS, load_network, shipped_weights
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.published import run_code
from i2l_meshnet.precision import Precision
from i2l_meshnet.prediction.detect import PersonDetector
from i2l_meshnet.prediction.hands import HandPredictor
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.runtimes import import_openvino

Format = Literal["onnx", "openvino"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ARCHIVE_SUFFIX}


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Write a network as one file for another runtime."""

    out: Path
    """The file to write: .onnx or .openvino."""
    format: Format | None = None
    """For ONNX Runtime (and everything that reads ONNX) or for OpenVINO. Default: from the suffix of --out."""
    weights: Path | None = None
    """Checkpoint or snapshot of the network. Default: the network in the package."""
    hand: bool = False
    """Export the hand network in the package instead of the body network."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for networks that predict them."""
    code: Path | None = None
    """Python file that defines the network's own backbone or head, if it has one; see docs/research.md."""
    pictures: Path | None = None
    """Folder of images to check the file with. Default: three images that ship with the package."""
    gpu: int | None = None
    """Number of the CUDA device where PyTorch computes the meshes to compare with. Default: the CPU."""
    limit: float = 0.5
    """Maximum deviation of the mesh from PyTorch's, mm. Above it, nothing is written."""

    def __post_init__(self) -> None:
        if self.out.suffix.lower() == ".pt2":
            raise InputError(f"{self.out}: .pt2 export was removed: export to .onnx or .openvino", argument="out")
        if self.runtime is None or self.out.suffix.lower() != SUFFIXES[self.runtime]:
            endings = ", ".join(f"{suffix} for {name}" for name, suffix in SUFFIXES.items())
            raise InputError(f"{self.out} does not end like its format: name it {endings}", argument="out")
        if self.hand and self.weights is not None:
            raise InputError("this is the hand network in the package: leave out the weights", argument="hand")
        if not self.limit > 0:
            raise InputError(f"it must be greater than 0, not {self.limit:g}", argument="limit")

    @property
    def runtime(self) -> Format | None:
        """The format, given or from the suffix; None if neither names one."""
        suffix = self.out.suffix.lower()
        return self.format or next((name for name, own in SUFFIXES.items() if own == suffix), None)


def run(options: ExportOptions) -> int:
    """Write the file and return the exit code 0.

    Raises UserError, and leaves what was at `out` as it was, if the network cannot be loaded or converted or if its
    meshes deviate from PyTorch's by more than the limit.
    """
    runtime = options.runtime
    assert runtime is not None
    if runtime == "openvino":
        import_openvino()
    path = options.weights or shipped_weights(HAND_WEIGHTS if options.hand else DEFAULT_WEIGHTS)
    run_code(options.code)
    network, body, metadata = load_network(path, options.body_dir)
    device = "cpu" if options.gpu is None else f"cuda:{options.gpu}"
    expected = _predictor(options.weights, body, options.body_dir, device=device)
    seen = subjects(expected, options.pictures)
    with atomic_path(options.out) as temporary:
        write(network, metadata, runtime, temporary)
        found = {}
        several = runtime == "openvino" and not isinstance(expected, HandPredictor)
        for precision in openvino_precisions() if several else ("fp32",):
            found[precision] = deviation(
                expected, _predictor(temporary, body, options.body_dir, runtime, precision), seen
            )
        if not found["fp32"].mesh <= options.limit:
            raise InputError(
                f"{options.out} is not written: {found['fp32']}, more than the limit of {options.limit:g} mm",
                argument="limit",
            )
        size = temporary.stat().st_size / 1e6
    people = found["fp32"].people
    output(f"{options.out}: {runtime}, {size:.1f} MB; checked on {people} people")
    for precision, result in found.items():
        output(f"{precision}: {result}")
    return 0


def write(network: MeshNet, metadata: Metadata, runtime: Format, path: Path) -> None:
    """Write a network's file. Raise InputError if a converter is not installed."""
    program, outputs = trace(network)
    fitted = None if network.parameter_regressor is None else network.parameter_fit
    fit = None if fitted is None else fitted.state_dict()
    description = Description(metadata, outputs, version("i2l-meshnet"), fit)
    if runtime == "onnx":
        write_onnx(program, description, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "network.onnx"
        write_onnx(program, description, onnx)
        write_openvino(onnx, path)


def _predictor(
    weights: Path | None,
    body: Body,
    body_directory: Path | None,
    runtime: Runtime | None = None,
    precision: Precision = "fp32",
    device: str = "cpu",
) -> MeshPredictor:
    """The predictor that `predict` uses. Without the detector, each whole image is one person."""
    if body.kind != "body":
        return HandPredictor.load(weights, device, body_directory, runtime=runtime)
    loaded = MeshPredictor.load(weights, device, body_directory, detect=False, precision=precision, runtime=runtime)
    found = assets.find("detector")
    loaded.detector = None if found is None else PersonDetector(found)
    return loaded
