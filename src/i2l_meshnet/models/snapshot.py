"""Read published snapshots (`snapshot_{epoch}.pth.tar`) strictly, and convert them to our checkpoint format.

A snapshot is a pickled dict of `epoch`, `network` (a DataParallel state dict) and `optimizer`. It is unpickled with
`weights_only=True`, which runs no code. Every tensor is either used or dropped for a listed reason. The licensed
buffers of the body model, which published snapshots contain, are dropped.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from i2l_meshnet import skeletons
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.io import atomic_path, read_torch, reading
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.assembly import BODY_DEPTH, HAND_DEPTH, build_published
from i2l_meshnet.models.backbone import BLOCKS, STEM_KEYS, Bottleneck, ResNetName
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.lixel_head import UNUSED_KEYS
from i2l_meshnet.models.unfilled import Unfilled

PREFIXES = {
    "pose_backbone.": "pose_net.backbone.",
    "pose_net.": "pose_net.head.",
    "pose2feat.": "pose_to_feature.",
    "mesh_backbone.": "mesh_branch.backbone.",
    "mesh_net.": "mesh_branch.head.",
    "param_regressor.": "parameter_regressor.",
}
"""Published name of a module → our name."""

LICENCE = "the published I2L-MeshNet weights' own terms; trained with SMPL or MANO, whose licences allow research only"

PUBLISHED_BACKBONES = ("resnet50", "resnet101", "resnet152")
"""The published heads expect the 2048 channels of these ResNets."""

_DATA_PARALLEL = "module."
_POSE_STEM = tuple(f"pose_backbone.{key}" for key in STEM_KEYS)
_DROPPED = {
    "the body model's licensed buffers": ("human_model_layer.",),
    "the unused stem of the mesh backbone": tuple(f"mesh_backbone.{key}" for key in STEM_KEYS),
    "biases that soft-argmax ignores": tuple(
        f"{head}{key}" for head in ("pose_net.", "mesh_net.") for key in UNUSED_KEYS
    ),
}
_KINDS = {
    "body": NetworkConfig(
        "published", "resnet50", "smpl", skeletons.SMPL.joints, 6890, 24, 10, LixelGrid(depth_extent=BODY_DEPTH)
    ),
    "hand": NetworkConfig(
        "published", "resnet50", "mano", skeletons.MANO.joints, 778, 16, 10, LixelGrid(depth_extent=HAND_DEPTH)
    ),
}
"""The networks that were published."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The content of a snapshot with our names.

    dropped: reason → published keys (without `module.`) that were dropped. name: of the file.
    """

    config: NetworkConfig
    state: dict[str, Tensor]
    epoch: int
    dropped: dict[str, tuple[str, ...]]
    name: str

    @property
    def metadata(self) -> checkpoint.Metadata:
        """The description as in a checkpoint."""
        return checkpoint.Metadata(self.config, LICENCE, f"published snapshot {self.name}", {"epoch": self.epoch})


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot of the published body or hand network, with any ResNet.

    Raises FileError if the file is not a snapshot, or if its tensors are not exactly those of a published network.
    """
    epoch, tensors = _unpickle(path)
    dropped = {reason: tuple(key for key in tensors if key.startswith(keys)) for reason, keys in _DROPPED.items()}
    used = {key: tensor for key, tensor in tensors.items() if not any(key in keys for keys in dropped.values())}
    for module in PREFIXES:
        if not any(key.startswith(module) for key in used):
            raise FileError(
                f"{path} has no module {module.removesuffix('.')!r}: it is not a complete I2L-MeshNet snapshot; "
                "give a snapshot_N.pth.tar of the published code"
            )
    state = {_rename(key, path): tensor for key, tensor in used.items()}
    config = _describe(state, path)
    with torch.device("meta"), Unfilled():
        expected = build_published(config, torch.empty(len(config.joints), config.vertices)).state_dict()
    checkpoint.check_state(expected, state, path)
    return Snapshot(config, state, epoch, dropped, path.name)


def convert_snapshot(path: Path, out: Path, *, half: bool = False) -> Snapshot:
    """Convert a snapshot to a checkpoint, with 16-bit floats if `half`. Needs no body model.

    Raises FileError like `read_snapshot`, and if `out` cannot be written.
    """
    snapshot = read_snapshot(path)
    checkpoint.write(snapshot.state, snapshot.metadata, out, half=half)
    return snapshot


