"""Sampled poses of the Anny body: source poses, mixed, recombined, with noise, within the joints' limits."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from scipy.spatial.transform import Rotation
from torch import Tensor

from i2l_lab.synthetic.bvh import figures, read_bvh
from i2l_lab.synthetic.figure import MAKEHUMAN_TO_ANNY, FigureRetarget, face_front
from i2l_lab.synthetic.procedural import draw_figures
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError, printable
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle, mirror_rotations
from i2l_meshnet.io import read_json, reading

UPPER_BODY = ("spine", "neck", "head", "clavicle", "shoulder", "upperarm", "lowerarm", "wrist")
ARMS = ("clavicle", "shoulder", "upperarm", "lowerarm", "wrist")

NOISE = {
    "root": 4.0,
    "spine": 2.5,
    "neck": 4.0,
    "head": 5.0,
    "clavicle": 4.0,
    "shoulder": 2.0,
    "upperarm01": 8.0,
    "lowerarm01": 6.0,
    "wrist": 12.0,
    "upperleg01": 5.0,
    "lowerleg01": 4.0,
    "foot": 8.0,
}
"""Standard deviations of the added rotations about each axis, degrees, by the start of the bone's name."""

LIMITS = {
    "pelvis": 40.0,
    "spine": 30.0,
    "neck": 35.0,
    "head": 40.0,
    "clavicle": 45.0,
    "shoulder": 45.0,
    "upperarm01": 150.0,
    "upperarm02": 60.0,
    "lowerarm01": 150.0,
    "lowerarm02": 100.0,
    "wrist": 75.0,
    "upperleg01": 140.0,
    "upperleg02": 60.0,
    "lowerleg01": 155.0,
    "lowerleg02": 45.0,
    "foot": 60.0,
}
"""Maximum rotation of a bone relative to its parent, from the rest pose, degrees. The root has no limit."""

FOREARM_TWIST = 28.0
"""Standard deviation of the added twist of the forearm, degrees."""

# Joints of the collision figure: name, parent joint, and the bone that moves the joint.
_JOINTS = (
    ("Pelvis", "", "root"),
    ("Spine", "Pelvis", "spine04"),
    ("Neck", "Spine", "spine02"),
    ("Head_top", "Neck", "neck03"),
    *(
        (f"{side}_{joint}", before if before in ("Pelvis", "Neck") else f"{side}_{before}", f"{bone}.{side}")
        for side in "LR"
        for joint, before, bone in (
            ("Hip", "Pelvis", "pelvis"),
            ("Knee", "Hip", "upperleg01"),
            ("Ankle", "Knee", "lowerleg01"),
            ("Shoulder", "Neck", "clavicle"),
            ("Elbow", "Shoulder", "upperarm01"),
            ("Wrist", "Elbow", "lowerarm01"),
            ("Hand", "Wrist", "wrist"),
        )
    ),
)

_RADII = {
    ("Pelvis", "Neck"): 0.10,
    ("Neck", "Head_top"): 0.08,
    ("Hip", "Knee"): 0.065,
    ("Knee", "Ankle"): 0.045,
    ("Elbow", "Wrist"): 0.035,
    ("Wrist", "Hand"): 0.03,
}
"""Radii of the limbs' capsules, metres, for the average body: a little smaller than the limbs, which are soft."""


@dataclasses.dataclass(frozen=True)
class PoseMix:
    """How poses are sampled.

    sources: weights of the bank's sources; missing sources are ignored. recombine: probability that the upper body is
    from another pose than the lower body; arms: the same for the arms. noise: maximum factor on `NOISE` (each pose
    draws its own).
    """

    sources: tuple[tuple[str, float], ...] = (("procedural", 0.62), ("makehuman", 0.10), ("mocap", 0.28))
    recombine: float = 0.3
    arms: float = 0.2
    noise: float = 1.3


