"""Learn where RTMPose finds its keypoints on real people: `python -m i2l_lab.tools.calibrate_keypoints`.

Uses the clip of one man of `i2l-meshnet evaluate --data real-multiview` (docs/default-model.md). Writes
bodies/data/anny_halpe26.npz, the body's keypoint regressor, and prints the offsets from the regressor of rendered
bodies. The method is in i2l_lab/keypoint_calibration.py.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro

from i2l_lab.keypoint_calibration import CalibrationOptions, calibrate, moved_regressor
from i2l_lab.synthetic.keypoints import write_regressor
from i2l_meshnet import assets
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.data.multiview import open_clip
from i2l_meshnet.errors import UserError
from i2l_meshnet.evaluation.real_multiview import clip_samples
from i2l_meshnet.models.loading import load_network, shipped_weights
from i2l_meshnet.skeletons import HALPE26

CLIP = "Demo_SinglePerson"
DATA = Path(__file__).resolve().parents[3] / "src" / "i2l_meshnet" / "bodies" / "data"


@dataclasses.dataclass(frozen=True)
class Options:
    """Learn the body's keypoint regressor from the clip of one man."""

    out: Path = DATA / "anny_halpe26.npz"
    """File to write."""
    weights: Path | None = None
    """Checkpoint that gives the initial poses. Default: the default model."""
    every: int = 2
    """Use every N-th frame."""
    calibration: CalibrationOptions = dataclasses.field(default_factory=CalibrationOptions)


def main(options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Learn where RTMPose finds its keypoints on real people."""
    try:
        (folder,) = assets.ensure("multiview").glob(f"**/{CLIP}")
        samples = clip_samples(open_clip(folder), options.every)
        network, body, _ = load_network(options.weights or shipped_weights())
        assert isinstance(body, AnnyBody)
        torch.manual_seed(0)
        found = calibrate(network, body, samples, options.calibration)
        write_regressor(options.out, moved_regressor(body, found.offsets).double().numpy())
    except UserError as error:
        sys.exit(f"calibrate_keypoints: {error}")
    print("offsets, mm: to the left, to the back, up")
    for name, offset in zip(HALPE26.joints, found.offsets * 1000, strict=True):
        if not name.startswith("R_"):
            print(f"{name:10}", *(f"{value:6.1f}" for value in offset.tolist()))
    print(f"mean distance from the triangulated points: {found.before * 1000:.1f} mm without offsets", end="")
    print(f", {found.after * 1000:.1f} mm with them; {options.out}")


if __name__ == "__main__":
    tyro.cli(main)
