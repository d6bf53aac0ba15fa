"""Draws the curves of a training from its logs: `python scripts/plot_training.py output/log curves.png`.

Losses by step, stage beside stage, and the validation error where there is one. docs/images/training.png is made so.
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt

STAGES = ("lixel", "param")
ERROR = "MPJPE from {} mesh"


def read(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of every column of a log."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text and name not in ("step", "epoch"):
                    steps, values = columns.setdefault(name, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(text))
    return columns


def main(folder: Path, out: Path) -> None:
    """Draws the stages that `folder` has logs of."""
    stages = [stage for stage in STAGES if (folder / f"{stage}.csv").exists()]
    if not stages:
        sys.exit(f"{folder} holds no log (lixel.csv or param.csv): name the folder log of a training's --out")
    figure, axes = plt.subplots(1, len(stages), figsize=(5 * len(stages), 3.2), squeeze=False, layout="constrained")
    for axis, stage in zip(axes[0], stages, strict=True):
        columns = read(folder / f"{stage}.csv")
        axis.plot(*columns["loss"], color="tab:blue", linewidth=1)
        axis.set(xlabel="step", ylabel="loss", title=f"{stage} stage", ylim=(0, None))
        error = columns.get(ERROR.format(stage))
        if error:
            twin = axis.twinx()
            twin.plot(*error, "o-", color="tab:red", markersize=4)
            twin.set(ylabel="MPJPE on held-out pictures, mm", ylim=(0, 1.1 * max(error[1])))
            twin.yaxis.label.set_color("tab:red")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/plot_training.py LOG_FOLDER PICTURE")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
