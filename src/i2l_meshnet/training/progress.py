"""What a training tells while it runs: a progress bar, a CSV log, TensorBoard, Weights & Biases."""

import csv
import importlib.util
import io
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import atomic_path, open_regular


@runtime_checkable
class Log(Protocol):
    """Takes numbers and pictures of a step."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name; `epoch` is among them."""
        ...

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """An RGB picture."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class CsvLog:
    """One row a call, `step` first; the columns grow when a name is new. A run that goes on drops the rows that it
    will write again."""

    def __init__(self, path: Path, step: int = 0) -> None:
        """step: the step that the run starts from."""
        self._path = path
        self._rows: list[dict[str, str]] = []
        if path.exists() and step:
            with io.TextIOWrapper(open_regular(path), newline="") as file:
                self._rows = [row for row in csv.DictReader(file) if _is_before(row, step)]
        self._columns = list(self._rows[0]) if self._rows else ["step"]
        self._rewrite()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in values.items()}}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
            return
        try:
            with self._path.open("a", newline="") as file:
                self._writer(file).writerow(row)
        except OSError as error:
            raise FileError(f"cannot write {self._path}: {error.strerror}") from error

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """CSV has no pictures."""

    def close(self) -> None:
        """Every row is written already."""

    def _rewrite(self) -> None:
        with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(self._rows)

    def _writer(self, file: io.TextIOBase | Any) -> csv.DictWriter:
        return csv.DictWriter(file, self._columns, restval="")


def _is_before(row: dict[str, str], step: int) -> bool:
    """Whether a row belongs to the steps up to `step`; torn rows do not."""
    try:
        return None not in row.values() and int(row["step"]) <= step
    except (KeyError, TypeError, ValueError):
        return False


class TensorBoardLog:
    """TensorBoard's event files."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandbLog:
    """Weights & Biases."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        """Raises InputError if wandb is not installed."""
        if importlib.util.find_spec("wandb") is None:
            raise InputError("--wandb needs wandb: pip install wandb")
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        self._run = wandb.init(project="i2l-meshnet", dir=str(folder), config=recipe)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Reporter:
    """Tells people and logs. `logs` may be empty, and `quiet` silences all but the logs (the other processes)."""

    def __init__(self, logs: list[Log], total: int, done: int, quiet: bool = False) -> None:
        """total, done: steps of the whole training, and those behind it."""
        self._logs, self._quiet = logs, quiet
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=total, completed=done, news="")
        self._started, self._images, self._seconds = time.perf_counter(), 0, 0.0

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        for log in self._logs:
            log.close()

    def step(self, step: int, epoch: int, images: int, values: dict[str, float]) -> None:
        """One step done: `images` of all processes."""
        self._images += images
        rate = self._images / max(time.perf_counter() - self._started, 1e-9)
        terms = " ".join(f"{name} {value:.3g}" for name, value in values.items())
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}", news=f"{rate:.1f} images/s  {terms}")

    def log_losses(self, step: int, epoch: int, rate: float, values: dict[str, float]) -> None:
        """Writes means since the last call, the learning rate and the throughput to the logs."""
        speed = self._images / max(time.perf_counter() - self._started, 1e-9)
        self._started, self._images = time.perf_counter(), 0
        self.scalars(step, {"epoch": float(epoch), "learning_rate": rate, "images_per_second": speed, **values})
        if not self._bar.disable:
            return
        terms = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.say(f"epoch {epoch}, step {step}: {terms}; {speed:.1f} images/s")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers for the logs only."""
        for log in self._logs:
            log.scalars(step, values)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """A picture for the logs."""
        for log in self._logs:
            log.picture(step, name, image)

    def say(self, line: str) -> None:
        """A line for people."""
        self._console.print(line, markup=False, soft_wrap=True)
