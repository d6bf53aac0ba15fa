"""A network that is asked for no more crops at once than the device's memory holds."""

import warnings
from typing import Any

import torch
from torch import Tensor

from i2l_meshnet.errors import UserError
from i2l_meshnet.models.output import LixelNetwork, LixelOutput


class InParts:
    """Stands for a network. A batch that the memory does not hold is halved until it does, which is told once.

    Later batches are no larger than what fitted. Raises UserError where not even one crop fits.
    """

    def __init__(self, network: LixelNetwork) -> None:
        self.grid = network.grid
        self._network, self._most = network, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, image: Tensor) -> LixelOutput:
        done: list[LixelOutput] = []
        start = 0
        while start < len(image):
            part = image[start : start + (self._most or len(image))]
            output = self._attempt(part)
            if output is not None:
                done.append(output)
                start += len(part)
                continue
            if len(part) == 1:
                raise UserError(
                    f"the memory of the device {image.device.type!r} does not hold the network and one crop: close "
                    "other programs, or use another device"
                )
            if not self._most:
                warnings.warn(
                    f"the memory of the device {image.device.type!r} does not hold a batch of {len(part)}: going on "
                    "with smaller ones",
                    stacklevel=2,
                )
            self._most = len(part) // 2
            if image.device.type == "cuda":
                torch.cuda.empty_cache()
        return done[0] if len(done) == 1 else LixelOutput.concatenate(done)

    def _attempt(self, image: Tensor) -> LixelOutput | None:
        """The network's answer; None if the memory was full, the memory of the attempt being free again then."""
        try:
            return self._network(image)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or is_out_of_memory(error):
                return None
            raise


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch found no memory. For CUDA it has a class of errors; on the CPU it says so in words."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
