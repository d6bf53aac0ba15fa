"""`i2l-lab lift` and `lift-hand`."""

from typing import Annotated

import tyro

from i2l_lab.lifting.body_network import LiftOptions, train_lifting
from i2l_lab.lifting.hand_network import LiftHandOptions, train_hand


def lift(options: Annotated[LiftOptions, tyro.conf.arg(name="")]) -> int:
    """Train the default model, which predicts mesh and parameters of the Anny body from RTMPose's keypoints."""
    print(train_lifting(options))
    return 0


def lift_hand(options: Annotated[LiftHandOptions, tyro.conf.arg(name="")]) -> int:
    """Train the hand network, which predicts mesh and parameters of the Anny hand from MediaPipe's landmarks."""
    print(train_hand(options))
    return 0
