"""The lifting parts of the default network: shapes, unseen keypoints, heatmaps and rotations."""

import dataclasses

import pytest
import torch

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.bodies.skinning import global_rotations
from i2l_meshnet.geometry.lixel import soft_argmax
from i2l_meshnet.models.assembly import build
from i2l_meshnet.models.config import LiftingSizes
from i2l_meshnet.models.keypoint import (
    MIN_CONFIDENCE,
    SIGMA,
    KeypointTrunk,
    VectorLixelHead,
    keypoint_config,
)
from i2l_meshnet.models.meshnet import MeshNet


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body("anny")


@pytest.fixture(scope="module")
def network(body: Body) -> MeshNet:
    torch.manual_seed(0)
    sizes = LiftingSizes(32, 1, joint_hidden=16, joint_channels=4, mesh_rank=24, mesh_hidden=16, mesh_channels=4)
    return build(keypoint_config(body, dataclasses.replace(sizes, fit=True)), body).eval()


@pytest.fixture
def keypoints() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 26, 3, generator=generator) * torch.tensor([192.0, 256.0, 1.0])


def test_outputs_have_the_body_s_shapes(network: MeshNet, body: Body):
    with torch.inference_mode():
        output = network(torch.rand(2, 3, 256, 192))
    assert output.vertices.shape == (2, body.joint_regressor.shape[1], 3)
    assert output.joints.shape == output.mesh_joints.shape == (2, len(body.skeleton.joints), 3)
    assert output.keypoints is not None
    assert output.keypoints.shape == (2, 26, 3)
    assert output.params is not None
    assert output.params.pose.shape == (2, len(body.bones), 3, 3)
    assert ((output.vertices >= 0) & (output.vertices <= 63)).all()


def test_a_crop_alone_gives_the_same_as_in_a_batch(network: MeshNet, keypoints: torch.Tensor):
    with torch.inference_mode():
        whole = network.from_pose(network.pose_net.lift(keypoints))
        single = network.from_pose(network.pose_net.lift(keypoints[1:2]))
    torch.testing.assert_close(whole.vertices[1:2], single.vertices, atol=1e-4, rtol=0)


def test_the_position_of_an_unseen_keypoint_has_no_influence(keypoints: torch.Tensor):
    trunk = KeypointTrunk(32, 1, (256, 192)).eval()
    keypoints[:, 4, 2] = MIN_CONFIDENCE / 2
    moved = keypoints.clone()
    moved[:, 4, :2] += 70
    torch.testing.assert_close(trunk(moved), trunk(keypoints))
    moved[:, 5, :2] += 70
    assert not torch.allclose(trunk(moved), trunk(keypoints))


def head_inside_the_grid() -> tuple[VectorLixelHead, torch.Tensor]:
    """A head whose centres are some bins apart and far from the ends of the grid."""
    torch.manual_seed(0)
    head = VectorLixelHead(8, 70, 4, 6, 3, (64, 48, 32))
    return head, torch.randn(2, 8)


def test_without_a_free_part_the_lixels_are_the_gaussians_centres():
    """Equal within 1e-2: sums over 32 to 64 bins of a Gaussian of 2.5 bins that is hardly cut off at the ends."""
    head, feature = head_inside_the_grid()
    with torch.no_grad():
        torch.testing.assert_close(head(feature), head.centers(feature), atol=1e-2, rtol=0)


def test_the_heatmaps_are_a_gaussian_and_a_free_part():
    """The formula in the docstring, bin by bin, with the plain soft-argmax."""
    head, feature = head_inside_the_grid()
    for layer in head.free:
        torch.nn.init.normal_(layer.weight, std=0.3)
    with torch.no_grad():
        found = head(feature)
        hidden = torch.nn.functional.silu(head.hidden(feature))
        for axis, size in enumerate((32, 48, 64)):
            offset = torch.arange(size) - (size - 1) / 2
            mean = head.centers(feature)[..., axis] - (size - 1) / 2
            gaussian = -((offset - mean[..., None]) ** 2) / (2 * SIGMA**2)
            free = head.free[axis](hidden).view(2, 3, size)
            logits = gaussian + head.rows[axis][:, :3] @ free
            torch.testing.assert_close(found[..., axis], soft_argmax(logits), atol=1e-3, rtol=0)
            assert (found[..., axis] - head.centers(feature)[..., axis]).abs().max() > 0.1


def test_parameters_follow_from_camera_rotations(network: MeshNet, body: Body, keypoints: torch.Tensor):
    with torch.inference_mode():
        pose = network.pose_net.lift(keypoints)
        output = network.from_pose(pose)
        regressor = network.parameter_regressor
        assert regressor is not None
        rotations, shape = regressor.camera_frame(output.mesh_joints, network.pose_to_feature(pose))
    assert output.params is not None
    torch.testing.assert_close(global_rotations(output.params.pose, body.parents), rotations, atol=1e-5, rtol=0)
    assert ((shape >= 0) & (shape <= 1)).all()
