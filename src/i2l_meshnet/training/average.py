"""An exponential moving average of a network's weights."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages the parameters that a stage trains.

    The decay of the first steps is at most `(1 + step) / (10 + step)`, so that the average soon forgets the initial
    weights.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self.tensors = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after `step` steps to the average."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for kept, latest in zip(self.tensors.values(), self._current(), strict=True):
            kept.lerp_(latest, 1 - decay)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore a saved average."""
        for name, kept in self.tensors.items():
            kept.copy_(tensors[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights while the context is open."""
        latest = [tensor.clone() for tensor in self._current()]
        self._set(list(self.tensors.values()))
        try:
            yield
        finally:
            self._set(latest)

    def _current(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self._parameters.values()]

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters.values(), values, strict=True):
            parameter.copy_(value)
