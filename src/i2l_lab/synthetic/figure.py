"""A stick figure of 15 segments, the common form of motion capture and procedural poses, and its transfer to Anny.

Axes are Anny's: x to the figure's left, -y to its front, z up. A segment's rotation is global. With identity rotations
the figure stands upright with straight legs, hanging arms, palms at the thighs and feet forward.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from i2l_meshnet.bodies.base import Body

SEGMENTS = (
    "root chest head L_upper_arm L_forearm L_hand R_upper_arm R_forearm R_hand "
    "L_thigh L_shin L_foot R_thigh R_shin R_foot"
).split()

SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "neck03", "head")

CLAVICLE_SHARE, SHOULDER_SHARE = 0.12, 0.08
"""Fractions of the upper arm's rotation relative to the chest that clavicle and shoulder blade make."""

MAKEHUMAN_TO_ANNY = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""From MakeHuman's axes (x left, y up, z front) to Anny's."""

LIMBS = {
    "upper_arm": ("Shoulder", "Elbow"),
    "forearm": ("Elbow", "Wrist"),
    "thigh": ("Hip", "Knee"),
    "shin": ("Knee", "Ankle"),
}


def rotation_between(
    source: Float[np.ndarray, "*n 3"], target: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "*n 3 3"]:
    """The smallest rotations from the directions `source` to the directions `target` (any lengths).

    For opposite directions: a rotation by 180° about an axis normal to them.
    """
    a = source / np.linalg.norm(source, axis=-1, keepdims=True)
    b = target / np.linalg.norm(target, axis=-1, keepdims=True)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (a * b).sum(-1, keepdims=True))
    # Parallel directions have no axis. Take a normal of `a` and of the coordinate axis farthest from `a`.
    normal = np.cross(a, np.eye(3)[np.abs(a).argmin(-1)])
    axis = np.where(sine > 1e-9, axis, normal)
    vector = axis / np.linalg.norm(axis, axis=-1, keepdims=True) * angle
    return Rotation.from_rotvec(vector.reshape(-1, 3)).as_matrix().reshape(*vector.shape, 3)


def share(rotation: Float[np.ndarray, "n 3 3"], part: float) -> Float[np.ndarray, "n 3 3"]:
    """Rotations about the same axes by a fraction of the angles."""
    return Rotation.from_rotvec(Rotation.from_matrix(rotation).as_rotvec() * part).as_matrix()


class FigureRetarget:
    """Transfers stick figures to Anny's bones, given the directions of the body's limbs at rest."""

    def __init__(self, body: Body) -> None:
        self.bones = body.bones
        with torch.no_grad():
            joints = body(body.rest_params()).joints.double().cpu().numpy()
        down = np.array([0.0, 0.0, -1.0])
        self._hang: dict[str, np.ndarray] = {}
        for side in "LR":
            for limb, (start, end) in LIMBS.items():
                ends = (joints[body.skeleton.index(f"{side}_{joint}")] for joint in (end, start))
                self._hang[f"{side}_{limb}"] = rotation_between(next(ends) - next(ends), down)

    def __call__(self, figure: Float[np.ndarray, "n 15 3 3"]) -> Float[np.ndarray, "n k 3 3"]:
        """Local rotations of the body's bones (order of `body.bones`) from global rotations of `SEGMENTS`.

        The bones of the spine bend equally, as do those of the neck. Clavicle and shoulder follow the arm slightly.
        """
        segment = {name: figure[:, i] for i, name in enumerate(SEGMENTS)}
        local = np.broadcast_to(np.eye(3), (len(figure), len(self.bones), 3, 3)).copy()

        def put(bone: str, rotation: np.ndarray) -> None:
            local[:, self.bones.index(bone)] = rotation

        root, chest = segment["root"], segment["chest"]
        put("root", root)
        for bone in SPINE:
            put(bone, share(_between(root, chest), 1 / len(SPINE)))
        for bone in NECK:
            put(bone, share(_between(chest, segment["head"]), 1 / len(NECK)))
        for side in "LR":
            hang = {limb: self._hang[f"{side}_{limb}"] for limb in LIMBS}
            upper, fore = segment[f"{side}_upper_arm"] @ hang["upper_arm"], segment[f"{side}_forearm"] @ hang["forearm"]
            arm = _between(chest, upper)
            clavicle, shoulder = share(arm, CLAVICLE_SHARE), share(arm, SHOULDER_SHARE)
            put(f"clavicle.{side}", clavicle)
            put(f"shoulder01.{side}", shoulder)
            put(f"upperarm01.{side}", _between(clavicle @ shoulder, arm))
            put(f"lowerarm01.{side}", _between(upper, fore))
            put(f"wrist.{side}", _between(fore, segment[f"{side}_hand"] @ hang["forearm"]))
            thigh, shin = segment[f"{side}_thigh"] @ hang["thigh"], segment[f"{side}_shin"] @ hang["shin"]
            put(f"upperleg01.{side}", _between(root, thigh))
            put(f"lowerleg01.{side}", _between(thigh, shin))
            put(f"foot.{side}", _between(shin, segment[f"{side}_foot"]))
        return local


def face_front(rotation: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Rotations about z that turn the heading of root rotations to the front (-y).

    If the body's front points nearly up or down (a lying person), its up axis gives the heading.
    """
    front, up = -rotation[:, :2, 1], rotation[:, :2, 2]
    flat = np.linalg.norm(front, axis=1, keepdims=True)
    heading = np.where(flat > 0.3, front, up)
    angle = -np.pi / 2 - np.arctan2(heading[:, 1], heading[:, 0])
    return Rotation.from_euler("z", angle[:, None]).as_matrix()


def _between(parent: np.ndarray, child: np.ndarray) -> np.ndarray:
    return np.swapaxes(parent, -1, -2) @ child
