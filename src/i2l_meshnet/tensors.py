"""Frozen dataclasses of tensors."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound="TensorDataclass")
"""Used instead of `Self`, which beartype cannot check on single methods."""


@dataclasses.dataclass(frozen=True)
class TensorDataclass:
    """Base of dataclasses whose fields are tensors, other `TensorDataclass`es or None.

    All tensors start with the same batch axes, so indexing and collating apply to all fields. Fields of other types (a
    name, a tuple) are copied unchanged.
    """

    def map(self: T, function: Callable[[Tensor], Tensor]) -> T:
        """A copy with `function` applied to every tensor, including nested tensors."""
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = function(value)
            elif isinstance(value, TensorDataclass):
                changes[field.name] = value.map(function)
        return dataclasses.replace(self, **changes)

    def to(self: T, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> T:
        """A copy on `device`. `dtype` applies to floating-point tensors only."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

        return self.map(move)

    def pin_memory(self: T) -> T:
        """A copy in page-locked memory, for asynchronous copies to a CUDA device."""
        return self.map(Tensor.pin_memory)

    def detach(self: T) -> T:
        """A copy without gradients."""
        return self.map(Tensor.detach)

    def __getitem__(self: T, index: Any) -> T:
        """Index the batch axes of every tensor."""
        return self.map(lambda tensor: tensor[index])

    @classmethod
    def stack(cls: type[T], items: Sequence[T]) -> T:
        """Collate items along a new first axis. A field must be None in all items or in no item."""
        return cls._merge(items, torch.stack)

    @classmethod
    def concatenate(cls: type[T], items: Sequence[T]) -> T:
        """Concatenate batches along their first axis."""
        return cls._merge(items, torch.cat)

    @classmethod
    def _merge(cls: type[T], items: Sequence[T], join: Callable[[list[Tensor]], Tensor]) -> T:
        if not items:
            raise ValueError(f"cannot collate an empty list of {cls.__name__}")
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            values = [getattr(item, field.name) for item in items]
            first = values[0]
            if any((value is None) != (first is None) for value in values):
                raise ValueError(f"{cls.__name__}.{field.name} is missing in some of the items to collate")
            if isinstance(first, Tensor):
                changes[field.name] = join(values)
            elif isinstance(first, TensorDataclass):
                changes[field.name] = type(first)._merge(values, join)
            elif any(value != first for value in values):
                raise ValueError(f"{cls.__name__}.{field.name} differs between the items to collate")
        return dataclasses.replace(items[0], **changes)
