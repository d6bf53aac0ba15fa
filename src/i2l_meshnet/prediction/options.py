"""The options of the `predict` command, in the groups of its --help."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from i2l_meshnet.devices import named_device
from i2l_meshnet.errors import InputError
from i2l_meshnet.models.exported import Runtime
from i2l_meshnet.pictures import MAX_PIXELS
from i2l_meshnet.precision import Precision
from i2l_meshnet.prediction.detect import DEFAULT_THRESHOLD
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.results import SaveOptions

FLAGS = {"matrix": "intrinsics", "field_of_view": "fov", "shown": "show"}
"""Field → name of its flag, where they differ."""


@dataclasses.dataclass(frozen=True)
class InputOptions:
    """The files to read."""

    inputs: Positional[tuple[str, ...]] = ()
    """Images, folders of images, or quoted patterns such as "photos/*.jpg"."""
    recursive: bool = False
    """Also search subfolders."""
    max_pixels: int = MAX_PIXELS
    """Refuse images with more pixels than this."""

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise InputError(f"the minimum is 1, not {self.max_pixels}", argument="max_pixels")


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """The network, and where it runs."""

    weights: Path | None = None
    """Checkpoint, published snapshot, or file written by `export`. Default: the network in the package."""
    runtime: Runtime | None = None
    """PyTorch (torch); ONNX Runtime or OpenVINO for a file written by `export`. Default: chosen by the file."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for networks that predict them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto uses a CUDA device if there is one."""
    gpu: int | None = None
    """Number of the CUDA device where the network runs."""
    precision: Precision = "fp32"
    """fp16 and bf16 run most convolutions in half precision, on devices that support it; docs/performance.md has
    their errors. The default network supports fp32 only."""
    batch_size: int = 16
    """Maximum people per pass of the network."""
    code: Path | None = None
    """Python file that defines the network's own backbone or head, if it has one; see docs/research.md."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"the minimum is 1, not {self.batch_size}", argument="batch_size")
        named_device(self.device, self.gpu)

    @property
    def device_name(self) -> str:
        """The device, for `devices.choose_device`."""
        return named_device(self.device, self.gpu)


@dataclasses.dataclass(frozen=True)
class PeopleOptions:
    """The people to find in an image."""

    boxes: Path | None = None
    """JSON file with boxes of people (x, y, width, height; pixels). It replaces the detector; see docs/predict.md."""
    detect: bool = True
    """Find people with the detector. Otherwise, each whole image is one person."""
    score: float = DEFAULT_THRESHOLD
    """Minimum score of a detected person, 0 to 1."""
    max_people: int = 100
    """Maximum people per image. The detections with the highest scores are kept."""
    root_depth: float | None = None
    """Depth of each person's root joint along the optical axis, metres. Default: solved from the mesh."""
    hands: bool = False
    """Also predict the hands of people, each with its own mesh; see docs/hands.md."""
    hand: Literal["left", "right", "any"] | None = None
    """The images show hands only: left, right, or any side."""
    hand_weights: Path | None = None
    """Checkpoint of another hand network, such as a published snapshot for MANO. Needs --hands or --hand."""

    def __post_init__(self) -> None:
        if self.root_depth is not None and not 0 < self.root_depth < float("inf"):
            raise InputError(f"the depth must be greater than 0 metres, not {self.root_depth:g}", argument="root_depth")
        if not 0 < self.score <= 1:
            raise InputError(f"a score is greater than 0 and at most 1, not {self.score:g}", argument="score")
        if self.max_people < 1:
            raise InputError(f"the minimum is 1, not {self.max_people}", argument="max_people")
        if self.hands and self.hand is not None:
            raise InputError("cannot be combined with hand", argument="hands")
        if self.hand_weights is not None and not self.hands and self.hand is None:
            raise InputError("needs hands or hand", argument="hand_weights")

    @property
    def subject(self) -> str:
        """What is searched in images: "person" or "hand"."""
        return "person" if self.hand is None else "hand"


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """One table instead of result files."""

    parquet: str | None = None
    """Write a table with one row per person into this folder, instead of result files. The folder and the inputs may be
    addresses, such as s3://bucket/people. See docs/fleet.md."""
    engine: Literal["local", "ray"] = "local"
    """Where to run: in this process, or on the workers of a Ray cluster."""
    workers: int = 0
    """Number of Ray workers, each with its own network; 0: one per CPU or GPU of the cluster."""
    gpus_per_worker: float = 0.0
    """GPUs per Ray worker; with 0.5, two workers share a GPU."""

    def __post_init__(self) -> None:
        if self.engine == "ray" and self.parquet is None:
            raise InputError("ray needs parquet, the folder of the table", argument="engine")
        if self.workers < 0:
            raise InputError(f"the minimum is 0, not {self.workers}", argument="workers")
        if not 0 <= self.gpus_per_worker < float("inf"):
            raise InputError(f"the minimum is 0, not {self.gpus_per_worker:g}", argument="gpus_per_worker")


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Turn photos of people into 3D meshes."""

    input: InputOptions
    """The files to read."""
    out: Path = Path("results")
    """Folder for the results; created if it does not exist."""
    network: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    """The network, and where it runs."""
    people: PeopleOptions = dataclasses.field(default_factory=PeopleOptions)
    """The people to find in an image."""
    camera: Intrinsics = dataclasses.field(default_factory=Intrinsics)
    """The camera of all images. Default: EXIF, then a 55° field of view."""
    output: SaveOptions = dataclasses.field(default_factory=SaveOptions)
    """The files to write."""
    table: TableOptions = dataclasses.field(default_factory=TableOptions)
    """One table instead of result files."""

    def __post_init__(self) -> None:
        if self.network.precision != "fp32" and (self.people.hand is not None or self.table.engine == "ray"):
            raise InputError("only fp32 is available for hands alone and on Ray workers", argument="precision")
        if self.network.gpu is not None and self.table.engine == "ray":
            raise InputError("Ray assigns the devices of its workers: leave it out", argument="gpu")

    def by_flag(self) -> dict[str, Any]:
        """Flag name (with underscores) → value, of the options of all groups."""
        groups = (self.input, self.network, self.people, self.camera, self.output, self.table)
        return {FLAGS.get(name, name): value for group in groups for name, value in vars(group).items()}
