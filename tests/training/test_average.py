"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from i2l_meshnet.training.average import WeightAverage


@pytest.mark.parametrize(("step", "decay"), [(1, 2 / 11), (9, 10 / 19), (10_000, 0.9)])
def test_early_steps_count_more_than_the_decay_says(step: int, decay: float) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 1.0]))
    average = WeightAverage({"weight": parameter}, 0.9)
    with torch.no_grad():
        parameter.copy_(torch.tensor([3.0, -1.0]))
    average.update(step)
    expected = decay * torch.ones(2) + (1 - decay) * torch.tensor([3.0, -1.0])
    torch.testing.assert_close(average.tensors["weight"], expected)


def test_the_average_is_lent_to_the_network_and_the_latest_weights_come_back() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage({"weight": parameter}, 0.5)
    with torch.no_grad():
        parameter.add_(1)
    with average.applied():
        assert parameter.item() == 1
    assert parameter.item() == 2
