"""Benchmarks of annotated images: predict meshes from crops, score them by a protocol, draw the worst samples."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from rich.table import Table
from torch import Tensor

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.data.sources import Source
from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation import overlays, plots
from i2l_meshnet.evaluation.benchmark import WHOLE, Benchmark, Share, System
from i2l_meshnet.evaluation.metrics import acceleration_error
from i2l_meshnet.evaluation.protocols import ACCELERATION, Metric
from i2l_meshnet.evaluation.report import MILLIMETRES, Evaluation, MeshErrors
from i2l_meshnet.evaluation.scoring import Meshes, ScoreKeeper, Scorer, Scores
from i2l_meshnet.evaluation.submission import write_submission
from i2l_meshnet.models.fitting import camera_params
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.pictures import write_picture

StageName = Literal["auto", "lixel", "param"]
DRAWN = ("worst", "sample")
"""Starts of the names of drawings: with and without ground truth."""


@dataclasses.dataclass(frozen=True)
class ScoringOptions:
    """How samples are predicted and scored."""

    stage: StageName = "auto"
    """lixel: score the lixel mesh only; param: the parametric mesh too; auto: what the network has."""
    gt_root: bool = False
    """Use ground-truth boxes and root depths instead of RootNet's (`use_gt_info` of the published code)."""
    published: bool = False
    """Use published behaviour: images decoded at full size; FreiHAND's parametric meshes in millimetres relative to the
    root, and the tip of the middle finger at vertex 445."""
    samples: int | None = None
    """Evaluate on the first N samples only."""
    batch_size: int = 32
    """Samples per pass of the network."""
    workers: int = 2
    """Threads that read images."""

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"it must be at least 1, not {value}", argument=name)


@dataclasses.dataclass(frozen=True)
class DrawingOptions:
    """Which results are drawn."""

    pictures: int = 8
    """Number of the worst samples to draw."""
    plots: bool = True
    """Draw plots: error histogram, errors by joint (needs the extra `plots`)."""

    def __post_init__(self) -> None:
        if self.pictures < 0:
            raise InputError(f"it must be at least 0, not {self.pictures}", argument="pictures")


@dataclasses.dataclass(frozen=True)
class ScoredSource:
    """A dataset and how the meshes of a network are scored on it.

    source: the boxes have the aspect of the network's crop. scorer: None if no sample has ground truth. joints: names
    of the scored joints. readout: rows that regress the root and the scored joints from all vertices of the predicted
    body. group: the name of a group of samples, such as "action". submits: whether predictions are written for the
    benchmark's server. draws_truth: whether the true mesh is drawn too. notes: remarks on the numbers for the user.
    """

    source: Source
    scorer: Scorer | None
    joints: tuple[str, ...]
    readout: Float[Tensor, "r v"]
    group: str = "group"
    submits: bool = False
    draws_truth: bool = False
    notes: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "ScoredSource":
        """A copy with tensors on `device`."""
        scorer = None if self.scorer is None else self.scorer.to(device)
        return dataclasses.replace(self, scorer=scorer, readout=self.readout.to(device))


@dataclasses.dataclass(frozen=True)
class PictureBatch:
    """numbers: indices of the samples in the dataset."""

    numbers: Int[Tensor, "b"]
    sample: Sample

    def __len__(self) -> int:
        return len(self.numbers)


