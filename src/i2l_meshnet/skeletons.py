"""Joint sets of the datasets and bodies. Mirror pairs and maps between sets are derived from the joint names."""

import dataclasses
import itertools

LEFT, RIGHT = "L_", "R_"


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A named, ordered set of joints. The prefixes `L_` and `R_` mark left and right joints."""

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[str, str], ...]
    root: str

    def __post_init__(self) -> None:
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"skeleton {self.name!r} contains a joint twice")
        known = set(self.joints)
        unknown = sorted(({end for bone in self.bones for end in bone} | {self.root}) - known)
        if unknown:
            raise ValueError(f"skeleton {self.name!r} uses unknown joints: {', '.join(unknown)}")

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Index of `joint`. Raises ValueError if the skeleton has no such joint."""
        try:
            return self.joints.index(joint)
        except ValueError:
            raise ValueError(f"skeleton {self.name!r} has no joint {joint!r}") from None

    @property
    def root_index(self) -> int:
        return self.index(self.root)

    @property
    def bone_indices(self) -> tuple[tuple[int, int], ...]:
        return tuple((self.index(start), self.index(end)) for start, end in self.bones)

    @property
    def mirror_permutation(self) -> tuple[int, ...]:
        """The permutation `p` for which `points[..., p, :]` swaps left and right joints."""
        return mirror_permutation(self.joints)

    def remap_to(self, other: "Skeleton") -> tuple[tuple[int, int], ...]:
        """Pairs (index here, index in `other`) of the joints that are in both sets."""
        return tuple((i, other.joints.index(joint)) for i, joint in enumerate(self.joints) if joint in other.joints)


def mirror_permutation(names: tuple[str, ...]) -> tuple[int, ...]:
    """The permutation that swaps names with the prefixes `L_` and `R_`. Raises ValueError if a twin is missing."""

    def twin(name: str) -> str:
        if name.startswith(LEFT):
            return RIGHT + name.removeprefix(LEFT)
        if name.startswith(RIGHT):
            return LEFT + name.removeprefix(RIGHT)
        return name

    unpaired = [name for name in names if twin(name) not in names]
    if unpaired:
        raise ValueError(f"no twin of {', '.join(unpaired)} on the other side")
    return tuple(names.index(twin(name)) for name in names)


def _chains(*chains: str) -> tuple[tuple[str, str], ...]:
    """The bones of space-separated joint chains, each bone once."""
    bones: list[tuple[str, str]] = []
    for chain in chains:
        joints = chain.split()
        bones += [bone for bone in itertools.pairwise(joints) if bone not in bones]
    return tuple(bones)


SMPL = Skeleton(
    name="smpl",
    joints=tuple(
        "Pelvis L_Hip R_Hip Torso L_Knee R_Knee Spine L_Ankle R_Ankle Chest L_Toe R_Toe Neck L_Thorax R_Thorax Head "
        "L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist L_Hand R_Hand Nose L_Eye R_Eye L_Ear R_Ear".split()
    ),
    bones=_chains(
        "Pelvis L_Hip L_Knee L_Ankle L_Toe",
        "Pelvis R_Hip R_Knee R_Ankle R_Toe",
        "Pelvis Torso Spine Chest Neck Head Nose",
        "Nose L_Eye L_Ear",
        "Nose R_Eye R_Ear",
        "Chest L_Thorax L_Shoulder L_Elbow L_Wrist L_Hand",
        "Chest R_Thorax R_Shoulder R_Elbow R_Wrist R_Hand",
    ),
    root="Pelvis",
)

ANNY = Skeleton(
    name="anny",
    joints=(*SMPL.joints, "Head_top", "L_Heel", "R_Heel"),
    bones=(*SMPL.bones, ("Head", "Head_top"), ("L_Ankle", "L_Heel"), ("R_Ankle", "R_Heel")),
    root="Pelvis",
)

