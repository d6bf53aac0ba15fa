"""The inputs of the golden numbers of the published code: weights, images and targets, drawn by NumPy's MT19937.

Do not change the order of the draws; see tests/goldens/README.md.
"""

import zlib
from pathlib import Path

import numpy as np

from i2l_meshnet.models.snapshot import PREFIXES

GOLDENS = Path(__file__).parent / "goldens"

_GAINS = {
    "_net.conv_x.": 12.0,
    "_net.conv_y.": 12.0,
    "_net.conv_z_2.": 4.0,
    "downsample.0.": 0.5**0.5,
    "pose2feat.conv.0.": 3.0,
    "param_regressor.fc.0.": 0.03,
    "fc_pose.": 0.5,
    "fc_shape.": 0.5,
}
"""Factors on weights by part of the key, which keep activations near 1 and heatmaps peaked."""


def golden(name: str) -> np.lib.npyio.NpzFile:
    """The arrays of tests/goldens/{name}.npz."""
    return np.load(GOLDENS / f"{name}.npz")


def official_key(key: str) -> str:
    """The name of one of our tensors in published snapshots."""
    for theirs, ours in PREFIXES.items():
        if key.startswith(ours):
            return f"module.{theirs}{key.removeprefix(ours)}"
    raise KeyError(key)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a tensor of the published state dict; `key` includes `module.`."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    kind = key.rsplit(".", 1)[1]
    if kind == "running_mean":
        value = 0.1 * normal
    elif kind == "running_var":
        value = 1 + 0.1 * np.abs(normal)
    elif kind == "bias":
        value = 0.1 * normal
    elif len(shape) == 1:
        value = (0.3 if ".bn3." in key else 1.0) * (1 + 0.1 * normal)
    else:
        fan_in = shape[0] * shape[2] * shape[3] / 4 if ".deconv." in key else int(np.prod(shape[1:]))
        gain = next((gain for part, gain in _GAINS.items() if part in key), 1.0)
        value = gain * np.sqrt(2 / fan_in) * normal
    return value.astype(np.float32)


def images(batch: int = 2, seed: int = 20200) -> np.ndarray:
    """(batch, 3, 256, 256) in [0, 1]: coarse blocks with noise."""
    state = np.random.RandomState(seed)
    blocks = state.rand(batch, 3, 8, 8).repeat(32, 2).repeat(32, 3)
    noise = state.rand(batch, 3, 256, 256)
    return (0.7 * blocks + 0.3 * noise).astype(np.float32)


def subsample(values: np.ndarray, count: int = 256) -> np.ndarray:
    """`count` evenly spaced entries of the flattened array."""
    flat = np.asarray(values).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(count, flat.size)).astype(np.int64)]


def targets(kind: str, template: np.ndarray, batch: int = 4, seed: int = 20201) -> dict[str, np.ndarray]:
    """Targets and weights of the loss goldens for "body" or "hand", with their published names.

    template: the (V, 3) rest mesh. Camera joints are in metres (body) or millimetres (hand).
    """
    state = np.random.RandomState(seed)
    vertices, joints, pose, spread = (6890, 29, 72, 0.3) if kind == "body" else (778, 21, 48, 50.0)

    def normal(*shape: int) -> np.ndarray:
        return state.standard_normal(shape)

    def flags(share: float, *shape: int) -> np.ndarray:
        return (state.rand(*shape) < share).astype(np.float32)

    centred = template.astype(np.float64) - template.astype(np.float64).mean(0)
    drawn = {}
    drawn["fit_mesh_img"] = 31.5 + 24 * (centred / np.abs(centred).max()) + 1.5 * normal(batch, vertices, 3)
    drawn["fit_joint_img"] = 31.5 + 12 * normal(batch, joints, 3)
    drawn["orig_joint_img"] = drawn["fit_joint_img"] + 2 * normal(batch, joints, 3)
    drawn["fit_joint_cam"] = spread * normal(batch, joints, 3)
    drawn["orig_joint_cam"] = drawn["fit_joint_cam"] + spread / 6 * normal(batch, joints, 3)
    drawn["pose_param"] = 0.4 * normal(batch, pose)
    drawn["shape_param"] = 0.8 * normal(batch, 10)
    result = {name: value.astype(np.float32) for name, value in drawn.items()}
    result["fit_mesh_trunc"] = flags(0.85, batch, vertices, 1)
    result["fit_joint_trunc"] = flags(0.8, batch, joints, 1)
    result["orig_joint_trunc"] = flags(0.7, batch, joints, 1)
    result["orig_joint_valid"] = flags(0.9, batch, joints, 1)
    result["is_valid_fit"] = np.array([1, 0, 1, 1, 1, 0, 1, 1][:batch], np.float64)
    result["is_3D"] = np.array([1, 1, 0, 1, 0, 1, 1, 1][:batch], np.float64)
    return result
