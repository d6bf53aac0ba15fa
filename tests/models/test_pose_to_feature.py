"""Pose to feature: comparison with the plain version, which builds the Gaussian volumes."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from i2l_meshnet.models.output import PoseOutput
from i2l_meshnet.models.pose_to_feature import PoseToFeature
from i2l_meshnet.models.reference import PlainPoseToFeature


def make(joints: int, depth_bins: int, channels: int) -> tuple[PoseToFeature, PlainPoseToFeature]:
    torch.manual_seed(0)
    module = PoseToFeature(joints, depth_bins, channels).double()
    plain = copy.deepcopy(module)
    plain.__class__ = PlainPoseToFeature
    return module, plain


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    joints=st.integers(1, 4),
    depth_bins=st.integers(1, 9),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    spread=st.floats(0.1, 40),
)
def test_equals_the_convolved_volume(
    seed: int, joints: int, depth_bins: int, height: int, width: int, spread: float
) -> None:
    """Outputs and gradients, also for joints far outside the grid. The joints receive no gradient."""
    module, plain = make(joints, depth_bins, 5)
    generator = torch.Generator().manual_seed(seed)
    points = (spread * torch.randn(2, joints, 3, dtype=torch.float64, generator=generator)).requires_grad_()
    early = torch.randn(2, 5, height, width, dtype=torch.float64, generator=generator)
    pull = torch.randn(2, 5, height, width, dtype=torch.float64, generator=generator)
    results = []
    for part in (module, plain):
        feature = early.clone().requires_grad_()
        output = part.eval()(PoseOutput(points, feature))
        (output * pull).sum().backward()
        results.append([output, feature.grad, *(parameter.grad for parameter in part.parameters())])
    assert points.grad is None
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