HUMAN36M = Skeleton(
    name="human36m",
    joints=tuple(
        "Pelvis R_Hip R_Knee R_Ankle L_Hip L_Knee L_Ankle Torso Neck Nose Head_top "
        "L_Shoulder L_Elbow L_Wrist R_Shoulder R_Elbow R_Wrist".split()
    ),
    bones=_chains(
        "Pelvis R_Hip R_Knee R_Ankle",
        "Pelvis L_Hip L_Knee L_Ankle",
        "Pelvis Torso Neck Nose Head_top",
        "Neck L_Shoulder L_Elbow L_Wrist",
        "Neck R_Shoulder R_Elbow R_Wrist",
    ),
    root="Pelvis",
)

MUCO = Skeleton(
    name="muco",
    joints=tuple(
        "Head_top Thorax R_Shoulder R_Elbow R_Wrist L_Shoulder L_Elbow L_Wrist R_Hip R_Knee R_Ankle "
        "L_Hip L_Knee L_Ankle Pelvis Spine Head R_Hand L_Hand R_Toe L_Toe".split()
    ),
    bones=_chains(
        "Pelvis Spine Thorax Head Head_top",
        "Thorax R_Shoulder R_Elbow R_Wrist R_Hand",
        "Thorax L_Shoulder L_Elbow L_Wrist L_Hand",
        "Pelvis R_Hip R_Knee R_Ankle R_Toe",
        "Pelvis L_Hip L_Knee L_Ankle L_Toe",
    ),
    root="Pelvis",
)

COCO = Skeleton(
    name="coco",
    joints=tuple(
        "Nose L_Eye R_Eye L_Ear R_Ear L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist "
        "L_Hip R_Hip L_Knee R_Knee L_Ankle R_Ankle Pelvis".split()
    ),
    bones=_chains(
        "Nose L_Eye L_Ear",
        "Nose R_Eye R_Ear",
        "Pelvis L_Hip L_Knee L_Ankle",
        "Pelvis R_Hip R_Knee R_Ankle",
        "L_Shoulder L_Elbow L_Wrist",
        "R_Shoulder R_Elbow R_Wrist",
        "L_Shoulder R_Shoulder",
        "L_Shoulder L_Hip",
        "R_Shoulder R_Hip",
    ),
    root="Pelvis",
)

MANO = Skeleton(
    name="mano",
    joints=(
        "Wrist",
        *(f"{finger}_{i}" for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky") for i in range(1, 5)),
    ),
    bones=_chains(
        *(
            "Wrist " + " ".join(f"{finger}_{i}" for i in range(1, 5))
            for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky")
        )
    ),
    root="Wrist",
)

HALPE26 = Skeleton(
    name="halpe26",
    joints=tuple(
        "Nose L_Eye R_Eye L_Ear R_Ear L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist L_Hip R_Hip "
        "L_Knee R_Knee L_Ankle R_Ankle Head_top Neck Pelvis L_Big_toe R_Big_toe L_Small_toe R_Small_toe "
        "L_Heel R_Heel".split()
    ),
    bones=_chains(
        "Pelvis Neck Head_top",
        "Neck Nose L_Eye L_Ear",
        "Nose R_Eye R_Ear",
        "Neck L_Shoulder L_Elbow L_Wrist",
        "Neck R_Shoulder R_Elbow R_Wrist",
        "Pelvis L_Hip L_Knee L_Ankle L_Heel",
        "Pelvis R_Hip R_Knee R_Ankle R_Heel",
        "L_Ankle L_Big_toe",
        "L_Ankle L_Small_toe",
        "R_Ankle R_Big_toe",
        "R_Ankle R_Small_toe",
    ),
    root="Pelvis",
)

TOY = Skeleton(
    name="toy",
    joints=tuple(
        "Pelvis Chest Head L_Shoulder R_Shoulder L_Elbow R_Elbow L_Hip R_Hip L_Knee R_Knee "
        "Head_top L_Wrist R_Wrist L_Ankle R_Ankle".split()
    ),
    bones=_chains(
        "Pelvis Chest Head Head_top",
        "Chest L_Shoulder L_Elbow L_Wrist",
        "Chest R_Shoulder R_Elbow R_Wrist",
        "Pelvis L_Hip L_Knee L_Ankle",
        "Pelvis R_Hip R_Knee R_Ankle",
    ),
    root="Pelvis",
)

SKELETONS = {skeleton.name: skeleton for skeleton in (SMPL, ANNY, HUMAN36M, MUCO, COCO, MANO, HALPE26, TOY)}
