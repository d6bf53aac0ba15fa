"""The training loop. It trains one stage of one network and knows no specific body, dataset or network.

Lightning Fabric starts the processes, averages their gradients and sets the precision, on one CPU or many GPUs. A run
that is killed at any moment resumes from its latest training state with the same results: samples depend only on
(seed, epoch, index), and the state has everything else.

The lab trains its lifting networks with its own loop (`i2l_lab.lifting.training`), which has no epochs, processes,
validation or snapshots. The two loops share only a few lines.
"""

import contextlib
import dataclasses
import json
import math
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import cv2
import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.data.mixture import EpochSampler, Mixture
from i2l_meshnet.data.targets import Target
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.io import write_bytes
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.pictures import write_picture
from i2l_meshnet.training.average import WeightAverage
from i2l_meshnet.training.pictures import prediction_sheet
from i2l_meshnet.training.progress import Reporter
from i2l_meshnet.training.recipe import TrainOptions
from i2l_meshnet.training.stages import Stage
from i2l_meshnet.training.state import Position, StateFolder, TrainingState, random_states, restore_random

SHEET_ROWS = 4
"""Number of samples that are drawn after every epoch."""
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class NonFiniteLossError(UserError):
    """The loss became infinite or NaN."""


class NoTargetError(UserError):
    """No sample of a step has a valid target, so nothing can be learned from it."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """A dataset for validation after every epoch. The epoch with the lowest error gives the best snapshot.

    name: name of the error. measure: (network output, batch) → error and weight (0: not counted) of each sample.
    """

    dataset: PersonDataset
    name: str
    measure: Callable[[LixelOutput, Sample], tuple[Float[Tensor, "b"], Float[Tensor, "b"]]]


class Folders:
    """Output folders, named as in the published code. Snapshots and training states are in `models`."""

    def __init__(self, out: Path) -> None:
        names = ("log", "model_dump", "vis", "result")
        self.log, self.models, self.pictures, self.results = (out / name for name in names)

    def make(self) -> None:
        """Make the folders. Raise FileError if they cannot be written."""
        for folder in (self.log, self.models, self.pictures, self.results):
            write_bytes(folder / ".probe", b"")
            (folder / ".probe").unlink(missing_ok=True)


class Batch:
    """A batch and its targets. It is not a dataclass, because Fabric would try to rebuild a frozen one."""

    def __init__(self, sample: Sample, target: Target) -> None:
        self.sample, self.target = sample, target


class StageStep(nn.Module):
    """The forward pass from images to the terms of the loss. DDP wraps this module."""

    def __init__(self, network: MeshNet, stage: Stage, channels_last: bool = False) -> None:
        super().__init__()
        self.network = network
        self._stage, self._channels_last = stage, channels_last

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        output = self.network(network_input(batch.sample, self._channels_last))
        with torch.autocast(batch.sample.image.device.type, enabled=False):
            return self._stage.losses(output, batch.target)


def network_input(sample: Sample, channels_last: bool = False) -> Float[Tensor, "b 3 h w"]:
    """The crops as network input."""
    image = sample.network_input()
    return image.contiguous(memory_format=torch.channels_last) if channels_last else image


class Stop:
    """Remembers SIGTERM and Ctrl-C, so that the loop saves and ends. A second Ctrl-C raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Handle signals while the context is open."""
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step whose losses are not checked yet.

    values: losses, averaged over all processes, and the share of processes that received a signal. own: the losses of
    this process. ids: (number of the dataset, annotation id) of each sample.
    """

    position: Position
    values: Float[Tensor, "shared"]
    own: Float[Tensor, "terms"]
    ids: list[tuple[int, int]]


