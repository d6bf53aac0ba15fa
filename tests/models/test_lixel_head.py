"""The lixel head: comparison with the plain head, which builds the heatmaps."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from i2l_meshnet.geometry.lixel import soft_argmax
from i2l_meshnet.models.lixel_head import LixelHead, attended_soft_argmax, linear_soft_argmax
from i2l_meshnet.models.reference import PlainLixelHead


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 3),
    points=st.integers(1, 9),
    bins=st.integers(1, 12),
    scale=st.floats(0, 30),
)
def test_equals_the_plain_soft_argmax(seed: int, batch: int, points: int, bins: int, scale: float) -> None:
    features, weight = draw(seed, batch, 5, bins), draw(seed + 1, points, 5) * scale
    expected = soft_argmax(weight @ features)
    torch.testing.assert_close(linear_soft_argmax(features, weight), expected, atol=1e-10, rtol=0)
    learned = linear_soft_argmax(features.requires_grad_(), weight.requires_grad_())
    torch.testing.assert_close(learned, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(attended_soft_argmax(features, weight), expected, atol=1e-10, rtol=0)


@pytest.mark.gpu
def test_attention_on_a_gpu_builds_no_heatmaps() -> None:
    features, weight = draw(5, 8, 256, 64).float().cuda(), draw(6, 6890, 256).float().cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        found = linear_soft_argmax(features, weight)
    added = torch.cuda.max_memory_allocated() - before
    assert added < 6890 * 64 * 4 * 8 / 2
    expected = soft_argmax(weight.double() @ features.double())
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=0)


def test_gradients_equal_finite_differences() -> None:
    features, weight = draw(1, 2, 4, 7).requires_grad_(), draw(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(linear_soft_argmax, (features, weight))


@pytest.mark.parametrize("training", [True, False])
def test_head_equals_the_plain_head(training: bool) -> None:
    torch.manual_seed(0)
    head = LixelHead(12, 17, depth_bins=16, channels=8).double().train(training)
    plain = copy.deepcopy(head)
    plain.__class__ = PlainLixelHead
    deep, pull = draw(3, 4, 12, 2, 2), draw(4, 4, 17, 3)
    results = []
    for module in (head, plain):
        lixels = module(deep)
        (lixels * pull).sum().backward()
        results.append([lixels, *(parameter.grad for parameter in module.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_axes_follow_columns_rows_and_depth() -> None:
    """x: columns of the map, y: rows, z: depth bins."""
    head = LixelHead(12, 3, depth_bins=10, channels=8).eval()
    x, y, z = head.features(torch.randn(2, 12, 2, 4))
    assert (x.shape, y.shape, z.shape) == ((2, 8, 32), (2, 8, 16), (2, 8, 10))


def test_the_soft_argmax_is_float32_under_autocast() -> None:
    features, weight = draw(5, 1, 64, 64).float(), draw(6, 40, 64).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = linear_soft_argmax(features, weight)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, linear_soft_argmax(features, weight))
    assert linear_soft_argmax(features.bfloat16(), weight).dtype == torch.float32


def test_no_heatmaps_are_saved_for_the_backward_pass() -> None:
    kept: list[int] = []
    features, weight = draw(7, 2, 8, 64).requires_grad_(), draw(8, 500, 8).requires_grad_()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        linear_soft_argmax(features, weight)
    assert sum(kept) == features.numel() + weight.numel() + 2 * 500
