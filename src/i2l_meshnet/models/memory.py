"""Limit the batch size of a network to the memory of the device."""

import warnings
from typing import Any

import torch
from torch import Tensor

from i2l_meshnet.errors import UserError
from i2l_meshnet.models.output import LixelNetwork, LixelOutput


class SplitBatches:
    """Wraps a network. If a batch does not fit in memory, it is halved until it fits, with one warning.

    Later batches have at most that size. Raises UserError if a single crop does not fit.
    """

    def __init__(self, network: LixelNetwork) -> None:
        self.grid = network.grid
        self._network, self._max_batch = network, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, image: Tensor) -> LixelOutput:
        done: list[LixelOutput] = []
        start = 0
        while start < len(image):
            part = image[start : start + (self._max_batch or len(image))]
            output = self._attempt(part)
            if output is not None:
                done.append(output)
                start += len(part)
                continue
            if len(part) == 1:
                raise UserError(
                    f"the network and one crop do not fit in the memory of the device {image.device.type!r}: close "
                    "other programs or use another device"
                )
            if not self._max_batch:
                warnings.warn(
                    f"a batch of {len(part)} does not fit in the memory of the device {image.device.type!r}: "
                    "continuing with smaller batches",
                    stacklevel=2,
                )
            self._max_batch = len(part) // 2
            if image.device.type == "cuda":
                torch.cuda.empty_cache()
        return done[0] if len(done) == 1 else LixelOutput.concatenate(done)

    def _attempt(self, image: Tensor) -> LixelOutput | None:
        """The network's output, or None if memory was full. The memory of a failed attempt is freed."""
        try:
            return self._network(image)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or is_out_of_memory(error):
                return None
            raise


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch ran out of memory: an error class on CUDA, an error message on the CPU."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
