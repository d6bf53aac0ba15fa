"""Animated USD files, posed by OpenUSD's own skinning."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import dance
from pxr import Usd, UsdGeom, UsdSkel, Vt

from i2l_meshnet.animation import write_usd
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body, BodyParams

Vertices = Callable[[Body, BodyParams], np.ndarray]


def posed(stage: Usd.Stage, time: float | None) -> np.ndarray:
    """The mesh in the world at a time code, computed by UsdSkel: blend shapes, then skinning."""
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


@pytest.mark.parametrize("name", ["anny", "toy", "mano"])
def test_the_file_moves_the_mesh_like_the_body(
    name: str, body_directory: Path, vertices: Vertices, tmp_path: Path
) -> None:
    body = load_body(name, body_directory)
    params, times = dance(body, 12)
    write_usd(tmp_path / "dancer.usdc", body, params, times)
    stage = Usd.Stage.Open(str(tmp_path / "dancer.usdc"))
    rate = stage.GetTimeCodesPerSecond()
    for time, expected in zip(times.tolist(), vertices(body, params), strict=True):
        np.testing.assert_allclose(posed(stage, time * rate), expected, atol=1e-4)
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert stage.GetStartTimeCode() / rate == pytest.approx(float(times[0]))
    mesh = UsdGeom.Mesh(next(prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)))
    faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    np.testing.assert_array_equal(faces, body.faces)
    assert body.licence in stage.GetMetadata("comment")


def test_bone_names_are_kept_and_the_skeleton_is_valid(tmp_path: Path) -> None:
    body = load_body("anny")
    write_usd(tmp_path / "07 person.usda", body, *dance(body, 2))
    stage = Usd.Stage.Open(str(tmp_path / "07 person.usda"))
    skeleton = UsdSkel.Skeleton(next(prim for prim in stage.Traverse() if prim.IsA(UsdSkel.Skeleton)))
    assert list(skeleton.GetJointNamesAttr().Get()) == list(body.rig_bones)
    joints = list(skeleton.GetJointsAttr().Get())
    for joint, parent in zip(joints, body.rig_parents, strict=True):
        assert joint.rpartition("/")[0] == ("" if parent < 0 else joints[parent])
    valid, why = UsdSkel.Topology(Vt.TokenArray(joints)).Validate()
    assert valid, why
    assert stage.GetPrimAtPath("/_07_person/mesh")


def test_one_pose_has_no_time(toy: Body, vertices: Vertices, tmp_path: Path) -> None:
    params, _ = dance(toy, 3)
    write_usd(tmp_path / "still.usd", toy, params[1:2], torch.zeros(1))
    stage = Usd.Stage.Open(str(tmp_path / "still.usd"))
    assert not stage.HasAuthoredTimeCodeRange()
    np.testing.assert_allclose(posed(stage, None), vertices(toy, params[1]), atol=1e-4)
