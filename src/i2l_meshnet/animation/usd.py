"""Write skinned, animated bodies as USD (UsdSkel).

Source of the format: Pixar, "UsdSkel Schemas In-Depth" in the documentation of OpenUSD.
"""

import importlib
import importlib.util
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.animation.glb import Keys, bound_mesh, influences, morphs
from i2l_meshnet.animation.gltf import SKIN_COLOUR
from i2l_meshnet.animation.motion import RigClip
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.errors import InputError
from i2l_meshnet.io import read_bytes, write_bytes

USD_ENDINGS = (".usd", ".usdc", ".usda")
TIME_CODES_PER_SECOND = 1000
"""Time codes are floats, so the times of frames are kept to less than a microsecond."""


def require_usd() -> None:
    """Raise InputError if OpenUSD is not installed."""
    if importlib.util.find_spec("pxr") is None:
        raise InputError("USD files need OpenUSD: pip install 'i2l-meshnet[usd]'")


def _pxr(*names: str) -> list[Any]:
    """Import modules of OpenUSD. They are an extra, take seconds to import, and have no types."""
    return [importlib.import_module(f"pxr.{name}") for name in names]


def write_usd(path: Path, body: Body, params: BodyParams, times: Float[Tensor, "t"], full: bool = False) -> None:
    """Write an animated body as USD (.usdc, .usda or .usd): mesh, skeleton, skin weights, animation.

    Content, frame (y up, metres) and arguments: see `write_glb`. Pose-dependent correctives are blend shapes. Raises
    InputError for times that do not increase or if OpenUSD is not installed, FileError if the file cannot be written.
    """
    require_usd()
    Gf, Usd, UsdGeom, UsdSkel = _pxr("Gf", "Usd", "UsdGeom", "UsdSkel")

    clip = RigClip(body, params, times, full)
    keys = Keys.of(clip)
    vertices, targets, target_weights = morphs(clip.rig, keys.amounts)
    # OpenUSD writes the file directly, so it writes to a temporary folder.
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / f"scene{path.suffix}"
        stage: Any = Usd.Stage.CreateNew(str(saved))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetTimeCodesPerSecond(TIME_CODES_PER_SECOND)
        stage.SetMetadata("comment", f"body {body.name}: {body.licence}")
        if len(clip) > 1:
            stage.SetStartTimeCode(float(clip.times[0]) * TIME_CODES_PER_SECOND)
            stage.SetEndTimeCode(float(clip.times[-1]) * TIME_CODES_PER_SECOND)
            stage.SetFramesPerSecond(round(1 / float(clip.times.diff().median()), 3))
        name = "_" * (not path.stem[:1].isalpha()) + re.sub(r"\W", "_", path.stem, flags=re.ASCII)
        root = UsdSkel.Root.Define(stage, f"/{name}")
        stage.SetDefaultPrim(root.GetPrim())
        skeleton = _skeleton(stage, f"/{name}/skeleton", clip.rig, keys)
        animation = _animation(stage, f"/{name}/skeleton/motion", clip, keys)
        UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
        mesh = _mesh(stage, f"/{name}/mesh", body, clip.rig, vertices, full)
        UsdSkel.BindingAPI(mesh).CreateSkeletonRel().SetTargets([skeleton.GetPath()])
        if len(targets):
            names = [f"corrective_{i}" for i in range(len(targets))]
            _blend_shapes(stage, mesh, animation, names, targets[:, bound_mesh(body, len(vertices), full)[1]])
            _set_over_time(animation.CreateBlendShapeWeightsAttr(), clip, target_weights.astype(np.float32))
        # Viewers use the extent to skip objects that are out of view.
        low, high = keys.positions.min(0) - _reach(clip.rig), keys.positions.max(0) + _reach(clip.rig)
        root.CreateExtentAttr([Gf.Vec3f(*low.tolist()), Gf.Vec3f(*high.tolist())])
        stage.Save()
        write_bytes(path, read_bytes(saved))


def _reach(rig: Rig) -> float:
    """Maximum distance of vertices from the root bone, metres (estimated from the rest pose)."""
    return float((rig.vertices - rig.heads[0]).norm(dim=-1).max()) * 1.5


def _joints(rig: Rig) -> list[str]:
    """Joint names of USD: paths from the root bone."""
    paths: list[str] = []
    for bone, parent in zip(rig.bones, rig.parents, strict=True):
        own = re.sub(r"\W", "_", bone)
        paths.append(own if parent < 0 else f"{paths[parent]}/{own}")
    return paths


