"""The `evaluate` command: a network on a benchmark, its numbers printed and written."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.data.multiview import Detect
from i2l_meshnet.data.sources import ADAPTERS, Source, open_source
from i2l_meshnet.data.targets import TargetBuilder, read_regressor
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation import clips, held_out, overlays, photos, plots
from i2l_meshnet.evaluation.metrics import acceleration_error
from i2l_meshnet.evaluation.protocols import ACCELERATION, PROTOCOLS, Metric, Protocol
from i2l_meshnet.evaluation.report import MILLIMETRES, Evaluation, MeshErrors
from i2l_meshnet.evaluation.scoring import (
    FittedMeshes,
    JointReader,
    Meshes,
    OwnJoints,
    ReleasedTruth,
    ScoreKeeper,
    Scorer,
    Scores,
    joint_rows,
    metrics_for,
    read_released,
)
from i2l_meshnet.evaluation.submission import write_submission
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.fitting import camera_params
from i2l_meshnet.models.loading import choose_device, default_weights, load_network
from i2l_meshnet.models.memory import InParts
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.pictures import write_picture

NO_REGRESSOR = "the network has no (trained) parameter regressor: evaluate it with --stage lixel"


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Score a network on a benchmark, by the benchmark's own protocol."""

    data: Literal[
        "Human36M",
        "PW3D",
        "FreiHAND",
        "MSCOCO",
        "SURREAL",
        "Custom",
        "real-multiview",
        "coco-keypoints",
        "synthetic-pictures",
    ]
    """What to evaluate on. real-multiview needs no download of yours, coco-keypoints --annotations and --images,
    synthetic-pictures shards of `synthesize pictures --held-out` (see docs/evaluation.md)."""
    weights: Path | None = None
    """Checkpoint; the network that ships with the package if neither this nor --snapshot is given."""
    snapshot: Path | None = None
    """Published snapshot (snapshot_N.pth.tar) in place of a checkpoint."""
    root: Path = Path("data")
    """Folder that holds the data sets' folders (Human36M/, PW3D/ and so on); for synthetic-pictures, that of the
    shards."""
    annotations: Path | None = None
    """For coco-keypoints: the file, such as person_keypoints_val2017.json."""
    images: Path | None = None
    """For coco-keypoints: the folder of its pictures."""
    split: str | None = None
    """Split of the data set; the benchmark's if not given."""
    stage: Literal["auto", "lixel", "param"] = "auto"
    """lixel: score the network's own mesh only; param: the body model's as well; auto: whatever the network has."""
    gt_root: bool = False
    """Ground-truth boxes and root depths in place of RootNet's (`use_gt_info` of the published code)."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a CUDA device where there is one."""
    batch_size: int = 32
    """Samples in one pass of the network."""
    workers: int = 2
    """Threads that read pictures."""
    samples: int | None = None
    """Evaluate on the first so many samples only."""
    every: int = 4
    """Of real-multiview: take every so-manieth frame; with 1 the errors of accelerations are told too."""
    out: Path = Path("evaluation")
    """Folder for the results; it is made if it is missing."""
    pictures: int = 8
    """How many of the worst samples to draw."""
    plots: bool = True
    """Draw the error histogram and the joints' errors (needs the extra `plots`)."""
    published: bool = False
    """Repeat the published code's ways: pictures decoded whole; FreiHAND's param stage in millimetres relative to the
    root, and its middle fingertip at the neighbouring vertex."""

    def __post_init__(self) -> None:
        if self.weights is not None and self.snapshot is not None:
            raise InputError("give either --weights or --snapshot, not both")
        given = [path is not None for path in (self.annotations, self.images)]
        if not (all(given) if self.data == photos.NAME else not any(given)):
            raise InputError(f"--annotations and --images belong to --data {photos.NAME}, which needs both")
        if self.batch_size < 1 or self.workers < 1 or self.pictures < 0:
            raise InputError("--batch-size and --workers are at least 1, --pictures at least 0")
        if (self.samples is not None and self.samples < 1) or self.every < 1:
            raise InputError("--samples and --every are at least 1")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A data set that is ready to be scored, and how.

    source: its boxes of the network's aspect. scorer: None where no sample has a truth. joints: names of the scored
    joints. readout: rows of the root and the scored joints, for all vertices of the predicted body. notes: what the
    user should know of the numbers.
    """

    source: Source
    protocol: Protocol
    scorer: Scorer | None
    joints: tuple[str, ...]
    readout: Float[Tensor, "r v"]
    notes: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Benchmark":
        """The same with its tensors on `device`."""
        scorer = None if self.scorer is None else self.scorer.to(device)
        return dataclasses.replace(self, scorer=scorer, readout=self.readout.to(device))


@dataclasses.dataclass(frozen=True)
class Submission:
    """Joints and vertices of every sample, as they go to a benchmark's server."""

    joints: Float[np.ndarray, "n j 3"]
    vertices: Float[np.ndarray, "n v 3"]


