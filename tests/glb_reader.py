"""Pose a GLB by its content alone, by the rules of glTF 2.0: nodes, inverse binds, weights, samplers."""

import functools
from pathlib import Path

import numpy as np
import pygltflib
from scipy.spatial.transform import Rotation, Slerp

_KINDS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class SkinnedFile:
    """The one skinned mesh of a GLB file."""

    def __init__(self, path: Path) -> None:
        self.world = functools.cache(self._world)
        self.gltf = pygltflib.GLTF2().load(str(path))
        self.blob = self.gltf.binary_blob()
        (self.carrier,) = (i for i, node in enumerate(self.gltf.nodes) if node.skin is not None)
        (self.primitive,) = self.gltf.meshes[self.gltf.nodes[self.carrier].mesh].primitives
        self.skin = self.gltf.skins[self.gltf.nodes[self.carrier].skin]
        self.parents = {child: i for i, node in enumerate(self.gltf.nodes) for child in node.children or []}
        self.faces = self.values(self.primitive.indices).reshape(-1, 3)
        self.vertices = self.attribute("POSITION")
        self.targets = [self.values(target["POSITION"]) for target in self.primitive.targets or []]
        self.binds = self.values(self.skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        sets = [k for k in range(8) if getattr(self.primitive.attributes, f"JOINTS_{k}", None) is not None]
        self.joints = np.concatenate([self.attribute(f"JOINTS_{k}") for k in sets], 1).astype(int)
        self.weights = np.concatenate([self.attribute(f"WEIGHTS_{k}") for k in sets], 1)

    def attribute(self, name: str) -> np.ndarray:
        return self.values(getattr(self.primitive.attributes, name))

    def values(self, number: int) -> np.ndarray:
        """The rows of an accessor."""
        accessor = self.gltf.accessors[number]
        view = self.gltf.bufferViews[accessor.bufferView]
        width, kind = _WIDTHS[accessor.type], np.dtype(_KINDS[accessor.componentType])
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        data = np.frombuffer(self.blob, kind, accessor.count * width, start)
        return data.reshape(accessor.count, width).astype(np.float64 if kind.kind == "f" else kind)

    @property
    def times(self) -> np.ndarray:
        """Times of the key frames, seconds."""
        return self.values(self.gltf.animations[0].samplers[0].input)[:, 0]

    def track(self, node: int, path: str, time: float | None) -> np.ndarray | None:
        """The animated value of a node at a time, or None: linear, and along the arc for quaternions."""
        if time is None or not self.gltf.animations:
            return None
        for channel in self.gltf.animations[0].channels:
            if (channel.target.node, channel.target.path) == (node, path):
                sampler = self.gltf.animations[0].samplers[channel.sampler]
                keys, values = self.values(sampler.input)[:, 0], self.values(sampler.output)
                values = values.reshape(len(keys), -1)
                if path == "rotation":
                    return Slerp(keys, Rotation.from_quat(values))(time).as_quat()
                return np.array([np.interp(time, keys, column) for column in values.T])
        return None

    def _world(self, node: int, time: float | None) -> np.ndarray:
        """Global transform of a node, (4, 4)."""
        here, matrix = self.gltf.nodes[node], np.eye(4)
        rotation, translation = (self.track(node, path, time) for path in ("rotation", "translation"))
        rotation = (here.rotation or [0, 0, 0, 1]) if rotation is None else rotation
        matrix[:3, :3] = Rotation.from_quat(rotation).as_matrix()
        matrix[:3, 3] = (here.translation or [0, 0, 0]) if translation is None else translation
        return self.world(self.parents[node], time) @ matrix if node in self.parents else matrix

    def pose(self, time: float | None = None) -> np.ndarray:
        """The mesh at a time (seconds), or without the animation. glTF's frame, metres."""
        amounts = self.track(self.carrier, "weights", time)
        if amounts is None:
            amounts = self.gltf.meshes[self.gltf.nodes[self.carrier].mesh].weights or []
        bound = self.vertices + sum(a * target for a, target in zip(amounts, self.targets, strict=True))
        maps = np.stack([self.world(node, time) for node in self.skin.joints]) @ self.binds
        points = np.concatenate([bound, np.ones((len(bound), 1))], 1)
        moved = np.einsum("vkij,vj->vki", maps[self.joints], points)[..., :3]
        return (moved * self.weights[..., None]).sum(1)