def _skeleton(stage: Any, path: str, rig: Rig, keys: Keys) -> Any:
    UsdSkel, Vt = _pxr("UsdSkel", "Vt")

    skeleton: Any = UsdSkel.Skeleton.Define(stage, path)
    skeleton.CreateJointsAttr(_joints(rig))
    skeleton.CreateJointNamesAttr(list(rig.bones))
    # USD multiplies row vectors, so its matrices are transposed.
    binds = torch.linalg.inv(rig.inverse_binds).mT.contiguous().numpy()
    skeleton.CreateBindTransformsAttr(Vt.Matrix4dArray.FromNumpy(binds))
    rest = np.tile(np.eye(4), (len(rig.bones), 1, 1))
    rest[:, 3, :3] = rig.offsets.numpy()
    skeleton.CreateRestTransformsAttr(Vt.Matrix4dArray.FromNumpy(rest))
    return skeleton


def _animation(stage: Any, path: str, clip: RigClip, keys: Keys) -> Any:
    """The rotations of the moving bones and the position of the root. Other bones keep the first pose."""
    UsdSkel, Vt = _pxr("UsdSkel", "Vt")

    count = len(clip.rig.bones)
    offsets, units = clip.rig.offsets.float().numpy().copy(), keys.first.copy()
    animation: Any = UsdSkel.Animation.Define(stage, path)
    animation.CreateJointsAttr(_joints(clip.rig))
    animation.CreateScalesAttr(Vt.Vec3hArray.FromNumpy(np.ones((count, 3), np.float16)))
    rotations, translations = animation.CreateRotationsAttr(), animation.CreateTranslationsAttr()
    for row, time in enumerate(clip.times.tolist()):
        units[keys.moving], offsets[0] = keys.quaternions[row], keys.positions[row]
        when = () if len(clip) == 1 else (time * TIME_CODES_PER_SECOND,)
        rotations.Set(Vt.QuatfArray.FromNumpy(units), *when)
        translations.Set(Vt.Vec3fArray.FromNumpy(offsets), *when)
    return animation


def _mesh(stage: Any, path: str, body: Body, rig: Rig, vertices: Float[np.ndarray, "v 3"], full: bool) -> Any:
    Gf, Sdf, UsdGeom, UsdSkel, Vt = _pxr("Gf", "Sdf", "UsdGeom", "UsdSkel", "Vt")

    faces, of_vertex, uv = bound_mesh(body, len(vertices), full)
    mesh: Any = UsdGeom.Mesh.Define(stage, path)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(vertices[of_vertex].astype(np.float32)))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(faces.astype(np.int32).reshape(-1)))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    low, high = vertices.min(0), vertices.max(0)
    mesh.CreateExtentAttr([Gf.Vec3f(*low.tolist()), Gf.Vec3f(*high.tolist())])
    colour = (np.array(SKIN_COLOUR) / 255).tolist()
    mesh.CreateDisplayColorAttr([Gf.Vec3f(*colour)])
    if uv is not None:
        primvars = UsdGeom.PrimvarsAPI(mesh)
        coordinates = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
        coordinates.Set(Vt.Vec2fArray.FromNumpy(uv.astype(np.float32)))
    joints, weights = influences(rig.weights.numpy()[of_vertex])
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    indices = binding.CreateJointIndicesPrimvar(False, joints.shape[1])
    indices.Set(Vt.IntArray.FromNumpy(joints.astype(np.int32).reshape(-1)))
    values = binding.CreateJointWeightsPrimvar(False, joints.shape[1])
    values.Set(Vt.FloatArray.FromNumpy(weights.astype(np.float32).reshape(-1)))
    binding.CreateGeomBindTransformAttr(Gf.Matrix4d(1))
    return mesh.GetPrim()


def _blend_shapes(stage: Any, mesh: Any, animation: Any, names: list[str], targets: Float[np.ndarray, "m v 3"]) -> None:
    UsdSkel, Vt = _pxr("UsdSkel", "Vt")

    paths = []
    for name, target in zip(names, targets, strict=True):
        shape: Any = UsdSkel.BlendShape.Define(stage, mesh.GetPath().AppendChild(name))
        shape.CreateOffsetsAttr(Vt.Vec3fArray.FromNumpy(target.astype(np.float32)))
        shape.CreatePointIndicesAttr(Vt.IntArray.FromNumpy(np.arange(len(target), dtype=np.int32)))
        paths.append(shape.GetPath())
    binding = UsdSkel.BindingAPI(mesh)
    binding.CreateBlendShapesAttr(names)
    binding.CreateBlendShapeTargetsRel().SetTargets(paths)
    animation.CreateBlendShapesAttr(names)


def _set_over_time(attribute: Any, clip: RigClip, values: np.ndarray) -> None:
    (Vt,) = _pxr("Vt")

    for time, row in zip(clip.times.tolist(), values, strict=True):
        attribute.Set(Vt.FloatArray.FromNumpy(row), *(() if len(clip) == 1 else (time * TIME_CODES_PER_SECOND,)))