MakePredict = Callable[[LixelNetwork, Body, torch.device], photos.Predict]


def run(
    options: EvaluateOptions,
    make_detector: Callable[[], Detect] | None = None,
    make_predict: MakePredict | None = None,
) -> int:
    """Does the job and returns the exit code 0. Raises UserError, in one line, for whatever stops it.

    make_detector: makes the person detector, which only `real-multiview` needs. make_predict: makes what places a
    network's meshes in photos, for `coco-keypoints`.
    """
    console = Console(highlight=False)
    device = choose_device(options.device)
    named = options.snapshot or options.weights
    path, is_snapshot = named or default_weights(), None if options.snapshot is None else True
    network, body, _ = load_network(path, options.body_dir, is_snapshot, options.published)
    network, body = InParts(network.to(device)), body.to(device)
    weights = "default" if named is None else named.name
    if options.data == clips.NAME:
        _show(
            console,
            clips.evaluate_clips(
                network, body, make_detector, device, options.batch_size, options.out, weights, options.every
            ),
        )
        return 0
    if options.data == held_out.NAME:
        _show(
            console,
            held_out.evaluate_pictures(
                network,
                body,
                device,
                options.batch_size,
                options.root,
                options.out,
                weights,
                options.samples,
                options.pictures,
                console,
            ),
        )
        return 0
    if options.annotations is not None and options.images is not None:
        if make_predict is None:
            raise InputError(f"{photos.NAME} needs a predictor, and none was given")
        predict = make_predict(network, body, device)
        files = (options.annotations, options.images, options.out)
        _show(console, photos.evaluate_photos(body, predict, *files, weights, options.samples, console))
        return 0
    protocol = PROTOCOLS[options.data]
    split = options.split or protocol.split
    source = open_source(options.data, options.root, split, options.gt_root)
    benchmark = build_benchmark(
        source, protocol, body, network.grid, options.root, options.body_dir, options.gt_root
    ).to(device)
    for note in benchmark.notes:
        _say(console, f"note: {note}")
    kinds = mesh_kinds(options.stage, network.parameter_regressor is not None)
    start = time.perf_counter()
    evaluation, submission = evaluate(
        network,
        body,
        benchmark,
        kinds,
        device,
        batch_size=options.batch_size,
        workers=options.workers,
        samples=options.samples,
        true_depth=options.gt_root,
        published=options.published,
        console=console,
    )
    seconds = time.perf_counter() - start
    settings = {
        "data": options.data,
        "split": split,
        "stage": kinds[-1],
        "weights": weights,
        "body": body.name,
        "ground_truth_boxes_and_depths": options.gt_root,
        "as_published": options.published,
        "left_out": source.table.left_out,
        "notes": list(benchmark.notes),
        "seconds": round(seconds, 3),
    }
    evaluation = dataclasses.replace(evaluation, settings=settings)
    for line in evaluation.lines():
        _say(console, line)
    if submission is not None:
        path, archive = write_submission(submission.joints, submission.vertices, options.out)
        _say(console, f"Saved at {path} (zipped for the server: {archive.name})")
    evaluation.save(options.out)
    if options.plots and not plots.available():
        _say(console, 'no plots: they need Matplotlib; install it with pip install "i2l-meshnet[plots]"')
    elif options.plots:
        plots.save_plots(evaluation, options.out)
    draw_samples(network, body, benchmark, evaluation, kinds, device, options.out, options.pictures, options.gt_root)
    table = evaluation.group_table()
    if table is not None:
        console.print(table)
    truth = f"{evaluation.scored} with ground truth"
    _say(console, f"{len(evaluation)} samples, {truth}, {seconds:.1f} s; results in {options.out}")
    return 0


