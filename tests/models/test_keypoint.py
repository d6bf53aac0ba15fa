"""The default network's lifting parts: what they see, what they cannot see, and their rotations."""

import pytest
import torch

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.geometry.lixel import soft_argmax
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.assembly import build
from i2l_meshnet.models.keypoint import (
    LEAST_CONFIDENCE,
    KeypointTrunk,
    VectorLixelHead,
    keypoint_config,
    mirror_keypoints,
)
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.training.lifting_samples import camera_rotations


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body("anny")


@pytest.fixture(scope="module")
def network(body: Body) -> MeshNet:
    torch.manual_seed(0)
    config = keypoint_config(
        body, width=32, blocks=1, joint_hidden=16, joint_channels=4, mesh_hidden=16, mesh_channels=4
    )
    return build(config, body).eval()


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


def test_one_crop_alone_gives_what_it_gives_in_a_batch(network: MeshNet, keypoints: torch.Tensor):
    with torch.inference_mode():
        whole = network.from_pose(network.pose_net.lift(keypoints))
        single = network.from_pose(network.pose_net.lift(keypoints[1:2]))
    torch.testing.assert_close(whole.vertices[1:2], single.vertices, atol=1e-4, rtol=0)


def test_the_place_of_an_unseen_keypoint_does_not_matter(keypoints: torch.Tensor):
    trunk = KeypointTrunk(32, 1, (256, 192)).eval()
    keypoints[:, 4, 2] = LEAST_CONFIDENCE / 2
    moved = keypoints.clone()
    moved[:, 4, :2] += 70
    torch.testing.assert_close(trunk(moved), trunk(keypoints))
    moved[:, 5, :2] += 70
    assert not torch.allclose(trunk(moved), trunk(keypoints))


def test_head_is_the_soft_argmax_of_linear_heatmaps():
    head = VectorLixelHead(8, 5, 6, 3, (16, 16, 16))
    feature = torch.randn(2, 8)
    with torch.no_grad():
        found = head(feature)
        hidden = torch.nn.functional.silu(head.hidden(feature))
        for axis in range(3):
            columns = torch.nn.functional.silu(head.columns[axis](hidden)).view(2, 3, 16)
            torch.testing.assert_close(found[..., axis], soft_argmax(head.rows[axis] @ columns), atol=1e-4, rtol=0)


def test_parameters_follow_from_camera_rotations(network: MeshNet, body: Body, keypoints: torch.Tensor):
    with torch.inference_mode():
        pose = network.pose_net.lift(keypoints)
        output = network.from_pose(pose)
        regressor = network.parameter_regressor
        assert regressor is not None
        rotations, shape = regressor.camera_frame(output.mesh_joints, network.pose_to_feature(pose))
    assert output.params is not None
    torch.testing.assert_close(camera_rotations(output.params.pose, body.parents), rotations, atol=1e-5, rtol=0)
    assert ((shape >= 0) & (shape <= 1)).all()


def test_mirrored_twice_is_the_same(keypoints: torch.Tensor):
    torch.testing.assert_close(mirror_keypoints(mirror_keypoints(keypoints, 192), 192), keypoints)
    assert mirror_keypoints(keypoints, 192)[0, 1, 0] == 191 - keypoints[0, 2, 0]


def test_checkpoint_brings_the_network_back(network: MeshNet, keypoints: torch.Tensor, tmp_path):
    path = tmp_path / "keypoint.safetensors"
    checkpoint.save(network, path)
    again = checkpoint.load(path)
    with torch.inference_mode():
        first = network.from_pose(network.pose_net.lift(keypoints))
        second = again.from_pose(again.pose_net.lift(keypoints))
    torch.testing.assert_close(first.vertices, second.vertices)