class AnnotatedPictures(Benchmark[PictureBatch]):
    """Scores the meshes of a network on a dataset: the lixel mesh and, if the stage has it, the parametric mesh."""

    def __init__(
        self,
        system: System,
        data: ScoredSource,
        scoring: ScoringOptions,
        drawing: DrawingOptions,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """settings: recorded in `metrics.json`.

        Raise InputError if the network lacks a mesh of the stage, or if samples are missing that the benchmark's server
        requires.
        """
        self.data = data.to(system.device)
        self.notes = data.notes
        self._system, self._scoring, self._drawing = system, scoring, drawing
        self._grid = system.network.grid
        self._kinds = mesh_kinds(scoring.stage, system)
        named = settings or {"data": data.source.name, "split": data.source.split}
        self.identity = {"data": named["data"], "split": named["split"], "stage": self._kinds[-1]}
        self._settings = {**self.identity, **named}
        self._dataset = PersonDataset(data.source, crop_size=self._grid.crop_size, full_decode=scoring.published)
        self._count = min(scoring.samples or len(self._dataset), len(self._dataset))
        self._submits = data.submits and self._count == len(self._dataset)
        left_out = data.source.table.left_out
        if self._submits and left_out:
            raise InputError(
                f"{sum(left_out.values())} pictures of {data.source.name} {data.source.split} were left out "
                f"({', '.join(left_out)}), but its server requires all: complete the RootNet output"
            )
        self._keeper = None if self.data.scorer is None else ScoreKeeper(self.data.scorer, scoring.gt_root)
        self._sent: list[tuple[Tensor, Tensor]] = []
        self._start = time.perf_counter()

    def __len__(self) -> int:
        return self._count

    def batches(self, share: Share = WHOLE) -> Iterator[PictureBatch]:
        """The samples in order, in batches that threads read in advance (OpenCV releases the GIL)."""
        self._start = time.perf_counter()
        size, workers = self._scoring.batch_size, self._scoring.workers
        every = [range(start, min(start + size, self._count)) for start in range(0, self._count, size)]
        parts = iter(share.of(every))
        waiting: deque[tuple[range, Future[Sample]]] = deque()
        with ThreadPoolExecutor(workers) as pool:

            def read_next() -> None:
                if numbers := next(parts, None):
                    waiting.append((numbers, pool.submit(self._dataset.batch, numbers)))

            try:
                for _ in range(workers + 1):
                    read_next()
                while waiting:
                    numbers, future = waiting.popleft()
                    sample = future.result()
                    read_next()
                    yield PictureBatch(torch.tensor(numbers), sample)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def score(self, batch: PictureBatch) -> None:
        """Raise InputError for meshes with values that are not finite."""
        sample, numbers = batch.sample.to(self._system.device), batch.numbers.to(self._system.device)
        output, params, meshes = self._predict(sample)
        self._require_finite(meshes, batch)
        self.note(output, params, sample)
        if self._keeper is not None:
            self._keeper.add(meshes, sample, numbers)
        if self._submits:
            *_, vertices = self._in_camera(meshes, sample, numbers).values()
            if self._scoring.published and meshes.param is not None:
                vertices = (meshes.param - self.data.readout[:1] @ meshes.param) * MILLIMETRES
            self._sent.append(((self.data.readout[1:] @ vertices).cpu(), vertices.cpu()))

    def collected(self) -> list[Any]:
        return [[] if self._keeper is None else self._keeper.parts(), self._sent]

    def merge(self, parts: Sequence[list[Any]]) -> None:
        for scores, sent, *_ in parts:
            if self._keeper is not None:
                self._keeper.extend(scores)
            self._sent += sent

    def note(self, output: LixelOutput, params: BodyParams | None, sample: Sample) -> None:
        """For subclasses that report more than errors. params: in the camera frame."""

    def evaluation(self) -> Evaluation:
        """The errors of all samples."""
        source, scorer = self.data.source, self.data.scorer
        errors: dict[str, MeshErrors] = {}
        metrics, frames = tuple[Metric, ...](), source.table.consecutive(self._count)
        if scorer is not None and self._keeper is not None:
            metrics = (*scorer.metrics, ACCELERATION) if frames else scorer.metrics
            for kind, found in self._keeper.scores().items():
                errors[kind] = mesh_errors(found.to(dtype=torch.float64), scorer.metrics, frames)
        rows = range(self._count)
        seconds = round(time.perf_counter() - self._start, 3)
        return Evaluation(
            settings={**self._settings, "seconds": seconds},
            metrics=metrics,
            joints=self.data.joints,
            ids=tuple(int(number) for number in source.table.arrays["id"][: self._count]),
            pictures=tuple(source.table.image_path(row) for row in rows),
            groups=tuple(source.table.group(row) for row in rows),
            group_name=self.data.group,
            errors=errors,
        )

    def submission(self) -> tuple[Float[Tensor, "n j 3"], Float[Tensor, "n v 3"]] | None:
        """Joints and vertices of all samples for the benchmark's server; None if it has no server.

        The last mesh of the stage, in the camera frame, metres. With `ScoringOptions.published`, the parametric mesh is
        relative to its root, in millimetres.
        """
        if not self._submits:
            return None
        joints, vertices = (torch.cat(parts) for parts in zip(*self._sent, strict=True))
        return joints, vertices

    def write(self, folder: Path) -> list[str | Table]:
        return self.report(self.evaluation(), folder)

    def report(self, evaluation: Evaluation, folder: Path) -> list[str | Table]:
        """Write the results, the submission, plots and drawings. Return what to print."""
        submission = self.submission()
        lines: list[str | Table] = [*evaluation.lines()]
        if submission is not None:
            joints, vertices = submission
            path, archive = write_submission(joints.numpy(), vertices.numpy(), folder)
            lines.append(f"Saved at {path} (zipped for the server: {archive.name})")
        evaluation.save(folder)
        if self._drawing.plots and not plots.available():
            lines.append('no plots: they need Matplotlib; install it with pip install "i2l-meshnet[plots]"')
        elif self._drawing.plots:
            plots.save_plots(evaluation, folder)
        for start in DRAWN:
            for old in folder.glob(f"{start}_[0-9]*.jpg"):
                old.unlink()
        for rank, row in enumerate(evaluation.worst(self._drawing.pictures), 1):
            path = folder / f"{DRAWN[0] if evaluation.errors else DRAWN[1]}_{rank}.jpg"
            self.draw(row, evaluation, path)
        truth, seconds = f"{evaluation.scored} with ground truth", evaluation.settings["seconds"]
        table = evaluation.group_table()
        closing = f"{len(evaluation)} samples, {truth}, {seconds:.1f} s; results in {folder}"
        return [*lines, *([] if table is None else [table]), closing]

    @torch.inference_mode()
    def draw(self, row: int, evaluation: Evaluation, path: Path) -> None:
        """Draw a sample: the photo, and each mesh with its error. Skip samples of unknown root depth."""
        numbers = torch.tensor([row], device=self._system.device)
        sample = self._dataset.batch([row]).to(self._system.device)
        _, _, meshes = self._predict(sample)
        placed = self._in_camera(meshes, sample, numbers)
        if not bool(torch.isfinite(placed["lixel"]).all()):
            return
        if self.data.draws_truth and self.data.scorer is not None:
            truth = self.data.scorer.truth(sample, numbers).points
            placed["truth"] = truth.vertices + truth.root[:, None]
        captions = {"": f"{evaluation.ids[row]} {Path(evaluation.pictures[row]).name}"}
        for kind, errors in evaluation.errors.items():
            metric = evaluation.metrics[0]
            captions[kind] = f"{kind}: {metric.label} {errors.metrics[row, 0]:.1f} {metric.unit}"
        annotation = sample.annotation[0].to("cpu")
        picture = overlays.draw_sample(
            self.data.source.image_path(row),
            annotation.box.numpy(),
            {kind: mesh[0].cpu().numpy() for kind, mesh in placed.items()},
            self._system.body.faces.cpu().numpy(),
            annotation.camera,
            captions,
        )
        write_picture(path, picture)

    def _predict(self, sample: Sample) -> tuple[LixelOutput, BodyParams | None, Meshes]:
        """The network's output for a batch of crops, its parameters in the camera frame, and the scored meshes."""
        output = self._system.network(sample.network_input())
        lixel = output.vertices.float()
        if "param" not in self._kinds:
            return output, None, Meshes(lixel)
        params = camera_params(self._system.network, output, sample.crop, sample.annotation.camera)
        return output, params, Meshes(lixel, self._system.body(params).vertices)

    def _in_camera(
        self, meshes: Meshes, sample: Sample, numbers: Int[Tensor, "b"]
    ) -> dict[str, Float[Tensor, "b v 3"]]:
        """Meshes in the camera frame, m, by kind. The root of the parametric mesh is moved to the lixel mesh's."""
        depth = sample.annotation.root_depth
        if self._scoring.gt_root and self.data.scorer is not None:
            depth = self.data.scorer.truth(sample, numbers).points.root[:, 2]
        lixel = self._grid.to_camera(meshes.lixel, sample.crop, sample.annotation.camera, depth)
        if meshes.param is None:
            return {"lixel": lixel}
        root = self.data.readout[:1]
        return {"lixel": lixel, "param": meshes.param - root @ meshes.param + root @ lixel}

    def _require_finite(self, meshes: Meshes, batch: PictureBatch) -> None:
        finite = torch.isfinite(meshes.lixel).flatten(1).all(1)
        if meshes.param is not None:
            finite &= torch.isfinite(meshes.param).flatten(1).all(1)
        if bool(finite.all()):
            return
        row = int((~finite).nonzero()[0, 0])
        path = self.data.source.table.image_path(int(batch.numbers[row]))
        raise InputError(
            f"the network gives NaN or infinite values for annotation {int(batch.sample.annotation.id[row])} ({path}): "
            "its weights are damaged, or its training diverged"
        )


def mesh_kinds(stage: StageName, system: System) -> tuple[str, ...]:
    """The meshes that a stage scores. Raise InputError if the network lacks one."""
    regresses = getattr(system.network, "parameter_regressor", None) is not None
    if stage == "param" and not regresses:
        raise InputError("the network has no (trained) parameter regressor: choose the stage lixel", argument="stage")
    return ("lixel", "param") if regresses and stage != "lixel" else ("lixel",)


def mesh_errors(scores: Scores, metrics: Sequence[Metric], frames: Sequence[tuple[int, int, int]]) -> MeshErrors:
    """Scores in printed units. If there are `frames` (rows before, at, after), the last column is the acceleration."""
    values = scores.metrics * torch.tensor([metric.factor for metric in metrics], dtype=scores.metrics.dtype)
    if frames:
        rows = torch.tensor(frames)
        offsets = scores.offsets[rows]
        column = values.new_full((len(values), 1), torch.nan)
        column[rows[:, 1]] = acceleration_error(offsets, torch.zeros_like(offsets)) * ACCELERATION.factor
        values = torch.cat([values, column], 1)
    return MeshErrors(values.numpy(), (scores.offsets.norm(dim=-1) * MILLIMETRES).numpy())