def mesh_kinds(stage: Literal["auto", "lixel", "param"], regresses_parameters: bool) -> tuple[str, ...]:
    """The meshes that a stage scores. Raises InputError where the network lacks one."""
    if stage == "param" and not regresses_parameters:
        raise InputError(NO_REGRESSOR)
    return ("lixel",) if stage == "lixel" or not regresses_parameters else ("lixel", "param")


def build_benchmark(
    source: Source,
    protocol: Protocol,
    body: Body,
    grid: LixelGrid,
    root: Path,
    body_directory: Path | None = None,
    true_depth: bool = False,
) -> Benchmark:
    """Finds the truth of a data set and what reads the scored joints off `body`, which the network predicts.

    root: folder that holds the data sets' folders. true_depth: lixel meshes will be put at the true root's depth.
    Raises InputError where the body has not the protocol's joints, or depths are wanted that are not known;
    FileError for a missing file. The result is on the CPU.
    """
    table, notes = source.table, []
    root_joint = protocol.root or table.skeleton.root
    shared = (joint for joint in table.skeleton.joints if joint != root_joint and joint in body.skeleton.joints)
    scored = protocol.scored or tuple(shared)
    regressor = None
    if protocol.joints is not None:
        regressor = _read_regressor(root, ADAPTERS[protocol.source].joint_regressor or "", len(protocol.joints))

    def rows(of: Body) -> Float[Tensor, "r v"]:
        # The set's regressor is made for the vertices of the protocol's body.
        if regressor is not None and protocol.joints is not None and of.name == protocol.body:
            if regressor.shape[1] != of.joint_regressor.shape[1]:
                raise FileError(
                    f"the joint regressor of {source.name} is for {regressor.shape[1]} vertices, the body "
                    f"{of.name!r} has {of.joint_regressor.shape[1]}: download it again"
                )
            return joint_rows(protocol.joints, root_joint, scored, regressor, of.name)
        return joint_rows(of.skeleton.joints, root_joint, scored, of.joint_regressor.cpu(), of.name)

    same = body.name == protocol.body
    if not same:
        notes.append(
            f"the network predicts {body.name!r}, not {protocol.body!r}: joints of the same names are compared, "
            "though the two bodies place them a little differently, and vertices are not scored"
        )
    released = None
    if protocol.truth_files is not None and source.split == protocol.split:
        first, second = (source.folder / path for path in protocol.truth_files)
        if first.is_file() and second.is_file():
            released = read_released((first, second), len(source), len(table.skeleton))
    fitted = bool(table.arrays["fit_known"].any())
    known = released is not None or (fitted if protocol.truth == "fit" else bool(table.arrays["has_depth"].any()))
    _check_depths(source, true_depth, known)
    if not known:
        notes.append(f"{source.name} {source.split} has no 3D ground truth here: nothing is scored")
        return Benchmark(fit_boxes(source, grid.crop_size), protocol, None, scored, rows(body), tuple(notes))

    whole = same and protocol.vertices and (released is not None or fitted)
    truth: OwnJoints | FittedMeshes | ReleasedTruth
    if released is not None:
        truth = ReleasedTruth(*released, table.skeleton, root_joint, scored, whole)
    else:
        fits, bodies = None, list[Body]()
        if whole or protocol.truth == "fit":
            bodies = [load_body(name, body_directory) for name in table.bodies]
            fits = TargetBuilder(bodies, grid, table.skeleton)
        if protocol.truth == "fit" and fits is not None:
            truth = FittedMeshes(fits, JointReader(rows(bodies[0]), whole))
        else:
            truth = OwnJoints(table.skeleton, root_joint, scored, fits)
    readout = rows(body)
    scorer = Scorer(JointReader(readout, whole), truth, metrics_for(protocol, whole), grid)
    return Benchmark(fit_boxes(source, grid.crop_size), protocol, scorer, scored, readout, tuple(notes))


