"""The makers' own files, where the user has them (I2L_MESHNET_BODIES): what must hold of SMPL and MANO themselves."""

import pytest
import torch

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.errors import FileError

pytestmark = pytest.mark.licensed


def body_or_skip(name: str) -> Body:
    try:
        return load_body(name)
    except FileError as error:
        pytest.skip(f"needs SMPL or MANO files: {error}")


@pytest.mark.parametrize("name", ["smpl", "smpl-male", "smpl-female"])
def test_smpl_is_an_adult_facing_forward(name: str) -> None:
    body = body_or_skip(name)
    mesh = body(body.rest_params())
    size = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    assert 1.5 < float(size[1]) < 2.0
    joint = dict(zip(body.skeleton.joints, mesh.joints, strict=True))
    assert joint["L_Hip"][0] > joint["R_Hip"][0]
    assert joint["Nose"][2] > joint["Head"][2]
    assert joint["L_Eye"][0] > joint["R_Eye"][0]


def test_manos_fingertips_are_the_ends_of_the_fingers() -> None:
    body = body_or_skip("mano")
    mesh = body(body.rest_params())
    wrist = mesh.joints[0]
    for finger in ("Index", "Middle", "Ring", "Pinky"):
        reach = [(mesh.joints[body.skeleton.index(f"{finger}_{i}")] - wrist).norm() for i in (1, 2, 3, 4)]
        assert torch.stack(reach).diff().min() > 0
    assert 0.1 < float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max()) < 0.3
