"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from i2l_meshnet.training.average import WeightAverage


@pytest.mark.parametrize(("step", "decay"), [(1, 2 / 11), (9, 10 / 19), (10_000, 0.9)])
def test_early_steps_count_more_than_the_decay_says(step: int, decay: float) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 1.0]))
    average = WeightAverage({"weight": parameter}, 0.9)
    latest = torch.tensor([3.0, -1.0])
    with torch.no_grad():
        parameter.copy_(latest)
    average.update(step)
    torch.testing.assert_close(average.tensors["weight"], decay + (1 - decay) * latest)
