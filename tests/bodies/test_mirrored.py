"""The left hand as the right one's mirror image."""

import torch

from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix


def test_mirrored_parameters_pose_the_mirrored_mesh():
    right, left = load_body("anny-hand"), load_body("anny-hand-left")
    generator = torch.Generator().manual_seed(0)
    pose = axis_angle_to_matrix(torch.randn(3, len(right.bones), 3, generator=generator) * 0.4)
    params = BodyParams(pose, right.mean_shape.expand(3, -1), torch.randn(3, 3, generator=generator))
    mesh, other = right(params), left(right.mirror(params))
    flip = torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(other.vertices, mesh.vertices * flip)
    torch.testing.assert_close(other.joints, left.joint_regressor @ other.vertices, atol=1e-5, rtol=0)
    assert left.name == "anny-hand-left"
    assert left.bones == right.bones


def test_its_faces_look_outwards():
    left = load_body("anny-hand-left")
    vertices = left(left.rest_params()).vertices
    corners = (vertices - vertices.mean(0))[left.faces]
    volume = torch.linalg.det(corners).sum() / 6
    assert 1e-4 < float(volume) < 1e-3
