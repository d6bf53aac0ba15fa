"""A tiny procedural body for tests: 84 vertices, 11 bones, 2 shape values, exactly mirror-symmetric."""

import numpy as np

from i2l_meshnet.bodies.linear import LinearBody, LinearBodyData
from i2l_meshnet.skeletons import TOY

_BONES = (
    ("Pelvis", -1),
    ("Chest", 0),
    ("Head", 1),
    ("L_Shoulder", 1),
    ("R_Shoulder", 1),
    ("L_Elbow", 3),
    ("R_Elbow", 4),
    ("L_Hip", 0),
    ("R_Hip", 0),
    ("L_Knee", 7),
    ("R_Knee", 8),
)

_PARTS = (
    # Bones of the start, middle and end; where these are, metres; half width and half depth.
    (("Pelvis", "Chest", "Chest"), ((0, 0.95, 0), (0, 1.2, 0), (0, 1.45, 0)), (0.17, 0.11)),
    (("Head", "Head", "Head"), ((0, 1.52, 0), (0, 1.64, 0.01), (0, 1.75, 0)), (0.08, 0.1)),
    (("L_Shoulder", "L_Elbow", "L_Elbow"), ((0.22, 1.4, 0), (0.36, 1.16, -0.02), (0.48, 0.94, 0.04)), (0.05, 0.05)),
    (("L_Hip", "L_Knee", "L_Knee"), ((0.1, 0.85, 0), (0.11, 0.47, 0.01), (0.12, 0.08, -0.02)), (0.07, 0.07)),
)
_RING = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
_PART_VERTICES = 14


def make_toy() -> LinearBody:
    """A standing figure of six closed prisms. Frame: x to the body's left, y up, z to the front; metres.

    Shape values: height (about 9 cm a unit) and girth.
    """
    names = [name for name, _ in _BONES]
    points, girths, weights, faces, starts = [], [], [], [], {}

    def add(bones: tuple[str, ...], centers: np.ndarray, size: tuple[float, float], mirrored: bool) -> None:
        base = _PART_VERTICES * len(points)
        flip = np.array([-1.0 if mirrored else 1.0, 1, 1])
        along = centers[2] - centers[0]
        side = np.cross(along, [0, 0, 1.0])
        side /= np.linalg.norm(side)
        front = np.cross(side, along) / np.linalg.norm(along)
        ring = _RING[:, :1] * side * size[0] + _RING[:, 1:] * front * size[1]
        bulge = np.concatenate([ring, ring, ring, np.zeros((2, 3))])
        axis = np.concatenate([np.repeat(centers, 4, 0), centers[[0, 2]] + along * [[-0.08], [0.08]]])
        points.append((axis + bulge) * flip)
        girths.append(bulge * flip)
        own = np.zeros((_PART_VERTICES, len(names)))
        first, middle, last = ([*names].index(bone) for bone in bones)
        own[[0, 1, 2, 3, 12], first] = 1
        own[[8, 9, 10, 11, 13], last] = 1
        own[4:8, first] += 0.5
        own[4:8, middle] += 0.5
        weights.append(own)
        tube = [
            triangle
            for start in (0, 4)
            for i in range(4)
            for j in ((i + 1) % 4,)
            for triangle in ((start + i, start + j, start + 4 + j), (start + i, start + 4 + j, start + 4 + i))
        ]
        caps = [(12, (i + 1) % 4, i) for i in range(4)] + [(13, 8 + i, 8 + (i + 1) % 4) for i in range(4)]
        part = base + np.array(tube + caps)
        faces.append(part if mirrored else part[:, ::-1])
        for bone, start in zip(bones, range(0, 12, 4), strict=True):
            starts.setdefault(bone, base + start)

    for bones, centers, size in _PARTS:
        add(bones, np.array(centers, float), size, mirrored=False)
        if bones[0].startswith("L_"):
            add(tuple("R_" + bone[2:] for bone in bones), np.array(centers, float), size, mirrored=True)
    template = np.concatenate(points)
    regressor = np.zeros((len(names), len(template)))
    for bone, start in starts.items():
        regressor[names.index(bone), start : start + 4] = 0.25
    shape = np.stack([template * 0.05, np.concatenate(girths) * 0.2], -1)
    ends = tuple(_PART_VERTICES * part + 13 for part in (1, 2, 3, 4, 5))
    return LinearBody(
        "toy",
        "Apache-2.0",
        TOY,
        tuple(names),
        LinearBodyData(
            template=template,
            shape_directions=shape,
            pose_directions=np.zeros((len(template), 3, 0)),
            weights=np.concatenate(weights),
            bone_regressor=regressor,
            parents=np.array([parent for _, parent in _BONES]),
            faces=np.concatenate(faces),
            pose_mean=np.zeros((len(names), 3)),
        ),
        joint_vertices=ends,
        vertex_mirror=_twins(template),
    )


def _twins(template: np.ndarray) -> np.ndarray:
    """The vertex at each vertex's mirror image."""
    image = template * np.array([-1.0, 1, 1])
    return np.linalg.norm(image[:, None] - template, axis=-1).argmin(1)
