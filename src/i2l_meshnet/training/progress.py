"""Reports of a running training: a progress bar, a CSV log, TensorBoard, Weights & Biases."""

import csv
import datetime
import importlib.util
import io
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from i2l_meshnet.console import message, progress
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import atomic_path, open_regular
from i2l_meshnet.training.state import Position

FIRST_COLUMNS = ("step", "epoch", "learning_rate", "images_per_second")
"""The columns of a CSV log before those of the losses. The speed is empty until it is steady."""


class Log:
    """A log of numbers and images. By default, both are ignored."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write numbers by name, including `epoch`."""

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write an RGB image."""

    def close(self) -> None:
        """Close the log."""


class CsvLog(Log):
    """Writes one row per call, `step` first. A new name adds a column. A resumed run drops the rows after its step.

    The CSV log of Lightning Fabric would drop all earlier rows.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        """step: the step at which the run starts."""
        self._path = path
        self._rows: list[dict[str, str]] = []
        if path.exists() and step:
            with io.TextIOWrapper(open_regular(path), newline="") as file:
                self._rows = [row for row in csv.DictReader(file) if _is_before(row, step)]
        self._columns = list(self._rows[0]) if self._rows else list(FIRST_COLUMNS)
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

    def _rewrite(self) -> None:
        with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(self._rows)

    def _writer(self, file: io.TextIOBase | Any) -> csv.DictWriter:
        return csv.DictWriter(file, self._columns, restval="")


def _is_before(row: dict[str, str], step: int) -> bool:
    """Whether a row is complete and belongs to the steps up to `step`."""
    try:
        return None not in row.values() and int(row["step"]) <= step
    except (KeyError, TypeError, ValueError):
        return False


class TensorBoardLog(Log):
    """Writes TensorBoard event files."""

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


class WandbLog(Log):
    """Logs to Weights & Biases."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        """Raise InputError if wandb is not installed."""
        if importlib.util.find_spec("wandb") is None:
            raise InputError("wandb is not installed: pip install wandb", argument="wandb")
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        self._run = wandb.init(project="i2l-meshnet", dir=str(folder), config=recipe)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Speed:
    """Mean speed of the last steps. The first step of an epoch does not count: it waits for the loader processes."""

    WINDOW = 50

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=self.WINDOW)
        self._last: float | None = None

    def start_epoch(self) -> None:
        """Restart the clock."""
        self._last = None

    def add(self, images: int) -> None:
        """Count a step that ends now."""
        now = time.perf_counter()
        if self._last is not None:
            self._steps.append((now - self._last, images))
        self._last = now

    @property
    def seconds(self) -> float | None:
        """Mean time of a step, seconds. None if it is unknown."""
        return sum(seconds for seconds, _ in self._steps) / len(self._steps) if self._steps else None

    @property
    def images(self) -> float | None:
        """Images per second in all processes. None if it is unknown."""
        if not self.seconds:
            return None
        return sum(images for _, images in self._steps) / len(self._steps) / self.seconds

    def __str__(self) -> str:
        return "" if self.seconds is None else f"{self.seconds:.2f} s/step, {self.images:.1f} images/s"


class Reporter:
    """Reports on the console and to the logs."""

    def __init__(self, logs: Sequence[Log], total: int, done: int, epochs: int, quiet: bool = False) -> None:
        """total: steps of the whole training. done: finished steps. epochs: number of the epoch at which it ends.
        quiet: report only to the logs.
        """
        self._logs, self._total, self._epochs = logs, total, epochs
        # Without a terminal, `log_losses` prints lines.
        self._bar = None if quiet else progress("training", total, done, lines=False)
        self._speed = Speed()

    def __enter__(self) -> "Reporter":
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()
        for log in self._logs:
            log.close()

    def start_epoch(self) -> None:
        """Report that an epoch starts."""
        self._speed.start_epoch()

    def end_step(self, images: int) -> None:
        """Time a step that ends now. images: number of images in all processes."""
        self._speed.add(images)

    def step(self, position: Position, loss: float) -> None:
        """Report a step whose loss has been checked."""
        if self._bar is not None:
            note = f"{self._speed}  loss {loss:.3g}".strip()
            self._bar.update(position.step, what=f"epoch {position.epoch}/{self._epochs}", note=note)

    def log_losses(self, position: Position, rate: float, values: dict[str, float]) -> None:
        """Write mean losses since the last call, the learning rate and the speed to the logs."""
        speed = {} if self._speed.images is None else {"images_per_second": self._speed.images}
        self.scalars(position.step, {"epoch": float(position.epoch), "learning_rate": rate, **speed, **values})
        if self._bar is not None and not self._bar.shown:
            terms = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            parts = [
                f"epoch {position.epoch}/{self._epochs}, step {position.step}/{self._total}",
                f"learning rate {rate:g}",
                str(self._speed),
                self._time_left(position.step),
                terms,
            ]
            self.say("; ".join(part for part in parts if part))

    def _time_left(self, step: int) -> str:
        if self._speed.seconds is None:
            return ""
        left = datetime.timedelta(seconds=round(self._speed.seconds * (self._total - step)))
        return f"{left} left"

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write numbers to the logs."""
        for log in self._logs:
            log.scalars(step, values)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write an image to the logs."""
        for log in self._logs:
            log.picture(step, name, image)

    def say(self, line: str) -> None:
        """Print a line on the console."""
        if self._bar is not None:
            message(line)
