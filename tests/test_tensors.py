"""Dataclasses of tensors."""

import dataclasses

import pytest
import torch
from torch import Tensor

from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class Inner(TensorDataclass):
    value: Tensor


@dataclasses.dataclass(frozen=True)
class Outer(TensorDataclass):
    points: Tensor
    count: Tensor
    inner: Inner | None
    name: str = "set"


def make(start: float, with_inner: bool = True, name: str = "set") -> Outer:
    points = torch.arange(6.0).reshape(2, 3) + start
    return Outer(points, torch.tensor([1, 2]), Inner(points * 2) if with_inner else None, name)


def test_map_changes_nested_tensors_only() -> None:
    before = make(0)
    after = before.map(lambda tensor: tensor + 1)
    assert torch.equal(after.points, before.points + 1)
    assert after.inner is not None
    assert torch.equal(after.inner.value, before.points * 2 + 1)
    assert after.name == "set"
    assert torch.equal(before.points, make(0).points)


def test_to_changes_the_type_of_floating_point_tensors_only() -> None:
    moved = make(0).to(dtype=torch.float64)
    assert moved.points.dtype == torch.float64
    assert moved.count.dtype == torch.int64
    assert moved.to("cpu").points.dtype == torch.float64


def test_indexing_selects_along_the_first_axis() -> None:
    item = make(0)[1]
    assert item.points.tolist() == [3, 4, 5]
    assert item.count.item() == 2
    assert item.inner is not None
    assert item.inner.value.tolist() == [6, 8, 10]


def test_stacking_and_indexing_are_inverse() -> None:
    items = [make(0), make(10)]
    batch = Outer.stack(items)
    assert batch.points.shape == (2, 2, 3)
    for i, item in enumerate(items):
        assert torch.equal(batch[i].points, item.points)
    joined = Outer.concatenate(items)
    assert joined.points.shape == (4, 3)
    assert joined.inner is not None
    assert joined.inner.value.shape == (4, 3)
    assert Outer.stack([make(0, False), make(1, False)]).inner is None


def test_items_that_do_not_match_raise_an_error() -> None:
    with pytest.raises(ValueError, match="empty list of Outer"):
        Outer.stack([])
    with pytest.raises(ValueError, match=r"Outer\.name differs"):
        Outer.stack([make(0), make(0, name="other")])
    with pytest.raises(ValueError, match=r"Outer\.inner"):
        Outer.stack([make(0), make(0, with_inner=False)])
    with pytest.raises(ValueError, match=r"Outer\.inner"):
        Outer.stack([make(0, with_inner=False), make(0)])
