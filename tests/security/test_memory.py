"""If memory is full, the batch is halved and the user is warned once. The results stay the same."""

import warnings

import pytest
import torch
from torch import Tensor

from i2l_meshnet.errors import UserError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.memory import SplitBatches
from i2l_meshnet.models.output import LixelOutput

CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to ...")
CUDA = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Narrow:
    """A network that raises `error` for more than `room` crops."""

    grid = LixelGrid()

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error, self.asked = room, error, []

    def __call__(self, image: Tensor) -> LixelOutput:
        self.asked.append(len(image))
        if len(image) > self.room:
            raise self.error
        points = image.mean((1, 2, 3))[:, None, None].expand(-1, 4, 3)
        return LixelOutput(points, points, points)


@pytest.mark.parametrize("error", [CPU, CUDA, MemoryError()], ids=["CPU", "CUDA", "Python"])
def test_the_batch_is_halved_with_one_warning(error: Exception) -> None:
    network, images = Narrow(3, error), torch.rand(10, 3, 8, 8)
    parts = SplitBatches(network)
    with pytest.warns(UserWarning, match="batch of 10") as warned:
        found = parts(images)
    torch.testing.assert_close(found.vertices, Narrow(10, error)(images).vertices, rtol=0, atol=0)
    assert len(warned) == 1
    assert network.asked == [10, 5, 2, 2, 2, 2, 2]
    network.asked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(parts(images[:4]).vertices) == 4
    assert network.asked == [2, 2]
    assert parts.grid is network.grid


def test_one_crop_that_does_not_fit_is_a_user_error() -> None:
    with pytest.warns(UserWarning, match="batch of 2"), pytest.raises(UserError):
        SplitBatches(Narrow(0, CUDA))(torch.rand(2, 3, 8, 8))


def test_other_errors_do_not_halve_the_batch() -> None:
    network = Narrow(1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        SplitBatches(network)(torch.rand(2, 3, 8, 8))
    assert network.asked == [2]
