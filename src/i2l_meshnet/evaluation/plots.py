"""Plots of an evaluation with Matplotlib, the extra `plots`."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from i2l_meshnet.evaluation.report import Evaluation
from i2l_meshnet.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"lixel": "#4c8ed9", "param": "#e8803a"}
HISTOGRAM, JOINTS = "error_histogram.png", "joint_errors.png"


def available() -> bool:
    """Whether Matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def save_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the histogram of sample errors and the bars of joint errors. Without ground truth, write nothing."""
    if not evaluation.scored:
        return []
    figures = {HISTOGRAM: error_histogram(evaluation), JOINTS: joint_bars(evaluation)}
    for name, figure in figures.items():
        with atomic_path(folder / name) as temporary:
            figure.savefig(temporary, dpi=120)
    return [folder / name for name in figures]


def error_histogram(evaluation: Evaluation) -> "Figure":
    """Histogram of the first metric; dashed lines are means."""
    figure, (axes,) = new_figure(7.0, 4.0)
    metric = evaluation.metrics[0]
    found = {kind: errors.metrics[:, 0] for kind, errors in evaluation.errors.items()}
    known = np.concatenate([values[np.isfinite(values)] for values in found.values()])
    # The last bar includes the long tail, which would otherwise compress all other bars.
    limit = float(np.percentile(known, 99)) * 1.05 or 1.0
    bins = np.linspace(0, limit, 41).tolist()
    for kind, values in found.items():
        values, mean = values[np.isfinite(values)], evaluation.mean(kind, metric.key)
        axes.hist(values.clip(max=limit), bins, alpha=0.6, color=COLOURS[kind], label=f"{kind} mesh, mean {mean:.1f}")
        axes.axvline(min(mean, limit), color=COLOURS[kind], linestyle="--", linewidth=1)
    axes.set_xlabel(f"{metric.label}, {metric.unit} (the last bar includes larger errors)")
    axes.set_ylabel("samples")
    axes.set_title(_title(evaluation))
    axes.legend()
    return figure


def joint_bars(evaluation: Evaluation) -> "Figure":
    """Mean error of each scored joint."""
    count, kinds = len(evaluation.joints), list(evaluation.errors)
    figure, (axes,) = new_figure(7.0, 1.4 + 0.3 * count)
    positions, height = np.arange(count), 0.8 / len(kinds)
    for number, kind in enumerate(kinds):
        shifted = positions + (number - (len(kinds) - 1) / 2) * height
        axes.barh(shifted, evaluation.joint_means(kind), height, color=COLOURS[kind], label=f"{kind} mesh")
    axes.set_yticks(positions, evaluation.joints)
    axes.invert_yaxis()
    axes.set_xlabel("mean distance relative to the root, mm")
    axes.set_title(_title(evaluation))
    axes.legend()
    return figure


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.settings['data']} {evaluation.settings['split']}, {evaluation.scored} samples"


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    """A figure without a window and without global state, and its axes row by row. Sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    found = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in found:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return figure, found
