"""Animated USD files, posed by OpenUSD's own skinning."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import dance
from pxr import Gf, Usd, UsdGeom, UsdSkel, Vt

from i2l_meshnet.animation import write_usd
from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError


@pytest.fixture(scope="module", params=["anny", "toy", "mano"])
def body(request: pytest.FixtureRequest, body_directory: Path) -> Body:
    return load_body(request.param, body_directory)


def posed(stage: Usd.Stage, time: float | None) -> np.ndarray:
    """The mesh in the world at a time code, as UsdSkel has it: blend shapes, then skinning."""
    root = UsdSkel.Root(stage.GetDefaultPrim())
    cache = UsdSkel.Cache()
    assert cache.Populate(root, Usd.TraverseInstanceProxies())
    (binding,) = cache.ComputeSkelBindings(root, Usd.TraverseInstanceProxies())
    (target,) = binding.GetSkinningTargets()
    when = Usd.TimeCode.Default() if time is None else Usd.TimeCode(time)
    skeleton = cache.GetSkelQuery(binding.GetSkeleton())
    points = UsdGeom.Mesh(target.GetPrim()).GetPointsAttr().Get()
    if target.HasBlendShapes():
        shapes = UsdSkel.BlendShapeQuery(UsdSkel.BindingAPI(target.GetPrim()))
        weights = skeleton.GetAnimQuery().ComputeBlendShapeWeights(when)
        parts = shapes.ComputeSubShapeWeights(weights)
        assert shapes.ComputeDeformedPoints(
            *parts, shapes.ComputeBlendShapePointIndices(), shapes.ComputeSubShapePointOffsets(), points
        )
    assert target.ComputeSkinnedPoints(skeleton.ComputeSkinningTransforms(when), points, when)
    return np.array(points, np.float64)


def test_the_file_moves_the_mesh_as_the_body_does(body: Body, tmp_path: Path) -> None:
    params, times = dance(body, 12)
    write_usd(tmp_path / "dancer.usdc", body, params, times)
    stage = Usd.Stage.Open(str(tmp_path / "dancer.usdc"))
    expected = body(params).vertices.double().numpy() * CAMERA_TO_GLTF
    rate = stage.GetTimeCodesPerSecond()
    for time, vertices in zip(times.tolist(), expected, strict=True):
        np.testing.assert_allclose(posed(stage, time * rate), vertices, atol=1e-4)
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert stage.GetStartTimeCode() / rate == pytest.approx(float(times[0]))
    mesh = UsdGeom.Mesh(next(prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)))
    faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    np.testing.assert_array_equal(faces, body.faces)
    assert body.licence in stage.GetMetadata("comment")


def test_names_of_bones_are_kept_and_no_rule_of_usd_is_broken(tmp_path: Path) -> None:
    body = load_body("anny")
    params, times = dance(body, 2)
    write_usd(tmp_path / "07 person.usda", body, params, times)
    stage = Usd.Stage.Open(str(tmp_path / "07 person.usda"))
    skeleton = UsdSkel.Skeleton(next(prim for prim in stage.Traverse() if prim.IsA(UsdSkel.Skeleton)))
    assert list(skeleton.GetJointNamesAttr().Get()) == list(body.rig_bones)
    joints = list(skeleton.GetJointsAttr().Get())
    for joint, parent in zip(joints, body.rig_parents, strict=True):
        assert joint.rpartition("/")[0] == ("" if parent < 0 else joints[parent])
    valid, why = UsdSkel.Topology(Vt.TokenArray(joints)).Validate()
    assert valid, why
    assert Gf.IsClose(
        float(
            np.sum(
                UsdGeom.PrimvarsAPI(stage.GetPrimAtPath("/_07_person/mesh")).GetPrimvar("skel:jointWeights").Get()[:12]
            )
        ),
        1.0,
        1e-5,
    )


def test_one_pose_has_no_time(tmp_path: Path) -> None:
    body = load_body("toy")
    params, _ = dance(body, 3)
    write_usd(tmp_path / "still.usd", body, params[1:2], torch.zeros(1))
    stage = Usd.Stage.Open(str(tmp_path / "still.usd"))
    assert not stage.HasAuthoredTimeCodeRange()
    expected = body(params[1]).vertices.double().numpy() * CAMERA_TO_GLTF
    np.testing.assert_allclose(posed(stage, None), expected, atol=1e-4)


def test_times_that_do_not_fit(tmp_path: Path) -> None:
    body = load_body("toy")
    params, times = dance(body, 4)
    with pytest.raises(InputError, match="times"):
        write_usd(tmp_path / "x.usdc", body, params, times.flip(0))
    assert not list(tmp_path.iterdir())
