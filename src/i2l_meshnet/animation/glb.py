"""Write skinned, animated bodies as GLB (glTF 2.0, binary).

Source of the format: Khronos, "glTF 2.0 Specification", sections 3.7 (meshes, skins), 3.11 (animations), 4 (GLB).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from i2l_meshnet.animation.gltf import VERTICES, GlbBuffer, generator, one_index, skin
from i2l_meshnet.animation.motion import RigClip
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.io import write_bytes
from i2l_meshnet.rendering.shading import vertex_normals

CORRECTIVE_TOLERANCE = 5e-4
"""Maximum error of the correctives in a frame, metres: the root of the summed squares over all vertices."""

_FIRST_BONE = 2
"""Node of the root bone, after the mesh and the parent of the skeleton, which is the armature's name in Blender."""


def write_glb(path: Path, body: Body, params: BodyParams, times: Float[Tensor, "t"], full: bool = False) -> None:
    """Write an animated body as GLB: mesh, skeleton, skin weights and, for more than one pose, an animation.

    params: T poses in the camera frame. The mesh has their mean shape. times: of the poses, seconds. full: write the
    full mesh with texture coordinates, if the body has one, instead of the network's mesh. Skinning reproduces the
    network's mesh exactly, but `full_mesh` only approximately (docs/outputs.md).

    The frame is glTF's: x right, y up, z towards the viewer; metres. The nodes have the first pose. Pose-dependent
    correctives (SMPL, MANO) of one pose are part of the bound mesh. For more poses they become the fewest morph targets
    within `CORRECTIVE_TOLERANCE`. Raises InputError for times that do not increase, FileError if the file cannot be
    written.
    """
    clip = RigClip(body, params, times, full)
    keys = Keys.of(clip)
    vertices, targets, target_weights = morphs(clip.rig, keys.amounts)
    buffer = GlbBuffer()
    mesh: dict[str, Any] = {
        "name": body.name,
        "primitives": [_primitive(buffer, body, clip.rig, vertices, targets, full)],
    }
    if len(targets):
        mesh["weights"] = target_weights[0].tolist()
    # Matrices are stored column by column.
    binds = buffer.add(clip.rig.inverse_binds.mT.reshape(-1, 16).numpy())
    gltf: dict[str, Any] = {
        "asset": {
            "version": "2.0",
            "generator": generator(),
            "copyright": f"body {body.name}: {body.licence}",
        },
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [
            {"name": f"{path.stem}_mesh", "mesh": 0, "skin": 0},
            {"name": path.stem, "children": [_FIRST_BONE]},
            *_bone_nodes(clip.rig, keys),
        ],
        "meshes": [mesh],
        "skins": [{"joints": [_FIRST_BONE + i for i in range(len(clip.rig.bones))], "inverseBindMatrices": binds}],
        "materials": [skin()],
    }
    if len(clip) > 1:
        gltf["animations"] = [_animation(path.stem, buffer, clip, keys, target_weights)]
    write_bytes(path, buffer.glb(gltf))


def _primitive(
    buffer: GlbBuffer,
    body: Body,
    rig: Rig,
    vertices: Float[np.ndarray, "v 3"],
    targets: Float[np.ndarray, "m v 3"],
    full: bool,
) -> dict[str, Any]:
    """The bound mesh: positions, normals, texture coordinates if it has them, bone influences, morph targets."""
    faces, of_vertex, uv = bound_mesh(body, len(vertices), full)
    normals = vertex_normals(vertices, of_vertex[faces])
    attributes = buffer.attributes(vertices[of_vertex], normals[of_vertex], uv)
    joints, weights = influences(rig.weights.numpy()[of_vertex])
    for first in range(0, joints.shape[1], 4):
        attributes[f"JOINTS_{first // 4}"] = buffer.add(joints[:, first : first + 4], VERTICES)
        attributes[f"WEIGHTS_{first // 4}"] = buffer.add(weights[:, first : first + 4], VERTICES)
    primitive: dict[str, Any] = {"attributes": attributes, "indices": buffer.triangles(faces), "material": 0}
    if len(targets):
        shifts = [buffer.add(target[of_vertex], VERTICES, bounds=True) for target in targets]
        primitive["targets"] = [{"POSITION": shift} for shift in shifts]
    return primitive


def bound_mesh(
    body: Body, vertices: int, full: bool
) -> tuple[Integer[np.ndarray, "f 3"], Integer[np.ndarray, "w"], Float[np.ndarray, "w 2"] | None]:
    """Triangles, the rig's vertex for each of the W vertices in the file, and texture coordinates (v up) or None."""
    if not (full and isinstance(body, AnnyBody)):
        return body.faces.cpu().numpy(), np.arange(vertices), None
    uv = body.full_uv.cpu().double().numpy()
    faces, of_vertex, of_uv = one_index(body.full_faces.cpu().numpy(), uv, body.full_face_uv.cpu().numpy())
    return faces, of_vertex, uv[of_uv]


