"""A tiny procedural body for tests: 84 vertices, 11 bones, 2 shape values, exactly mirror-symmetric."""

import dataclasses

import numpy as np

from i2l_meshnet.bodies.linear import LinearBody, LinearBodyData, LinearBodyForm
from i2l_meshnet.skeletons import TOY

_PARENTS = (-1, 0, 1, 1, 1, 3, 4, 0, 0, 7, 8)
_BONES = TOY.joints[: len(_PARENTS)]
_RING = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
_PART_VERTICES = 14


@dataclasses.dataclass(frozen=True)
class _Part:
    """A closed prism of three rings and two tips.

    bones: bones of the start, middle and end. centers: their positions, metres. size: half width and half depth.
    """

    bones: tuple[str, ...]
    centers: tuple[tuple[float | int, ...], ...]
    size: tuple[float, float]

    def vertices(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the vertices, and their distances from the axis of the prism."""
        centers = np.array(self.centers, float)
        along = centers[2] - centers[0]
        side = np.cross(along, [0, 0, 1.0])
        side /= np.linalg.norm(side)
        front = np.cross(side, along) / np.linalg.norm(along)
        ring = _RING[:, :1] * side * self.size[0] + _RING[:, 1:] * front * self.size[1]
        bulge = np.concatenate([ring, ring, ring, np.zeros((2, 3))])
        axis = np.concatenate([np.repeat(centers, 4, 0), centers[[0, 2]] + along * [[-0.08], [0.08]]])
        return axis + bulge, bulge

    def weights(self) -> np.ndarray:
        """Skin weights."""
        weights = np.zeros((_PART_VERTICES, len(_BONES)))
        first, middle, last = (_BONES.index(bone) for bone in self.bones)
        weights[[0, 1, 2, 3, 12], first] = 1
        weights[[8, 9, 10, 11, 13], last] = 1
        weights[4:8, first] += 0.5
        weights[4:8, middle] += 0.5
        return weights


_MIDDLE = (
    _Part(("Pelvis", "Chest", "Chest"), ((0, 0.95, 0), (0, 1.2, 0), (0, 1.45, 0)), (0.17, 0.11)),
    _Part(("Head", "Head", "Head"), ((0, 1.52, 0), (0, 1.64, 0.01), (0, 1.75, 0)), (0.08, 0.1)),
)
_LEFT = (
    _Part(
        ("L_Shoulder", "L_Elbow", "L_Elbow"), ((0.22, 1.4, 0), (0.36, 1.16, -0.02), (0.48, 0.94, 0.04)), (0.05, 0.05)
    ),
    _Part(("L_Hip", "L_Knee", "L_Knee"), ((0.1, 0.85, 0), (0.11, 0.47, 0.01), (0.12, 0.08, -0.02)), (0.07, 0.07)),
)


def make_toy() -> LinearBody:
    """A standing figure of six closed prisms. Frame: x to the body's left, y up, z to the front; metres.

    Shape values: height (about 9 cm per unit) and girth.
    """
    parts = [(part, False) for part in _MIDDLE]
    for part in _LEFT:
        bones = tuple("R_" + bone[2:] for bone in part.bones)
        parts += [(part, False), (dataclasses.replace(part, bones=bones), True)]
    flips = [np.array([-1.0 if mirrored else 1.0, 1, 1]) for _, mirrored in parts]
    shapes = [part.vertices() for part, _ in parts]
    template = np.concatenate([points * flip for (points, _), flip in zip(shapes, flips, strict=True)])
    girth = np.concatenate([bulge * flip for (_, bulge), flip in zip(shapes, flips, strict=True)])
    regressor = np.zeros((len(_BONES), len(template)))
    for index, (part, _) in enumerate(parts):
        for ring, bone in enumerate(part.bones):
            if not regressor[_BONES.index(bone)].any():
                start = _PART_VERTICES * index + 4 * ring
                regressor[_BONES.index(bone), start : start + 4] = 0.25
    prism = _prism_faces()
    faces = [_PART_VERTICES * i + (prism if mirrored else prism[:, ::-1]) for i, (_, mirrored) in enumerate(parts)]
    data = LinearBodyData(
        template=template,
        shape_directions=np.stack([template * 0.05, girth * 0.2], -1),
        pose_directions=np.zeros((len(template), 3, 0)),
        weights=np.concatenate([part.weights() for part, _ in parts]),
        bone_regressor=regressor,
        parents=np.array(_PARENTS),
        faces=np.concatenate(faces),
        pose_mean=np.zeros((len(_BONES), 3)),
        vertex_mirror=_mirror(template),
    )
    ends = tuple(_PART_VERTICES * part + 13 for part in (1, 2, 3, 4, 5))
    return LinearBody(LinearBodyForm("toy", "Apache-2.0", TOY, _BONES, joint_vertices=ends), data)


def _prism_faces() -> np.ndarray:
    """Triangles of one prism: two tubes of four sides, and two caps."""
    tube = [
        triangle
        for start in (0, 4)
        for i in range(4)
        for j in ((i + 1) % 4,)
        for triangle in ((start + i, start + j, start + 4 + j), (start + i, start + 4 + j, start + 4 + i))
    ]
    caps = [(12, (i + 1) % 4, i) for i in range(4)] + [(13, 8 + i, 8 + (i + 1) % 4) for i in range(4)]
    return np.array(tube + caps)


def _mirror(template: np.ndarray) -> np.ndarray:
    """Index of the vertex at the mirror image of each vertex."""
    image = template * np.array([-1.0, 1, 1])
    return np.linalg.norm(image[:, None] - template, axis=-1).argmin(1)
