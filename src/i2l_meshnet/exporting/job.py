"""The `export` command: a network as one file for another runtime, compared with PyTorch before it is there."""

import dataclasses
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.exporting.graph import trace, write_onnx, write_openvino, write_torch
from i2l_meshnet.exporting.people import deviation, subjects, varied_crops
from i2l_meshnet.exporting.quantize import quantize
from i2l_meshnet.files import atomic_path
from i2l_meshnet.models.checkpoint import Metadata
from i2l_meshnet.models.exported import (
    ARCHIVE_SUFFIX,
    IMAGE,
    READERS,
    Description,
    Runtime,
    constants,
    import_openvino,
    openvino_precisions,
)
from i2l_meshnet.models.loading import HAND_WEIGHTS, default_weights, load_network, shipped_weights
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.precision import Precision
from i2l_meshnet.prediction.detect import PersonDetector
from i2l_meshnet.prediction.hands import HandPredictor
from i2l_meshnet.prediction.predictor import MeshPredictor

SUFFIXES: dict[Runtime, str] = {"onnx": ".onnx", "openvino": ARCHIVE_SUFFIX, "torch": ".pt2"}
LIMIT, INT8_LIMIT = 0.5, 20.0
"""Largest deviations of the mesh that are let through unless the user says otherwise, mm."""


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Write a network as one file for another runtime."""

    out: Path
    """The file to write: .onnx, .openvino or .pt2."""
    format: Runtime | None = None
    """For ONNX Runtime (and all that reads ONNX), OpenVINO, or torch.export; told by the ending of --out."""
    weights: Path | None = None
    """Checkpoint or snapshot of the network; the one that ships with the package if not given."""
    hand: bool = False
    """The hand network that ships, in place of the body's."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for a network that predicts them."""
    int8: bool = False
    """Convolutions in 8 bits, their ranges taken from pictures; for onnx and openvino."""
    pictures: Path | None = None
    """Folder of pictures to check the file with, and for --int8 to take ranges from; if not given, three that ship with
    the package: give your own kind of pictures for --int8."""
    calibration: int = 64
    """Crops that --int8 takes ranges from: the people of the pictures, moved and scaled."""
    limit: float | None = None
    """Largest deviation of the mesh from PyTorch's, mm, above which nothing is written; 0.5, with --int8 20."""

    def __post_init__(self) -> None:
        if self.runtime not in SUFFIXES or self.out.suffix.lower() != SUFFIXES[self.runtime]:
            endings = ", ".join(f"{suffix} for {name}" for name, suffix in SUFFIXES.items())
            raise InputError(f"{self.out} has not the ending of its format: name it {endings}")
        if self.hand and self.weights is not None:
            raise InputError("--hand is the hand network that ships, --weights another one; give one of them")
        if self.int8 and self.runtime == "torch":
            raise InputError("--int8 is for onnx and openvino: leave it out, or choose another --format")
        if self.calibration < 1 or (self.limit is not None and not self.limit > 0):
            raise InputError("--calibration is at least 1, --limit greater than 0")

    @property
    def runtime(self) -> Runtime | None:
        """The format, given or told by the ending."""
        return self.format or next(iter(READERS.get(self.out.suffix.lower(), ())), None)


def run(options: ExportOptions) -> int:
    """Writes the file and returns the exit code 0.

    Raises UserError, and leaves what was at `out` as it was, if the network cannot be loaded or converted or if its
    meshes deviate from PyTorch's by more than the limit.
    """
    runtime = options.runtime
    assert runtime is not None
    if runtime == "openvino":
        import_openvino()
    path = options.weights or (shipped_weights(HAND_WEIGHTS) if options.hand else default_weights())
    network, body, metadata = load_network(path, options.body_dir)
    expected = _predictor(options.weights, body, options.body_dir)
    seen = subjects(expected, options.pictures)
    crops: list[Mapping[str, np.ndarray]] = []
    if options.int8:
        others = constants(metadata.network, body)
        crops = [{IMAGE: crop.numpy(), **others} for crop in varied_crops(expected, seen, options.calibration)]
    limit = options.limit or (INT8_LIMIT if options.int8 else LIMIT)
    with atomic_path(options.out) as temporary:
        write(network, metadata, runtime, temporary, crops)
        found = {}
        several = runtime == "openvino" and not isinstance(expected, HandPredictor)
        for precision in openvino_precisions() if several else ("fp32",):
            found[precision] = deviation(
                expected, _predictor(temporary, body, options.body_dir, runtime, precision), seen
            )
        if not found["fp32"].mesh <= limit:
            advice = "calibrate with more pictures of your kind (--pictures), or raise" if options.int8 else "see"
            raise InputError(
                f"{options.out} is not written: {found['fp32']}, more than the limit of {limit:g} mm; {advice} --limit"
            )
        size = temporary.stat().st_size / 1e6
    people = found["fp32"].people
    print(f"{options.out}: {runtime}, {'int8' if options.int8 else 'fp32'}, {size:.1f} MB; checked on {people} people")
    for precision, result in found.items():
        print(f"{'int8' if options.int8 and precision == 'fp32' else precision}: {result}")
    return 0


def write(
    network: MeshNet,
    metadata: Metadata,
    runtime: Runtime,
    path: Path,
    calibration: list[Mapping[str, np.ndarray]] | None = None,
) -> None:
    """Writes a network's file. calibration: inputs by name, for convolutions in 8 bits; in 32 bits without.

    Raises InputError where a converter is not installed.
    """
    program, outputs = trace(network)
    fitted = None if network.parameter_regressor is None else network.parameter_fit
    fit = None if fitted is None else fitted.state_dict()
    description = Description(metadata, outputs, "int8" if calibration else "fp32", version("i2l-meshnet"), fit)
    if runtime == "torch":
        write_torch(program, description, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        last = path if runtime == "onnx" else Path(folder) / "last.onnx"
        first = Path(folder) / "first.onnx" if calibration else last
        write_onnx(program, description, first)
        if calibration:
            quantize(first, last, calibration)
        if runtime == "openvino":
            write_openvino(last, path)


def _predictor(
    weights: Path | None,
    body: Body,
    body_directory: Path | None,
    runtime: Runtime | None = None,
    precision: Precision = "fp32",
) -> MeshPredictor:
    """What `predict` uses on the CPU; without the detector, whole pictures are looked at."""
    if body.skeleton.root == "Wrist":
        return HandPredictor.load(weights, "cpu", body_directory, runtime=runtime)
    loaded = MeshPredictor.load(weights, "cpu", body_directory, detect=False, precision=precision, runtime=runtime)
    found = assets.find("detector")
    loaded.detector = None if found is None else PersonDetector(found)
    return loaded