def fit_boxes(source: Source, crop_size: tuple[int, int]) -> Source:
    """The source with its boxes cut to the aspect of the network's crop (height, width) about their centres.

    RootNet's and the published code's boxes are square; an upright person needs the middle of theirs only.
    """
    box = np.array(source.table.arrays["box"])
    aspect = crop_size[1] / crop_size[0]
    size = np.stack([np.minimum(box[:, 2], box[:, 3] * aspect), np.minimum(box[:, 3], box[:, 2] / aspect)], 1)
    box[:, :2] += (box[:, 2:] - size) / 2
    box[:, 2:] = size
    return dataclasses.replace(
        source, table=dataclasses.replace(source.table, arrays={**source.table.arrays, "box": box})
    )


@torch.inference_mode()
def evaluate(
    network: LixelNetwork,
    body: Body,
    benchmark: Benchmark,
    kinds: Sequence[str],
    device: torch.device | str = "cpu",
    *,
    batch_size: int = 32,
    workers: int = 2,
    samples: int | None = None,
    true_depth: bool = False,
    published: bool = False,
    console: Console | None = None,
) -> tuple[Evaluation, Submission | None]:
    """Runs the network on a benchmark's samples and scores its meshes, batch by batch, on the device.

    network, body, benchmark: on `device`. kinds: the meshes to score, `lixel` or `lixel` and `param`. samples: how
    many, from the first; all if None. published: pictures are decoded whole, and see `submitted`. The submission is
    None unless the benchmark has a server and all samples were asked for. Raises UserError, in one line that names
    the picture or annotation, where a picture is missing or the network gives values that are not finite.
    """
    source, scorer = benchmark.source, benchmark.scorer
    dataset = PersonDataset(source, crop_size=network.grid.crop_size, full_decode=published)
    count = len(dataset) if samples is None else min(samples, len(dataset))
    submits = benchmark.protocol.submission and source.split == benchmark.protocol.split and count == len(dataset)
    if submits and source.table.left_out:
        raise InputError(
            f"{sum(source.table.left_out.values())} pictures of {source.name} {source.split} were left out "
            f"({', '.join(source.table.left_out)}), but its server wants all: complete the RootNet output"
        )
    keeper = None if scorer is None else ScoreKeeper(scorer, true_depth)
    sent: list[tuple[Tensor, Tensor]] = []
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console is None or not console.is_terminal) as progress:
        bar = progress.add_task("evaluate", total=count)
        for numbers, batch in _batches(dataset, count, batch_size, workers):
            sample = batch.to(device)
            meshes = predict_meshes(network, body, sample, kinds)
            _require_finite(meshes, sample, source, numbers)
            if keeper is not None:
                keeper.add(meshes, sample, numbers.to(device))
            if submits:
                depth = true_root_depth(benchmark, sample, numbers.to(device), true_depth)
                sent.append(submitted(meshes, sample, depth, network.grid, benchmark.readout, published))
            progress.update(bar, advance=len(numbers))
    errors: dict[str, MeshErrors] = {}
    metrics, frames = tuple[Metric, ...](), source.table.consecutive(count)
    if scorer is not None and keeper is not None:
        metrics = (*scorer.metrics, ACCELERATION) if frames else scorer.metrics
        for kind, found in keeper.scores().items():
            errors[kind] = mesh_errors(found.to("cpu", torch.float64), scorer.metrics, frames)
    evaluation = Evaluation(
        settings={"data": source.name, "split": source.split},
        metrics=metrics,
        joints=benchmark.joints,
        ids=tuple(int(number) for number in source.table.arrays["id"][:count]),
        pictures=tuple(source.table.image_path(index) for index in range(count)),
        groups=tuple(source.table.group(index) for index in range(count)),
        group_name=benchmark.protocol.group,
        errors=errors,
    )
    if not submits:
        return evaluation, None
    joints, vertices = (torch.cat(parts).cpu().numpy() for parts in zip(*sent, strict=True))
    return evaluation, Submission(joints, vertices)