def write_snapshot(checkpoint_path: Path, out: Path) -> NetworkConfig:
    """Write a checkpoint as a snapshot for the published `test.py`, `demo.py` and `train.py --continue`.

    The file has the keys `epoch` (from the checkpoint, else 0), `network` and an empty `optimizer`, which the published
    code does not read. The buffers of the body model are not written: the published code has its own. Tensors that only
    it has, and that do not change its output, are zeros (biases before a softmax, the stem of the mesh backbone).

    Returns the network's description. Raises FileError for a file that cannot be read or written, and InputError for a
    network that the published code cannot hold.
    """
    metadata, state = checkpoint.read(checkpoint_path)
    config = metadata.network
    _require_published(config, checkpoint_path)
    names = {ours: theirs for theirs, ours in PREFIXES.items()}
    tensors = {}
    for key, value in state.items():
        ours = next(prefix for prefix in names if key.startswith(prefix))
        tensors[names[ours] + key.removeprefix(ours)] = value.float() if value.is_floating_point() else value
    for head, rows in (("pose_net.", len(config.joints)), ("mesh_net.", config.vertices)):
        tensors |= {f"{head}{key}": torch.zeros(rows) for key in UNUSED_KEYS}
    stem = {key: value for key, value in tensors.items() if key.startswith(_POSE_STEM)}
    tensors |= {key.replace("pose_", "mesh_", 1): torch.zeros_like(value) for key, value in stem.items()}
    epoch = metadata.extra.get("epoch", 0)
    network = {_DATA_PARALLEL + key: value for key, value in tensors.items()}
    with atomic_path(out) as temporary:
        torch.save({"epoch": epoch, "network": network, "optimizer": {}}, temporary)
    return config


def published_settings(config: NetworkConfig) -> list[str]:
    """Lines of the published config.py that differ for this network, such as "resnet_type = 101"."""
    known = next(kind for kind in _KINDS.values() if kind.body == config.body)
    settings = {
        "resnet_type": (config.backbone.removeprefix("resnet"), known.backbone.removeprefix("resnet")),
        "input_img_shape": (config.grid.crop_size, known.grid.crop_size),
        "output_hm_shape": (config.grid.shape, known.grid.shape),
        "bbox_3d_size": (config.grid.depth_extent, known.grid.depth_extent),
        "sigma": (config.sigma, known.sigma),
    }
    return [f"{name} = {value}" for name, (value, published) in settings.items() if value != published]


def _require_published(config: NetworkConfig, path: Path) -> None:
    """Raise InputError unless the published code can hold the network."""
    expected = next((known for known in _KINDS.values() if known.body == config.body), None)
    if config.kind != "published" or expected is None:
        reason = f"it is a {config.kind} network of the body {config.body}; the published code has SMPL and MANO only"
    elif config.backbone not in PUBLISHED_BACKBONES:
        reason = f"its backbone is {config.backbone}; the published heads need one of {', '.join(PUBLISHED_BACKBONES)}"
    elif config.joints != expected.joints or not config.regresses_parameters or config.head != "lixel":
        reason = "its joints, its heads or its parameter regressor differ from the published network's"
    else:
        return
    raise InputError(f"{path} cannot be written for the published code: {reason}")


def _unpickle(path: Path) -> tuple[int, dict[str, Tensor]]:
    """Epoch and network of a snapshot, with keys without `module.`. The file is memory-mapped if possible."""
    with reading(path, "a published snapshot", "give a snapshot_N.pth.tar"):
        content = read_torch(path, mmap=True)
        if "recipe" in content and "position" in content:
            raise FileError(f"{path} is a training state: give a snapshot (.safetensors) of the same folder")
        network, epoch = checkpoint.require_state(content["network"]), content.get("epoch")
    tensors = {key.removeprefix(_DATA_PARALLEL): value for key, value in network.items()}
    return epoch if isinstance(epoch, int) else -1, tensors


def _rename(key: str, path: Path) -> str:
    for theirs, ours in PREFIXES.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    raise FileError(f"{path} has the unknown tensor {key!r}: it is not a snapshot of the published I2L-MeshNet")


def _describe(state: dict[str, Tensor], path: Path) -> NetworkConfig:
    """The description of the published network whose shapes the tensors have."""

    def rows(key: str) -> int:
        if key not in state:
            raise FileError(f"{path} lacks the tensor {key!r} (our name): it is not a snapshot of the published code")
        if not state[key].shape:
            raise FileError(f"{path}: the tensor {key!r} (our name) is a number: it is not a snapshot")
        return state[key].shape[0]

    joints = rows("pose_net.head.conv_x.0.weight")
    vertices = rows("mesh_branch.head.conv_x.0.weight")
    bones, odd = divmod(rows("parameter_regressor.fc_pose.0.weight"), 6)
    for config in _KINDS.values():
        wanted = (len(config.joints), config.vertices, config.bones, 0)
        if (joints, vertices, bones, odd) == wanted:
            return dataclasses.replace(config, backbone=_backbone(state, path))
    kinds = ", ".join(f"{name}: {len(c.joints)}, {c.vertices} and {c.bones}" for name, c in _KINDS.items())
    raise FileError(
        f"{path} has {joints} joints, {vertices} vertices and {bones} bones, unlike the published networks ({kinds}); "
        "a network of another body cannot be converted"
    )


def _backbone(state: dict[str, Tensor], path: Path) -> ResNetName:
    """The ResNet of the pose net, by the number and type of the blocks."""

    def blocks(stage: int) -> int:
        prefix = f"pose_net.backbone.layer{stage}."
        return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})

    depths = tuple(blocks(stage) for stage in range(1, 5))
    bottleneck = "pose_net.backbone.layer1.0.conv3.weight" in state
    for name, (block, known) in BLOCKS.items():
        if known == depths and (block is Bottleneck) == bottleneck:
            return name
    raise FileError(f"{path} has a backbone with {depths} blocks, which is not ResNet-18, 34, 50, 101 or 152")
