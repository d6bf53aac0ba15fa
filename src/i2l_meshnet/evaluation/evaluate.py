"""The `evaluate` command: score a network on a benchmark, print and write the results."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from i2l_meshnet.console import output
from i2l_meshnet.data.sources import open_source
from i2l_meshnet.data.sources.toy import TOY, open_toy
from i2l_meshnet.devices import choose_device, device_numbers
from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation import coco_keypoints, real_multiview, synthetic_pictures
from i2l_meshnet.evaluation.annotated import AnnotatedPictures, DrawingOptions, ScoringOptions, mesh_kinds
from i2l_meshnet.evaluation.benchmark import Benchmark, System, evaluate_in_processes, require_own_folder
from i2l_meshnet.evaluation.protocols import PROTOCOLS
from i2l_meshnet.evaluation.published_sets import PublishedSet
from i2l_meshnet.models.loading import load_network, shipped_weights
from i2l_meshnet.models.memory import SplitBatches
from i2l_meshnet.models.published import run_code


def _published_set(system: System, options: "EvaluateOptions") -> AnnotatedPictures:
    protocol, true = PROTOCOLS[options.data], options.scoring.gt_root
    split = options.split or protocol.split
    drawn = options.data == TOY
    source = open_toy(options.root, split) if drawn else open_source(options.data, options.root, split, true)
    published = PublishedSet(source, protocol, system.body, options.root, options.network.body_dir)
    data = published.scored(system.network.grid, true)
    settings = {
        "data": options.data,
        "split": split,
        "stage": mesh_kinds(options.scoring.stage, system)[-1],
        "weights": system.weights,
        "body": system.body.name,
        "ground_truth_boxes_and_depths": true,
        "as_published": options.scoring.published,
        "left_out": source.table.left_out,
        "notes": list(data.notes),
    }
    return AnnotatedPictures(system, data, options.scoring, options.drawing, settings)


def _real_multiview(system: System, options: "EvaluateOptions") -> Benchmark[Any]:
    return real_multiview.RealMultiview(system, options.every, options.scoring.batch_size)


def _coco_keypoints(system: System, options: "EvaluateOptions") -> Benchmark[Any]:
    assert options.annotations is not None
    assert options.images is not None
    return coco_keypoints.CocoKeypoints(system, options.annotations, options.images, options.scoring.samples)


def _synthetic_pictures(system: System, options: "EvaluateOptions") -> Benchmark[Any]:
    pictures = options.drawing.pictures
    return synthetic_pictures.SyntheticPictures(system, options.root, options.scoring, pictures)


BENCHMARKS: dict[str, Callable[[System, "EvaluateOptions"], Benchmark[Any]]] = {
    **dict.fromkeys(PROTOCOLS, _published_set),
    real_multiview.NAME: _real_multiview,
    coco_keypoints.NAME: _coco_keypoints,
    synthetic_pictures.NAME: _synthetic_pictures,
}
"""Name → function that makes the benchmark. A dataset with a protocol needs only an entry in `PROTOCOLS`."""


@dataclasses.dataclass(frozen=True)
class SystemOptions:
    """The network to evaluate."""

    weights: Path | None = None
    """Checkpoint or published snapshot (snapshot_N.pth.tar). Default: the network in the package."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files."""
    code: Path | None = None
    """Python file that defines the network's own backbone or head, if it has one; see docs/research.md."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto uses a CUDA device if there is one."""
    gpu: str = ""
    """Indices of CUDA devices, such as 0 or 0-3. Each device gets one process and a part of the samples. With --device
    cpu, only the count matters: 0-3 means four processes."""

    @property
    def devices(self) -> list[str]:
        """The device of each process, for `choose_device`. Raise InputError for a wrong list."""
        numbers = device_numbers(self.gpu)
        if numbers is None or self.device == "cpu":
            return [self.device] * len(numbers or [0])
        return [f"cuda:{number}" for number in numbers]

    def load(self, published: bool, device_name: str) -> System:
        """The network and its body on a device. published: as in `ScoringOptions`."""
        device = choose_device(device_name)
        run_code(self.code)
        network, body, _ = load_network(self.weights or shipped_weights(), self.body_dir, published)
        name = "default" if self.weights is None else self.weights.name
        return System(SplitBatches(network.to(device)), body.to(device), device, name)


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Score a network on a benchmark, by the benchmark's own protocol."""

    data: Annotated[str, tyro.conf.arg(constructor=tyro.extras.literal_type_from_choices(BENCHMARKS))]
    """The benchmark. real-multiview needs `data fetch real-multiview`; coco-keypoints needs --annotations and --images;
    synthetic-pictures needs shards of `i2l-lab synthesize pictures --held-out` (see docs/evaluation.md)."""
    root: Path = Path("data")
    """Folder of the datasets (Human36M/, PW3D/ and so on). For synthetic-pictures, the folder of the shards."""
    split: str | None = None
    """Split of the dataset. Default: the benchmark's."""
    annotations: Path | None = None
    """For coco-keypoints: the annotation file, such as person_keypoints_val2017.json."""
    images: Path | None = None
    """For coco-keypoints: the folder of its images."""
    every: int = 4
    """For real-multiview: use every N-th frame. With 1, acceleration errors are reported too."""
    out: Path = Path("evaluation")
    """Folder for the results; created if it does not exist."""
    network: SystemOptions = dataclasses.field(default_factory=SystemOptions)
    scoring: ScoringOptions = dataclasses.field(default_factory=ScoringOptions)
    drawing: DrawingOptions = dataclasses.field(default_factory=DrawingOptions)

    def __post_init__(self) -> None:
        for name in ("annotations", "images"):
            if (getattr(self, name) is not None) != (BENCHMARKS[self.data] is _coco_keypoints):
                raise InputError(f"{coco_keypoints.NAME} needs it, no other benchmark does", argument=name)
        if self.every < 1:
            raise InputError(f"it must be at least 1, not {self.every}", argument="every")


def make_benchmark(options: EvaluateOptions, device: str) -> Benchmark[Any]:
    """The benchmark of the options, with its network on a device."""
    return BENCHMARKS[options.data](options.network.load(options.scoring.published, device), options)


def run(options: EvaluateOptions) -> int:
    """Run the command and return the exit code 0. Raise UserError for errors that the user can fix."""
    first, *others = options.network.devices
    for device in others:
        choose_device(device)  # before anything is loaded
    benchmark = make_benchmark(options, first)
    require_own_folder(options.out, benchmark.identity)
    output(*(f"note: {note}" for note in benchmark.notes))
    evaluate_in_processes(benchmark, [functools.partial(make_benchmark, options, device) for device in others])
    output(*benchmark.write(options.out))
    return 0
