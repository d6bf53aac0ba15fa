"""Skinned, animated bodies as GLB (glTF 2.0, binary).

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
from i2l_meshnet.bodies.base import Body, BodyParams, HasFullMesh
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.io import write_bytes
from i2l_meshnet.rendering.shading import vertex_normals

CORRECTIVE_TOLERANCE = 5e-4
"""Metres: what may be left out of the correctives of a frame, summed (in squares) over all its vertices."""

_FIRST_BONE = 2
"""Node of the root bone, behind the mesh and the node that holds the skeleton, which names Blender's armature."""


def write_glb(path: Path, body: Body, params: BodyParams, times: Float[Tensor, "t"], full: bool = False) -> None:
    """Writes a body in motion as GLB: mesh, skeleton, skin weights and, for more than one pose, an animation.

    params: T poses in the camera frame; the mesh is of their mean shape. times: of the poses, seconds, kept as they
    are. full: the full mesh with texture coordinates, where the body has one, in place of the network's; skinning it
    comes near to `full_mesh` only (docs/outputs.md), while the network's mesh is skinned exactly.

    glTF's frame: x right, y up, z towards the viewer; metres. The nodes are posed as in the first frame. Pose-dependent
    correctives (SMPL, MANO) are part of the bound mesh for one pose, and morph targets for more: as few as keep within
    `CORRECTIVE_TOLERANCE`. Raises InputError for times that do not increase, FileError if the file cannot be written.
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
    """The bound mesh: places, normals, texture coordinates where it has them, influences, morph targets."""
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
    """Triangles, which of the rig's vertices each of the file's (W) is, and texture coordinates, v upwards, or None."""
    if not (full and isinstance(body, HasFullMesh)):
        return body.faces.cpu().numpy(), np.arange(vertices), None
    uv = body.full_uv.cpu().double().numpy()
    faces, of_vertex, of_uv = one_index(body.full_faces.cpu().numpy(), uv, body.full_face_uv.cpu().numpy())
    return faces, of_vertex, uv[of_uv]


def influences(weights: Float[np.ndarray, "v n"]) -> tuple[Integer[np.ndarray, "v m"], Float[np.ndarray, "v m"]]:
    """The bones of each vertex that have a weight, largest first, and those weights; M is a multiple of four.

    Readers that know only one set of four so read the four that matter most.
    """
    most = int((weights > 0).sum(1).max())
    columns = -(-most // 4) * 4
    order = np.argsort(-weights, axis=1, kind="stable")[:, :columns]
    values = np.take_along_axis(weights, order, 1)
    values = np.pad(values, ((0, 0), (0, columns - order.shape[1])))
    order = np.pad(order, ((0, 0), (0, columns - order.shape[1])))
    kind = np.uint8 if weights.shape[1] <= 256 else np.uint16
    return np.where(values > 0, order, 0).astype(kind), values / values.sum(1, keepdims=True)


def morphs(
    rig: Rig, amounts: Float[Tensor, "t c"]
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "m v 3"], Float[np.ndarray, "t m"]]:
    """The bound mesh with the clip's mean correctives, the morph targets of the rest, and their weights (0 to 1).

    The targets are the main directions of the correctives of this clip, found among the amounts (T by C), so that the
    displacements of all frames are never held at once. Each is there twice, forth and back: Blender cuts weights that
    are less than zero.
    """
    mean = amounts.mean(0)
    basis = rig.correctives.flatten(1)
    vertices = rig.vertices + (mean @ basis).unflatten(-1, (-1, 3))
    # basis = root @ (orthonormal rows), so distances between rows of amounts @ root are those of the displacements.
    values, vectors = torch.linalg.eigh(basis @ basis.T)
    root = vectors * values.clamp_min(0).sqrt()
    left, sizes, _ = torch.linalg.svd((amounts - mean) @ root, full_matrices=False)
    scores = left * sizes
    # What is left of each frame without the targets from each on.
    rest = scores.square().flip(1).cumsum(1).flip(1).sqrt().amax(0)
    count = int((rest > CORRECTIVE_TOLERANCE).sum())
    reach = scores[:, :count].abs().amax(0)
    mix = (left[:, :count].T @ (amounts - mean)) / sizes[:count, None] * reach[:, None]
    targets = (mix @ basis).unflatten(-1, (-1, 3))
    weights = scores[:, :count] / reach
    both_ways = torch.cat([weights, -weights], 1).clamp_min(0)
    return vertices.numpy(), torch.cat([targets, -targets]).numpy(), both_ways.numpy()


@dataclasses.dataclass(frozen=True)
class Keys:
    """What a clip's animation consists of, T poses.

    first: unit quaternions (x, y, z, w) of all bones in the first pose. moving: the bones that turn; quaternions: of
    these, each on the side of the one before, so that interpolation takes the short way. places: of the root bone.
    amounts: of the rig's correctives.
    """

    first: Float[np.ndarray, "n 4"]
    moving: Integer[np.ndarray, "m"]
    quaternions: Float[np.ndarray, "t m 4"]
    places: Float[np.ndarray, "t 3"]
    amounts: Float[Tensor, "t c"]

    @staticmethod
    def of(clip: RigClip) -> "Keys":
        """Those of a clip, in single precision."""
        import roma  # takes two seconds

        start = clip.motion(slice(0, 1))
        turning = torch.zeros(len(clip.rig.bones), dtype=torch.bool)
        for part in clip.parts():
            turning |= (clip.motion(part).rotations != start.rotations).flatten(2).any(-1).any(0)
        first, moving = roma.rotmat_to_unitquat(start.rotations[0]), turning.nonzero()[:, 0]
        places = np.zeros((len(clip), 3), np.float32)
        quaternions = np.zeros((len(clip), len(moving), 4), np.float32)
        amounts, last = [], first[moving]
        for part in clip.parts():
            motion = clip.motion(part)
            turns = torch.cat([last[None], roma.rotmat_to_unitquat(motion.rotations[:, moving])])
            flips = torch.where((turns[1:] * turns[:-1]).sum(-1) < 0, -1.0, 1.0).cumprod(0)
            turns = turns[1:] * flips[..., None]
            quaternions[part], places[part], last = turns.numpy(), motion.places.numpy(), turns[-1]
            amounts.append(motion.amounts)
        return Keys(first.float().numpy(), moving.numpy(), quaternions, places, torch.cat(amounts))


def _bone_nodes(rig: Rig, keys: Keys) -> list[dict[str, Any]]:
    """The bones as nodes in the first pose."""
    places = [keys.places[0].tolist(), *rig.offsets[1:].tolist()]
    nodes = []
    for bone, name in enumerate(rig.bones):
        node = {"name": name, "translation": places[bone], "rotation": keys.first[bone].tolist()}
        children = [_FIRST_BONE + child for child, parent in enumerate(rig.parents) if parent == bone]
        nodes.append(node | ({"children": children} if children else {}))
    return nodes


def _animation(
    name: str, buffer: GlbBuffer, clip: RigClip, keys: Keys, target_weights: Float[np.ndarray, "t m"]
) -> dict[str, Any]:
    """Channels of the root's place, of every bone that turns, and of the morph targets."""
    clock = buffer.add(clip.times.numpy()[:, None], bounds=True)
    tracks = [(_FIRST_BONE, "translation", keys.places)]
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