def mesh_errors(scores: Scores, metrics: Sequence[Metric], frames: Sequence[tuple[int, int, int]]) -> MeshErrors:
    """Scores in printed units, with a last column for accelerations if there are `frames`: rows before, at, after."""
    values = scores.metrics * torch.tensor([metric.factor for metric in metrics], dtype=scores.metrics.dtype)
    if frames:
        rows = torch.tensor(frames)
        offsets = scores.offsets[rows]
        column = values.new_full((len(values), 1), torch.nan)
        column[rows[:, 1]] = acceleration_error(offsets, torch.zeros_like(offsets)) * ACCELERATION.factor
        values = torch.cat([values, column], 1)
    return MeshErrors(values.numpy(), (scores.offsets.norm(dim=-1) * MILLIMETRES).numpy())


def predict_meshes(network: LixelNetwork, body: Body, sample: Sample, kinds: Sequence[str]) -> Meshes:
    """The meshes of a batch of crops: lixels, and metres from the body model if `kinds` has `param`."""
    output = network(sample.network_input())
    if "param" not in kinds:
        return Meshes(output.vertices.float())
    if output.params is None:
        raise InputError(NO_REGRESSOR)
    params = camera_params(network, output, sample.crop, sample.annotation.camera)
    return Meshes(output.vertices.float(), body(params).vertices)


def true_root_depth(
    benchmark: Benchmark, sample: Sample, numbers: Int[Tensor, "b"], true_depth: bool
) -> Float[Tensor, "b"]:
    """Depth of the root, m, to put lixel meshes at: the annotation's, or the truth's if `true_depth`."""
    if not true_depth or benchmark.scorer is None:
        return sample.annotation.root_depth
    return benchmark.scorer.truth(sample, numbers).points.root[:, 2]


def place_meshes(
    meshes: Meshes,
    sample: Sample,
    root_depth: Float[Tensor, "b"],
    grid: LixelGrid,
    readout: Float[Tensor, "r v"],
) -> dict[str, Float[Tensor, "b v 3"]]:
    """Whole meshes in the camera frame, m, by kind. The parametric mesh's root is put where the lixel mesh's is."""
    lixel = grid.to_camera(meshes.lixel, sample.crop, sample.annotation.camera, root_depth)
    if meshes.param is None:
        return {"lixel": lixel}
    root = readout[:1]
    return {"lixel": lixel, "param": meshes.param - root @ meshes.param + root @ lixel}


def submitted(
    meshes: Meshes,
    sample: Sample,
    root_depth: Float[Tensor, "b"],
    grid: LixelGrid,
    readout: Float[Tensor, "r v"],
    published: bool = False,
) -> tuple[Float[Tensor, "b j 3"], Float[Tensor, "b v 3"]]:
    """Joints and vertices of the stage's last mesh, camera frame, metres in both stages.

    published: the parity switch `freihand_millimetres`; the parametric mesh is relative to its root, in millimetres,
    as the published code sends it.
    """
    *_, vertices = place_meshes(meshes, sample, root_depth, grid, readout).values()
    if published and meshes.param is not None:
        vertices = (meshes.param - readout[:1] @ meshes.param) * MILLIMETRES
    return readout[1:] @ vertices, vertices


