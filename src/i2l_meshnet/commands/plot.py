"""`i2l-meshnet plot`."""

from pathlib import Path

from tyro.conf import Positional

from i2l_meshnet.console import output
from i2l_meshnet.training.curves import LOSS, plot_training


def plot(run: Positional[Path] = Path("output"), out: Path | None = None) -> int:
    """Plot the losses and validation errors of a training as a PNG, both stages side by side.

    Args:
        run: output folder of `train`.
        out: the file to write. Default: log/training.png in the folder.
    """
    path = run / "log" / "training.png" if out is None else out
    for log in plot_training(run, path):
        ends = {LOSS: log.losses[LOSS], **log.errors}
        changes = (f"{name} {curve[0][1]:.4g} to {curve[-1][1]:.4g}" for name, curve in ends.items())
        output(f"{log.stage} stage: {', '.join(changes)}")
    output(f"plot in {path}")
    return 0