def influences(weights: Float[np.ndarray, "v n"]) -> tuple[Integer[np.ndarray, "v m"], Float[np.ndarray, "v m"]]:
    """The bones that influence each vertex, largest weight first, and their weights. M is a multiple of four.

    Readers that support one set of four bones get the largest four.
    """
    columns = -(-int((weights > 0).sum(1).max()) // 4) * 4
    order = np.argsort(-weights, axis=1, kind="stable")[:, :columns]
    values = np.take_along_axis(weights, order, 1)
    values = np.pad(values, ((0, 0), (0, columns - order.shape[1])))
    order = np.pad(order, ((0, 0), (0, columns - order.shape[1])))
    kind = np.uint8 if weights.shape[1] <= 256 else np.uint16
    return np.where(values > 0, order, 0).astype(kind), values / values.sum(1, keepdims=True)


def morphs(
    rig: Rig, amounts: Float[Tensor, "t c"]
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "m v 3"], Float[np.ndarray, "t m"]]:
    """The bound mesh with the mean correctives of the clip, morph targets of the rest, and their weights (0 to 1).

    The targets are the principal components of the clip's correctives. They are computed from the amounts (T by C), so
    that the displacements of all frames are never in memory. Each target has a negative copy, because Blender clips
    negative weights.
    """
    mean = amounts.mean(0)
    basis = rig.correctives.flatten(1)
    vertices = rig.vertices + (mean @ basis).unflatten(-1, (-1, 3))
    # basis = root @ (orthonormal rows), so rows of amounts @ root have the same distances as the displacements.
    values, vectors = torch.linalg.eigh(basis @ basis.T)
    root = vectors * values.clamp_min(0).sqrt()
    left, sizes, _ = torch.linalg.svd((amounts - mean) @ root, full_matrices=False)
    scores = left * sizes
    # The maximum error over frames without the targets from index i.
    error = scores.square().flip(1).cumsum(1).flip(1).sqrt().amax(0)
    count = int((error > CORRECTIVE_TOLERANCE).sum())
    reach = scores[:, :count].abs().amax(0)
    mix = (left[:, :count].T @ (amounts - mean)) / sizes[:count, None] * reach[:, None]
    targets = (mix @ basis).unflatten(-1, (-1, 3))
    weights = scores[:, :count] / reach
    both_ways = torch.cat([weights, -weights], 1).clamp_min(0)
    return vertices.numpy(), torch.cat([targets, -targets]).numpy(), both_ways.numpy()


@dataclasses.dataclass(frozen=True)
class Keys:
    """The key frames of T poses.

    first: unit quaternions (x, y, z, w) of all bones in the first pose. moving: bones whose rotation changes.
    quaternions: of the moving bones, with signs for which interpolation takes the short arc. positions: of the root
    bone. amounts: weights of the rig's correctives.
    """

    first: Float[np.ndarray, "n 4"]
    moving: Integer[np.ndarray, "m"]
    quaternions: Float[np.ndarray, "t m 4"]
    positions: Float[np.ndarray, "t 3"]
    amounts: Float[Tensor, "t c"]

    @staticmethod
    def of(clip: RigClip) -> "Keys":
        """The key frames of a clip, in single precision."""
        import roma  # takes two seconds

        start = clip.motion(slice(0, 1))
        rotating = torch.zeros(len(clip.rig.bones), dtype=torch.bool)
        for part in clip.parts():
            rotating |= (clip.motion(part).rotations != start.rotations).flatten(2).any(-1).any(0)
        first, moving = roma.rotmat_to_unitquat(start.rotations[0]), rotating.nonzero()[:, 0]
        positions = np.zeros((len(clip), 3), np.float32)
        quaternions = np.zeros((len(clip), len(moving), 4), np.float32)
        amounts, last = [], first[moving]
        for part in clip.parts():
            motion = clip.motion(part)
            units = torch.cat([last[None], roma.rotmat_to_unitquat(motion.rotations[:, moving])])
            signs = torch.where((units[1:] * units[:-1]).sum(-1) < 0, -1.0, 1.0).cumprod(0)
            units = units[1:] * signs[..., None]
            quaternions[part], positions[part], last = units.numpy(), motion.positions.numpy(), units[-1]
            amounts.append(motion.amounts)
        return Keys(first.float().numpy(), moving.numpy(), quaternions, positions, torch.cat(amounts))


def _bone_nodes(rig: Rig, keys: Keys) -> list[dict[str, Any]]:
    """The bones as nodes in the first pose."""
    offsets = [keys.positions[0].tolist(), *rig.offsets[1:].tolist()]
    nodes = []
    for bone, name in enumerate(rig.bones):
        node = {"name": name, "translation": offsets[bone], "rotation": keys.first[bone].tolist()}
        children = [_FIRST_BONE + child for child, parent in enumerate(rig.parents) if parent == bone]
        nodes.append(node | ({"children": children} if children else {}))
    return nodes


def _animation(
    name: str, buffer: GlbBuffer, clip: RigClip, keys: Keys, target_weights: Float[np.ndarray, "t m"]
) -> dict[str, Any]:
    """Channels of the root's position, of every moving bone, and of the morph targets."""
    clock = buffer.add(clip.times.numpy()[:, None], bounds=True)
    tracks = [(_FIRST_BONE, "translation", keys.positions)]
    tracks += [(_FIRST_BONE + int(bone), "rotation", keys.quaternions[:, i]) for i, bone in enumerate(keys.moving)]
    if target_weights.shape[1]:
        tracks.append((0, "weights", target_weights.reshape(-1, 1)))
    return {
        "name": name,
        "samplers": [
            {"input": clock, "output": buffer.add(values), "interpolation": "LINEAR"} for *_, values in tracks
        ],
        "channels": [
            {"sampler": i, "target": {"node": node, "path": what}} for i, (node, what, _) in enumerate(tracks)
        ],
    }
