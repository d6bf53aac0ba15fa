"""`i2l-lab synthesize`."""

from typing import Annotated

import tyro

from i2l_lab.synthetic.detections import DetectOptions, detect_bank
from i2l_lab.synthetic.generate import PictureOptions, generate_pictures
from i2l_lab.synthetic.keypoints import FitOptions, fit_keypoint_regressor

Synthesis = (
    Annotated[PictureOptions, tyro.conf.subcommand("pictures")]
    | Annotated[DetectOptions, tyro.conf.subcommand("detections")]
    | Annotated[FitOptions, tyro.conf.subcommand("keypoints")]
)


def synthesize(options: Annotated[Synthesis, tyro.conf.arg(name="")]) -> int:
    """Make training data of the default model: synthetic pictures, detections on them, a keypoint regressor."""
    if isinstance(options, PictureOptions):
        generate_pictures(options)
    elif isinstance(options, DetectOptions):
        detect_bank(options)
    else:
        fit_keypoint_regressor(options)
    print(f"written to {options.out}")
    return 0
