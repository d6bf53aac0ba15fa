"""Load a network from a checkpoint, a published snapshot or the weights in the package."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.files import find_body_file
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.bodies.linear import load_mano
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import open_regular
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.snapshot import read_snapshot

DEFAULT_WEIGHTS = "default.safetensors"
"""The default network, in i2l_meshnet/models/data."""
HAND_WEIGHTS = "hand.safetensors"
"""The hand network, in the same folder."""
PALM_WEIGHTS = "palm.safetensors"
"""MediaPipe's palm detector (`models.mediapipe.PalmNet`), which detects hands in images."""

SNAPSHOT_SUFFIXES = (".tar", ".pth", ".pt")
"""Suffixes of published snapshots (snapshot_N.pth.tar), for files whose content is neither."""
TORCH_STARTS = (b"PK\x03\x04", b"\x80")
"""First bytes of files of `torch.save`: a ZIP archive or, in old versions, a pickle."""

_REGRESSOR, _COUNTER = "parameter_regressor.", ".num_batches_tracked"


def shipped_weights(name: str = DEFAULT_WEIGHTS) -> Path:
    """Path of weights in the package. Raises InputError if the file is missing in this installation."""
    path = Path(str(resources.files("i2l_meshnet.models") / "data" / name))
    if not path.is_file():
        raise InputError(
            f"this installation has no {name}; reinstall i2l-meshnet or give another file", argument="weights"
        )
    return path


def is_snapshot(path: Path) -> bool:
    """Whether the first bytes of a file are those of a published snapshot. False if the file cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except (FileError, OSError):
        return False
    if start[8:] == b"{":  # safetensors: the length of the header, then its JSON.
        return False
    return start.startswith(TORCH_STARTS) or path.suffix in SNAPSHOT_SUFFIXES


def read_weights(path: Path) -> tuple[dict[str, Tensor], checkpoint.Metadata]:
    """The tensors and the description in a checkpoint or a published snapshot. Raise FileError for another file."""
    if is_snapshot(path):
        snapshot = read_snapshot(path)
        return snapshot.state, snapshot.metadata
    metadata, state = checkpoint.read(path)
    return state, metadata


def load_weights(
    path: Path, body_directory: Path | None = None, published_regressor: bool = False
) -> tuple[MeshNet, Body, checkpoint.Metadata]:
    """As `load_network`, but a parameter regressor that was never trained stays in the network."""
    state, metadata = read_weights(path)
    body = _load_body(metadata.network.body, body_directory, published_regressor)
    return checkpoint.build_network(metadata, state, body, path), body.eval(), metadata


def load_network(
    path: Path, body_directory: Path | None = None, published_regressor: bool = False
) -> tuple[MeshNet, Body, checkpoint.Metadata]:
    """A network in eval mode on the CPU, its body and its description, from a checkpoint or a published snapshot.

    body_directory: folder of the licensed SMPL and MANO files. published_regressor: the parity switch
    `middle_fingertip`: in networks of MANO, the tip of the middle finger is vertex 445, as in the published network.
    An untrained parameter regressor (in snapshots of the lixel stage) is removed. Raise UserError for a file that
    cannot be loaded.
    """
    network, body, metadata = load_weights(path, body_directory, published_regressor)
    if trained_stage(network.state_dict(), metadata) == "lixel":
        network.parameter_regressor = None
    return network, body, metadata


def trained_stage(state: Mapping[str, Tensor], metadata: checkpoint.Metadata) -> str:
    """The last stage that a network was trained in: "lixel" or "param"; "" for a network without these stages.

    The BatchNorm layers of an untrained parameter regressor have counted no batch. Checkpoints of `train` name a
    parameter stage, because with frozen BatchNorm nothing is counted.
    """
    if metadata.extra.get("stage") == "param":
        return "param"
    counts = [int(value) for key, value in state.items() if key.startswith(_REGRESSOR) and key.endswith(_COUNTER)]
    if not counts:
        return ""
    return "param" if any(counts) else "lixel"


def _load_body(name: str, directory: Path | None, published_regressor: bool) -> Body:
    if published_regressor and name == "mano":
        return load_mano(find_body_file(name, directory), published_regressor=True)
    return load_body(name, directory)