@torch.inference_mode()
def draw_samples(
    network: LixelNetwork,
    body: Body,
    benchmark: Benchmark,
    evaluation: Evaluation,
    kinds: Sequence[str],
    device: torch.device | str,
    folder: Path,
    count: int,
    true_depth: bool = False,
) -> list[Path]:
    """Draws the `count` worst samples (the first ones where nothing is scored) as `worst_1.jpg`, ... in `folder`."""
    dataset = PersonDataset(benchmark.source, crop_size=network.grid.crop_size)
    faces = body.faces.cpu().numpy()
    paths = []
    for place, row in enumerate(evaluation.worst(count), 1):
        sample = dataset.batch([row]).to(device)
        depth = true_root_depth(benchmark, sample, torch.tensor([row], device=device), true_depth)
        if not bool(torch.isfinite(depth).all()):
            continue
        meshes = predict_meshes(network, body, sample, kinds)
        placed = place_meshes(meshes, sample, depth, network.grid, benchmark.readout)
        captions = {"": f"{evaluation.ids[row]} {Path(evaluation.pictures[row]).name}"}
        for kind in placed:
            captions[kind] = kind
            if kind in evaluation.errors:
                metric, value = evaluation.metrics[0], evaluation.errors[kind].metrics[row, 0]
                captions[kind] = f"{kind}: {metric.label} {value:.1f} {metric.unit}"
        annotation = sample.annotation[0].to("cpu")
        picture = overlays.draw_sample(
            benchmark.source.image_path(row),
            annotation.box.numpy(),
            {kind: mesh[0].cpu().numpy() for kind, mesh in placed.items()},
            faces,
            (float(annotation.camera.focal[0]), float(annotation.camera.focal[1])),
            (float(annotation.camera.center[0]), float(annotation.camera.center[1])),
            captions,
        )
        paths.append(folder / f"{'worst' if evaluation.errors else 'sample'}_{place}.jpg")
        write_picture(paths[-1], picture)
    return paths


def _batches(
    dataset: PersonDataset, count: int, batch_size: int, workers: int
) -> Iterator[tuple[Int[Tensor, "b"], Sample]]:
    """The first `count` samples in order, in batches that threads read ahead (OpenCV frees the interpreter)."""
    starts = iter(range(0, count, batch_size))
    waiting: deque[tuple[range, Future[Sample]]] = deque()
    with ThreadPoolExecutor(workers) as pool:

        def read_on() -> None:
            start = next(starts, None)
            if start is not None:
                numbers = range(start, min(start + batch_size, count))
                waiting.append((numbers, pool.submit(dataset.batch, numbers)))

        try:
            for _ in range(workers + 1):
                read_on()
            while waiting:
                numbers, future = waiting.popleft()
                batch = future.result()
                read_on()
                yield torch.tensor(numbers), batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _require_finite(meshes: Meshes, sample: Sample, source: Source, numbers: Int[Tensor, "b"]) -> None:
    """Raises InputError that names the first annotation for which a mesh has values that are not finite."""
    finite = torch.isfinite(meshes.lixel).flatten(1).all(1)
    if meshes.param is not None:
        finite &= torch.isfinite(meshes.param).flatten(1).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0, 0])
        path = source.table.image_path(int(numbers[row]))
        raise InputError(
            f"the network gives NaN or infinite values for annotation {int(sample.annotation.id[row])} ({path}): "
            "its weights are damaged, or its training diverged"
        )


def _check_depths(source: Source, true_depth: bool, known: bool) -> None:
    if true_depth and not known:
        raise InputError(f"{source.name} {source.split} has no 3D ground truth here: evaluate it without --gt-root")
    missing = int(np.isnan(source.table.arrays["root_depth"]).sum())
    if known and missing and not true_depth:
        raise InputError(
            f"{missing} of {len(source)} annotations of {source.name} {source.split} have no root depth from RootNet: "
            "evaluate with --gt-root"
        )


def _read_regressor(root: Path, path: str, joints: int) -> Float[Tensor, "j v"]:
    regressor = read_regressor(root / path)
    if len(regressor) != joints:
        raise FileError(f"{root / path} has {len(regressor)} rows, not one for each of {joints} joints")
    return regressor


def _show(console: Console, found: Iterable[str | Table]) -> None:
    for item in found:
        if isinstance(item, str):
            _say(console, item)
        else:
            console.print(item)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
