"""Load a network from a checkpoint, a published snapshot or the weights in the package."""

from importlib import resources
from pathlib import Path

import torch
from torch import nn

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.files import find_body_file
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.bodies.linear import load_mano
from i2l_meshnet.errors import InputError
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.snapshot import LICENCE, read_snapshot
from i2l_meshnet.models.unfilled import Unfilled

DEFAULT_WEIGHTS = "default.safetensors"
"""The default network, in i2l_meshnet/models/data."""
HAND_WEIGHTS = "hand.safetensors"
"""The hand network, in the same folder."""
PALM_WEIGHTS = "palm.safetensors"
"""MediaPipe's palm detector (`models.mediapipe.PalmNet`), which detects hands in images."""

SNAPSHOT_SUFFIXES = (".tar", ".pth", ".pt")
"""Suffixes of published snapshots (snapshot_N.pth.tar). All other files are read as checkpoints."""


def shipped_weights(name: str = DEFAULT_WEIGHTS) -> Path:
    """Path of weights in the package. Raises InputError if the file is missing in this installation."""
    path = Path(str(resources.files("i2l_meshnet.models") / "data" / name))
    if not path.is_file():
        raise InputError(
            f"this installation has no {name}; reinstall i2l-meshnet or give another file", argument="weights"
        )
    return path


def choose_device(name: str) -> torch.device:
    """The device for "auto" (CUDA if available), "cpu" or "cuda". Raises InputError if it is not available."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {name!r}; choose auto, cpu or cuda", argument="device")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError(
            "no CUDA device is available; choose cpu, or install a CUDA build of PyTorch", argument="device"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def load_network(
    path: Path, body_directory: Path | None = None, snapshot: bool | None = None, published_regressor: bool = False
) -> tuple[MeshNet, Body, checkpoint.Metadata]:
    """Load the network of a checkpoint or of a published snapshot_N.pth.tar, in eval mode on the CPU.

    body_directory: folder of the licensed files of SMPL and MANO. snapshot: whether `path` is a snapshot; default: by
    its suffix. published_regressor: the parity switch `middle_fingertip`: in networks of MANO, the tip of the middle
    finger is vertex 445, as in the published network.

    The parameter regressor is removed if it was never trained: in snapshots of the lixel stage, its BatchNorm layers
    have counted no batches. Raises UserError if a file cannot be loaded.
    """
    if path.suffix in SNAPSHOT_SUFFIXES if snapshot is None else snapshot:
        read = read_snapshot(path)
        metadata = checkpoint.Metadata(read.config, LICENCE, f"published snapshot {path.name}")
        body = _load_body(metadata.network.body, body_directory, published_regressor)
        with Unfilled():
            network = assembly.build(metadata.network, body).eval()
        checkpoint.load_state(network, read.state, path)
    else:
        metadata = checkpoint.read_metadata(path)
        body = _load_body(metadata.network.body, body_directory, published_regressor)
        network = checkpoint.load(path, body)
    if network.parameter_regressor is not None:
        norms = [part for part in network.parameter_regressor.modules() if isinstance(part, nn.BatchNorm1d)]
        # The parameter stage with frozen BatchNorm counts no batches either.
        untrained = all(norm.num_batches_tracked == 0 for norm in norms)
        if norms and untrained and metadata.extra.get("stage") != "param":
            network.parameter_regressor = None
    return network, body.eval(), metadata


def _load_body(name: str, directory: Path | None, published_regressor: bool) -> Body:
    if published_regressor and name == "mano":
        return load_mano(find_body_file(name, directory), published_regressor=True)
    return load_body(name, directory)