class Trainer:
    """Trains one stage of one network. Call `fit`."""

    def __init__(
        self,
        fabric: Fabric,
        network: MeshNet,
        stage: Stage,
        targets: Callable[[Sample], Target],
        dataset: Mixture,
        options: TrainOptions,
        validation: Validation | None = None,
    ) -> None:
        """fabric: already launched. targets: makes the targets of a batch on the device."""
        self._fabric, self._stage, self._targets = fabric, stage, targets
        self._recipe, self._run = options.recipe, options.run
        self._dataset, self._validation, self._folders = dataset, validation, Folders(options.run.out)
        recipe, run = options.recipe, options.run
        self.network = network
        if recipe.batchnorm == "synced":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        if run.channels_last:
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        parameters = stage.prepare(network)
        network.to(fabric.device)
        if run.compile:
            network.compile()
        optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate)
        self._step, self._optimizer = fabric.setup(StageStep(network, stage, run.channels_last), optimizer)
        named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self._average = WeightAverage(named, recipe.ema) if recipe.ema else None
        self._states = StateFolder(self._folders.models, stage.name, run.keep)
        self._stop, self._agreed = Stop(), False
        self._names: list[str] = []
        self._unchecked: _Step | None = None
        self._sums: list[Tensor] = []
        self.position, self.best = Position(recipe.first_epoch), math.inf
        torch.manual_seed(recipe.seed + fabric.global_rank)

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps in an epoch."""
        return -(-len(self._batches(self._recipe.first_epoch)) // self._recipe.accumulate)

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole training."""
        steps = self.steps_per_epoch * (self._recipe.end_epoch - self._recipe.first_epoch)
        return min(steps, self._run.max_steps) if self._run.max_steps else steps

    def _batches(self, epoch: int) -> list[list[int]]:
        """The batches of indices of this process in an epoch.

        A last batch of one sample is left out, as it has no variance for BatchNorm.
        """
        sampler = EpochSampler(
            len(self._dataset), epoch, self._recipe.seed, self._fabric.global_rank, self._fabric.world_size
        )
        indices, size = list(sampler), self._recipe.batch
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        if len(batches) > 1 and len(batches[-1]) == 1 < size and self._recipe.batchnorm != "frozen":
            batches.pop()
        return batches

    def save(self) -> None:
        """Save the training state. Call it in all processes; the first process writes."""
        cpu, cuda = random_states(self._fabric.device)
        state = TrainingState(
            recipe=self._recipe.to_json(),
            position=self.position,
            network=self.network.state_dict(),
            optimizer=self._optimizer.state_dict(),
            average=self._average.tensors if self._average else {},
            random=self._gather(cpu),
            cuda_random=None if cuda is None else self._gather(cuda),
            processes=self._fabric.world_size,
            best=self.best,
        )
        if self._fabric.is_global_zero:
            self._states.save(state)
        self._fabric.barrier()

    def resume(self) -> None:
        """Resume from the latest training state. Errors as in `StateFolder.load`."""
        state = self._states.load(self._recipe, self._fabric.world_size)
        self.network.load_state_dict(state.network)
        self._optimizer.load_state_dict(state.optimizer)
        if self._average:
            self._average.load(state.average)
        rank = self._fabric.global_rank
        cuda = None if state.cuda_random is None else state.cuda_random[rank]
        restore_random(state.random[rank], cuda, self._fabric.device)
        self.position, self.best = state.position, state.best

    def _gather(self, value: Tensor) -> Tensor:
        """The tensors of all processes, stacked, on the CPU."""
        gathered = cast(Tensor, self._fabric.all_gather(value.to(self._fabric.device)))
        return gathered.reshape(self._fabric.world_size, *value.shape).cpu()

    def fit(self, reporter: Reporter) -> signal.Signals | None:
        """Train to the end, to `max_steps` or to a signal, and save the training state. Return the signal.

        Raise NonFiniteLossError if a loss is not finite, and NoTargetError if no sample has a target. The annotations
        of the batch are written first. Raise FileError if files cannot be written.
        """
        if self._fabric.is_global_zero:
            self._states.clean()
        with self._stop.watched():
            for epoch in range(self.position.epoch, self._recipe.end_epoch):
                self._train_epoch(epoch, reporter)
                if self._ends() or not self._finish_epoch(epoch, reporter):
                    break
            else:
                return None
        self.save()
        return (self._stop.signal or signal.SIGTERM) if self._agreed else None

    def _ends(self) -> bool:
        """Whether training ends early. The result is the same in all processes."""
        return self._agreed or bool(self._run.max_steps and self.position.step >= self._run.max_steps)

    def _train_epoch(self, epoch: int, reporter: Reporter) -> None:
        reporter.start_epoch()
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.rate(epoch)
        self._stage.train_mode(self.network)
        if self._recipe.batchnorm == "frozen":
            for module in self.network.modules():
                if isinstance(module, BATCHNORMS):
                    module.eval()
        batches = self._batches(epoch)[self.position.batch :]
        if not batches:
            return
        if self._recipe.batchnorm == "local" and min(map(len, batches)) == 1:
            raise InputError(
                "BatchNorm has no variance in a batch of one image: use more images, or frozen BatchNorm",
                argument="batch",
            )
        # A loader process that inherits OpenCV's threads hangs.
        cv2.setNumThreads(1)
        with contextlib.closing(self._load(self._dataset, list(batches))) as samples:
            while batches and not self._ends():
                sizes = [len(batch) for batch in batches[: self._recipe.accumulate]]
                del batches[: len(sizes)]
                self._train_step([next(samples) for _ in sizes], sum(sizes), reporter)
                if self.position.step % self._run.save_every == 0 and batches:
                    self._check_losses(reporter)
                    self.save()
        self._check_losses(reporter)

    def _load(self, dataset: Mixture | PersonDataset, batches: list[list[int]]) -> Generator[Sample, None, None]:
        """Load batches in order. Close the generator after an error to stop its processes, which ignore SIGTERM."""
        for found in DataLoader(
            _ErrorsAsValues(dataset),
            batch_sampler=batches,
            num_workers=self._run.workers,
            collate_fn=_identity,
            pin_memory=self._fabric.device.type == "cuda",
            worker_init_fn=_prepare_worker,
            # Without it, the loader would draw its seed from the global generator, and a resumed run would differ.
            generator=torch.Generator(),
        ):
            if isinstance(found, UserError):
                raise found
            yield found

    def _train_step(self, samples: list[Sample], images: int, reporter: Reporter) -> None:
        """One optimizer step with the mean gradient of all samples in all batches."""
        own: Tensor | None = None
        for number, sample in enumerate(samples, 1):
            share = len(sample.image) / images
            moved = self._moved(sample)
            batch = Batch(moved, self._targets(moved))
            with self._fabric.no_backward_sync(self._step, enabled=number < len(samples)):
                terms: dict[str, Tensor] = self._step(batch)
                self._fabric.backward(torch.stack(list(terms.values())).sum() * share)
            values = torch.stack([value.detach() for value in terms.values()]) * share
            own = values if own is None else own + values
            self._names = list(terms)
        assert own is not None
        if self._recipe.clip:
            self._fabric.clip_gradients(
                self._step, self._optimizer, max_norm=self._recipe.clip, error_if_nonfinite=False
            )
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.position = Position(self.position.epoch, self.position.batch + len(samples), self.position.step + 1)
        if self._average:
            self._average.update(self.position.step)
        # Losses are checked one step late to avoid stalling a CUDA device. One exchange shares the losses of all
        # processes and a signal that only one process received.
        stop = own.new_full((1,), float(self._stop.signal is not None))
        shared = cast(Tensor, self._fabric.all_reduce(torch.cat([own, stop]), reduce_op="mean"))
        reporter.end_step(images * self._fabric.world_size)
        self._check_losses(reporter)
        annotations = [sample.annotation for sample in samples]
        ids = [pair for part in annotations for pair in zip(part.source.tolist(), part.id.tolist(), strict=True)]
        self._unchecked = _Step(self.position, shared, own, ids)
        if self.position.step == self._run.max_steps:
            self._check_losses(reporter)

    def _check_losses(self, reporter: Reporter) -> None:
        """Check and report the losses of the step that is not checked yet."""
        step, self._unchecked = self._unchecked, None
        if step is None:
            return
        self._agreed |= bool(step.values[-1] > 0)
        values = step.values[:-1]
        if not bool(values.isfinite().all()):
            raise NonFiniteLossError(self._describe_non_finite(step))
        if not bool(values.any()):
            path = self._save_samples(step, "untargeted")
            raise NoTargetError(
                f"every loss is 0 at step {step.position.step}: no sample of the batch has a valid target. The "
                f"annotations of the batch are in {path}: check the dataset, or use a larger batch"
            )
        self._sums.append(values)
        reporter.step(step.position, float(values.sum()))
        if step.position.step % self._run.log_every == 0 or step.position.step == self.total_steps:
            means = torch.stack(self._sums).mean(0).tolist()
            self._sums = []
            terms = dict(zip(self._names, means, strict=True))
            rate = self._recipe.rate(step.position.epoch)
            reporter.log_losses(step.position, rate, {"loss": sum(means), **terms})

    def _save_samples(self, step: _Step, what: str) -> Path:
        """Write the losses and the annotations of a step to a JSON file in the log folder. Return its path."""
        path = self._folders.log / f"{what}_{step.position.step}_{self._fabric.global_rank}.json"
        sources = (*self._recipe.train_3d, *self._recipe.train_2d)
        content = {
            "step": step.position.step,
            "epoch": step.position.epoch,
            "terms": {name: repr(value) for name, value in zip(self._names, step.own.tolist(), strict=True)},
            "samples": [{"data set": sources[source], "annotation": number} for source, number in step.ids],
        }
        write_bytes(path, json.dumps(content, indent=1).encode())
        return path

    def _describe_non_finite(self, step: _Step) -> str:
        """Write the samples of a step whose loss is not finite. Return the error message."""
        path = self._save_samples(step, "nonfinite")
        bad = [name for name, value in zip(self._names, step.own.tolist(), strict=True) if not math.isfinite(value)]
        what = f"the loss ({', '.join(bad)})" if bad else "another process' loss"
        return (
            f"{what} is not finite at step {step.position.step}. The annotations of the batch are in {path}: check "
            "them, then resume from the latest training state, perhaps with another learning rate"
        )

    def _moved(self, sample: Sample) -> Sample:
        """Copy the batch to the device, without waiting."""
        return sample.map(lambda tensor: tensor.to(self._fabric.device, non_blocking=True))

    def _finish_epoch(self, epoch: int, reporter: Reporter) -> bool:
        """Validate and save the weights (the averaged weights, if any), then save the training state.

        Return False if a signal arrives during the validation. Then the epoch stays unfinished.
        """
        with self._average.applied() if self._average else contextlib.nullcontext():
            errors = self._measure(epoch, reporter)
            if self._agreed:
                return False
            first = next(iter(errors.values()), math.inf)
            better, self.best = first < self.best, min(first, self.best)
            if self._fabric.is_global_zero:
                self._write_snapshot(self._folders.models / f"snapshot_{epoch}.safetensors", epoch, errors)
                if better:
                    best = self._folders.models / f"best_{self._stage.name}.safetensors"
                    self._write_snapshot(best, epoch, errors)
        self.position = Position(epoch + 1, 0, self.position.step)
        self.save()
        if errors:
            reporter.scalars(self.position.step, {"epoch": float(epoch), **errors})
            reporter.say(f"epoch {epoch}: {', '.join(f'{name} {value:.2f}' for name, value in errors.items())}")
        return True

    def _write_snapshot(self, path: Path, epoch: int, errors: dict[str, float]) -> None:
        extra = {
            "stage": self._stage.name,
            "epoch": epoch,
            "step": self.position.step,
            "errors": errors,
            "precision": self._recipe.precision,
            "recipe": self._recipe.to_json(),
        }
        body = self._stage.body
        licence = f"trained with the body {body.name}: {body.licence}"
        checkpoint.save(self.network, path, extra, licence=licence, source="trained with i2l-meshnet train")

    @torch.no_grad()
    def _measure(self, epoch: int, reporter: Reporter) -> dict[str, float]:
        """The mean error on the validation samples, which are divided among the processes. A signal ends it early."""
        if self._validation is None:
            return {}
        self.network.eval()
        dataset, size = self._validation.dataset, self._recipe.batch
        own = list(range(self._fabric.global_rank, len(dataset), self._fabric.world_size))
        batches = [own[start : start + size] for start in range(0, len(own), size)]
        # Sum of errors, sum of weights, number of processes that received a signal.
        sums = torch.zeros(3, device=self._fabric.device)
        with contextlib.closing(self._load(dataset, batches)) as samples:
            for number, sample in enumerate(samples):
                if self._stop.signal is not None:
                    sums[2] = 1
                    break
                sample = self._moved(sample)
                with self._fabric.autocast():
                    output = self.network(network_input(sample, self._run.channels_last))
                error, weight = self._validation.measure(output, sample)
                sums[:2] += torch.stack([(error * weight).sum(), weight.sum()])
                if number == 0 and self._fabric.is_global_zero:
                    self._draw(epoch, sample[:SHEET_ROWS], output[:SHEET_ROWS], reporter)
        total, count, stop = cast(Tensor, self._fabric.all_reduce(sums, reduce_op="sum")).tolist()
        self._agreed |= stop > 0
        return {self._validation.name: total / count} if count else {}

    def _draw(self, epoch: int, sample: Sample, output: LixelOutput, reporter: Reporter) -> None:
        sheet = prediction_sheet(sample, self._stage.mesh(self.network, output, sample), self._stage.body.faces)
        reporter.picture(self.position.step, "predictions", sheet)
        write_picture(self._folders.pictures / f"{self._stage.name}_{epoch}.jpg", sheet, 90)


class _ErrorsAsValues(Dataset[Sample | UserError]):
    """Returns user errors as values: if a loader process raises them, PyTorch adds a traceback to the message."""

    def __init__(self, dataset: Mixture | PersonDataset) -> None:
        self._dataset = dataset

    def __getitems__(self, positions: list[int]) -> Sample | UserError:
        try:
            return self._dataset.__getitems__(positions)
        except UserError as error:
            return error


def _identity(found: Any) -> Sample | UserError:
    return found


def _prepare_worker(_: int) -> None:
    """Loader processes ignore signals, which the training loop handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