class PoseBank:
    """Source poses: local rotations (n, k, 3, 3) in the order of the body's bones, with the heading to the front."""

    def __init__(self, sources: dict[str, Float[Tensor, "n k 3 3"]]) -> None:
        self.sources = sources

    @staticmethod
    def build(
        body: Body,
        makehuman: Path | None,
        mocap: Sequence[Path] = (),
        procedural: int = 20_000,
        seed: int = 0,
        frames_per_second: float = 10.0,
    ) -> "PoseBank":
        """Draw `procedural` poses and read MakeHuman's poses and motion capture.

        makehuman: the asset of that name, or None. mocap: folders of BVH files, which are reduced to
        `frames_per_second`. Files with an unsuitable skeleton are named and skipped.
        """
        retarget = FigureRetarget(body)
        rng = np.random.default_rng(seed)
        sources = {"procedural": retarget(draw_figures(procedural, rng))}
        if makehuman is not None:
            sources["makehuman"] = read_makehuman_poses(body, makehuman)
        clips = [read_mocap(retarget, folder, frames_per_second) for folder in mocap]
        if clips:
            sources["mocap"] = np.concatenate(clips)
        return PoseBank({name: torch.from_numpy(poses).float() for name, poses in sources.items()})

    def split(self, held_out: bool, every: int = 8) -> "PoseBank":
        """The training part of every source, or the held-out part: every `every`-th run of poses.

        A run is up to 16 neighbouring poses, because frames of a recording are similar.
        """
        parts = {}
        for name, poses in self.sources.items():
            run = max(1, min(16, len(poses) // (4 * every)))
            chosen = torch.arange(len(poses)) // run % every == every - 1
            parts[name] = poses[chosen if held_out else ~chosen]
        return PoseBank(parts)


def read_makehuman_poses(body: Body, folder: Path) -> Float[np.ndarray, "n k 3 3"]:
    """The poses of the asset `makehuman`. Bones that the body does not have are ignored.

    The file has quaternions (x, y, z, w) in the axes x left, y up, z front. Raise FileError if it is missing.
    """
    path = folder / "package" / "src" / "json" / "poses" / "poses.json"
    with reading(path, "MakeHuman's poses", fix="download the asset makehuman again"):
        poses = read_json(path)
    local = np.tile(np.eye(3), (len(poses), len(body.bones), 1, 1))
    for row, pose in enumerate(poses.values()):
        for column, bone in enumerate(body.bones):
            if bone in pose:
                local[row, column] = (
                    MAKEHUMAN_TO_ANNY @ Rotation.from_quat(pose[bone]).as_matrix() @ MAKEHUMAN_TO_ANNY.T
                )
    root = body.bones.index("root")
    local[:, root] = face_front(local[:, root]) @ local[:, root]
    return local


def read_mocap(retarget: FigureRetarget, folder: Path, frames_per_second: float) -> Float[np.ndarray, "n k 3 3"]:
    """Poses from all BVH files below a folder, at `frames_per_second`. Raise FileError if no file can be used."""
    result = []
    for path in sorted(folder.rglob("*.bvh")):
        try:
            motion = read_bvh(path)
            figure = figures(motion)
        except FileError as error:
            message = printable(f"skipped {path.name}: {error}")
            Console(stderr=True).print(message, highlight=False, markup=False, soft_wrap=True)
            continue
        figure = figure[:: max(1, round(1 / (frames_per_second * motion.frame_time)))]
        turn = face_front(figure[:, 0])
        result.append(retarget(turn[:, None] @ figure))
    if not result:
        raise FileError(f"{folder} contains no usable BVH file")
    return np.concatenate(result)


class PoseSampler:
    """Samples batches of poses from a bank. The same generator state gives the same poses.

    A pose is one of the bank, sometimes with the upper body or the arms of another one. Every bone gets a small
    rotation, half of the poses are mirrored, and each bone is kept within `LIMITS`. Poses whose limbs intersect are
    drawn again. The root's heading is the front (-y); the view rotates it.
    """

    def __init__(self, body: Body, bank: PoseBank, mix: PoseMix | None = None) -> None:
        if body.bone_mirror is None:
            raise ValueError(f"{body.name} has no left and right bones")
        self.mix = mix or PoseMix()
        weights = [(name, weight) for name, weight in self.mix.sources if name in bank.sources and weight > 0]
        if not weights:
            raise ValueError("the bank has no source of the mix")
        self._poses = torch.cat([bank.sources[name] for name, _ in weights])
        sizes = [len(bank.sources[name]) for name, _ in weights]
        share = torch.cat(
            [torch.full((size,), weight / size) for (_, weight), size in zip(weights, sizes, strict=True)]
        )
        self._cumulative = torch.cumsum(share.double(), 0)
        bones = body.bones
        self._mirror = list(body.bone_mirror)
        self._upper = torch.tensor([bone.startswith(UPPER_BODY) for bone in bones])
        self._arms = torch.tensor([bone.startswith(ARMS) for bone in bones])
        self._noise = torch.tensor([_by_name(NOISE, bone, 0.0) for bone in bones]) * math.pi / 180
        self._limit = torch.tensor([_by_name(LIMITS, bone, 180.0) for bone in bones]) * math.pi / 180
        self._figure = CollisionFigure(body)
        joints = self._figure.rest
        self._forearms = [
            (bones.index(f"lowerarm02.{side}"), joints[f"{side}_Wrist"] - joints[f"{side}_Elbow"]) for side in "LR"
        ]

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} k 3 3"]:
        """Draw `n` poses."""
        kept: list[Tensor] = []
        count = 0
        while count < n:
            poses = self._draw(max(8, int(1.3 * (n - count))), generator)
            poses = poses[~self._figure.collides(poses)]
            kept.append(poses)
            count += len(poses)
        return torch.cat(kept)[:n]

    def _pick(self, n: int, generator: torch.Generator) -> Tensor:
        chosen = torch.rand(n, generator=generator, dtype=torch.float64) * self._cumulative[-1]
        return self._poses[torch.searchsorted(self._cumulative, chosen).clamp(max=len(self._poses) - 1)]

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        def chance(probability: float) -> Tensor:
            return torch.rand(n, generator=generator) < probability

        poses = self._pick(n, generator)
        upper = chance(self.mix.recombine)[:, None] & self._upper
        poses = torch.where(upper[..., None, None], self._pick(n, generator), poses)
        arms = chance(self.mix.arms)[:, None] & self._arms
        poses = torch.where(arms[..., None, None], self._pick(n, generator), poses)
        size = torch.rand(n, 1, 1, generator=generator) * self.mix.noise
        turns = torch.randn(n, len(self._noise), 3, generator=generator) * size * self._noise[:, None]
        for bone, axis in self._forearms:
            twist = torch.randn(n, 1, generator=generator) * (FOREARM_TWIST * math.pi / 180)
            turns[:, bone] += twist * axis / axis.norm()
        moved = (turns.abs().sum((0, 2)) > 0).nonzero()[:, 0]
        poses[:, moved] = poses[:, moved] @ axis_angle_to_matrix(turns[:, moved])
        mirrored = mirror_rotations(poses[:, self._mirror])
        poses = torch.where(chance(0.5)[:, None, None, None], mirrored, poses)
        return limit_rotations(poses, self._limit)


def limit_rotations(poses: Float[Tensor, "n k 3 3"], limits: Float[Tensor, "k"]) -> Float[Tensor, "n k 3 3"]:
    """Limit the angles of rotations to those of the bones (radians); the axes stay the same."""
    cosine = (poses.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    beyond = cosine < limits.cos() - 1e-6
    turns = matrix_to_axis_angle(poses[beyond])
    allowed = limits.expand(poses.shape[:2])[beyond]
    result = poses.clone()
    result[beyond] = axis_angle_to_matrix(turns / turns.norm(dim=-1, keepdim=True) * allowed[:, None])
    return result


class CollisionFigure:
    """Capsules along the limbs of the average body, to detect poses in which limbs intersect."""

    def __init__(self, body: Body) -> None:
        with torch.no_grad():
            joints = body(body.rest_params()).joints.float().cpu()
        self.rest = {name: joints[body.skeleton.index(name)] for name, _, _ in _JOINTS}
        self._parents = body.parents
        self._bones = [body.bones.index(bone) for _, _, bone in _JOINTS]
        names = [name for name, _, _ in _JOINTS]
        self._before = [names.index(before) if before else -1 for _, before, _ in _JOINTS]
        self._offsets = torch.stack(
            [self.rest[name] - (self.rest[before] if before else self.rest[name]) for name, before, _ in _JOINTS]
        )
        used = set(self._bones)
        for bone in range(len(body.bones) - 1, -1, -1):
            if bone in used and self._parents[bone] >= 0:
                used.add(self._parents[bone])
        self._used = sorted(used)
        pairs = list(_capsule_pairs())
        self._ends = torch.tensor([[names.index(joint) for joint in (*a, *b)] for a, b in pairs])
        self._reach = torch.tensor([_radius(a) + _radius(b) for a, b in pairs])

    def joints(self, poses: Float[Tensor, "n k 3 3"]) -> Float[Tensor, "n j 3"]:
        """Positions of the figure's joints, with the pelvis at the origin, metres."""
        rotations: dict[int, Tensor] = {}
        for bone in self._used:
            parent = self._parents[bone]
            rotations[bone] = poses[:, bone] if parent < 0 else rotations[parent] @ poses[:, bone]
        positions: list[Tensor] = []
        for joint, before in enumerate(self._before):
            offset = rotations[self._bones[joint]] @ self._offsets[joint]
            positions.append(offset if before < 0 else positions[before] + offset)
        return torch.stack(positions, 1)

    def collides(self, poses: Float[Tensor, "n k 3 3"]) -> Bool[Tensor, "n"]:
        """Whether two limbs are closer to each other than the sum of their radii."""
        ends = self.joints(poses)[:, self._ends]
        return (segment_distance(*ends.unbind(2)) < self._reach).any(1)


def segment_distance(
    a: Float[Tensor, "*b 3"], b: Float[Tensor, "*b 3"], c: Float[Tensor, "*b 3"], d: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b"]:
    """Distance between the segments ab and cd (Ericson, Real-Time Collision Detection, 5.1.9)."""
    u, v, w = b - a, d - c, a - c
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    tiny = torch.finfo(a.dtype).tiny
    s = ((uv * vw - vv * uw) / (uu * vv - uv * uv).clamp_min(1e-12)).clamp(0, 1)
    t = (uv * s + vw) / vv.clamp_min(tiny)
    # If t is outside the second segment, use the segment's end and compute s again.
    t = t.clamp(0, 1)
    s = ((uv * t - uw) / uu.clamp_min(tiny)).clamp(0, 1)
    return (w + s[..., None] * u - t[..., None] * v).norm(dim=-1)


def _capsule_pairs() -> Sequence[tuple[tuple[str, str], tuple[str, str]]]:
    trunk, head = ("Pelvis", "Neck"), ("Neck", "Head_top")

    def limb(side: str, start: str, end: str) -> tuple[str, str]:
        return f"{side}_{start}", f"{side}_{end}"

    pairs = [
        (limb("L", "Elbow", "Wrist"), limb("R", "Elbow", "Wrist")),
        (limb("L", "Wrist", "Hand"), limb("R", "Wrist", "Hand")),
        (limb("L", "Knee", "Ankle"), limb("R", "Knee", "Ankle")),
    ]
    for side, other in ("LR", "RL"):
        fore, hand = limb(side, "Elbow", "Wrist"), limb(side, "Wrist", "Hand")
        shin = limb(side, "Knee", "Ankle")
        pairs += [(arm, thing) for arm in (fore, hand) for thing in (trunk, head)]
        pairs += [(arm, limb(leg, "Hip", "Knee")) for arm in (fore, hand) for leg in "LR"]
        pairs += [(shin, limb(other, "Hip", "Knee")), (shin, trunk)]
    return pairs


def _radius(segment: tuple[str, str]) -> float:
    start, end = (joint.removeprefix("L_").removeprefix("R_") for joint in segment)
    return _RADII[start, end]


def _by_name(table: dict[str, float], bone: str, default: float) -> float:
    return next((value for start, value in table.items() if bone.startswith(start)), default)
