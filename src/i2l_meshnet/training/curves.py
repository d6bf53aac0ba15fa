"""Plot of a training's log: losses and validation errors, with Matplotlib (the extra `plots`)."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING

from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation import plots
from i2l_meshnet.io import atomic_path, open_regular, reading
from i2l_meshnet.training.progress import FIRST_COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES = "lixel", "param"
LOSS = "loss"
"""Column of the sum of all terms. Rows without it have validation errors."""
Curve = list[tuple[int, float]]
"""(step, value) in the order of the log."""


@dataclasses.dataclass(frozen=True)
class StageLog:
    """The log of one stage. losses: the sum `loss`, then its terms. errors: validation errors, mm."""

    stage: str
    losses: dict[str, Curve]
    errors: dict[str, Curve]


def read_log(path: Path) -> StageLog:
    """Read the CSV log that `train` wrote. Raise FileError for a missing or damaged file."""
    losses: dict[str, Curve] = {}
    errors: dict[str, Curve] = {}
    with (
        reading(path, "a log of `train` (CSV)", "name the output folder of a training"),
        io.TextIOWrapper(open_regular(path), newline="") as file,
    ):
        for row in csv.DictReader(file):
            curves = losses if row.get(LOSS) else errors
            for name, value in row.items():
                if name not in FIRST_COLUMNS and value:
                    curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return StageLog(path.stem, losses, errors)


def plot_training(run: Path, path: Path) -> list[StageLog]:
    """Plot the losses and validation errors of the output folder `run` of a training. Return the plotted logs.

    Raise InputError without Matplotlib, FileError for a folder without logs or a file that cannot be read or written.
    """
    if not plots.available():
        raise InputError("plots need Matplotlib: pip install 'i2l-meshnet[plots]'")
    found = [file for file in (run / "log" / f"{stage}.csv" for stage in STAGES) if file.is_file()]
    logs = [log for log in map(read_log, found) if log.losses]
    if not logs:
        raise FileError(f"{run} has no log of a training (log/lixel.csv, log/param.csv) with losses")
    rows = 2 if any(log.errors for log in logs) else 1
    figure, axes = plots.new_figure(5.5 * len(logs), 3.2 * rows, rows, len(logs))
    for log, panel in zip(logs, axes, strict=False):
        _draw(panel, log.losses, "loss")
        panel.set_title(f"{log.stage} stage")
    for log, panel in zip(logs, axes[len(logs) :], strict=False):
        _draw(panel, log.errors, "validation error, mm")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return logs


def _draw(axes: "Axes", curves: dict[str, Curve], quantity: str) -> None:
    """Draw curves over the steps. The sum of the losses, or the validation error, is the thick line."""
    for number, (name, curve) in enumerate(curves.items()):
        steps, values = zip(*curve, strict=True)
        axes.plot(steps, values, linewidth=1 if number else 2, marker="." if len(curve) < 30 else "", label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel(quantity)
    if curves:
        axes.legend(fontsize="small")
