"""`i2l-lab lift` and `lift-hand`."""

from typing import Annotated

import tyro

from i2l_lab.lifting.body_network import LiftOptions, train_lifting
from i2l_lab.lifting.hand_network import LiftHandOptions, train_hand


def lift(options: Annotated[LiftOptions, tyro.conf.arg(name="")]) -> int:
    """Train the default model: RTMPose's keypoints to mesh and parameters of the Anny body."""
    print(train_lifting(options))
    return 0


def lift_hand(options: Annotated[LiftHandOptions, tyro.conf.arg(name="")]) -> int:
    """Train the hand network: MediaPipe's landmarks to mesh and parameters of the Anny hand."""
    print(train_hand(options))
    return 0
