"""A network ready for use from whichever weights the user names."""

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
"""The network that ships with the package, in i2l_meshnet/models/data."""
HAND_WEIGHTS = "hand.safetensors"
"""The hand network that ships beside it."""
PALM_WEIGHTS = "palm.safetensors"
"""MediaPipe's palm detector (`models.mediapipe.PalmNet`), which finds hands in pictures."""

SNAPSHOT_SUFFIXES = (".tar", ".pth", ".pt")
"""Endings of published snapshots, which are snapshot_N.pth.tar; everything else is read as a checkpoint of ours."""


def default_weights() -> Path:
    """The checkpoint that ships with the package. Raises InputError if this installation lacks it."""
    return shipped_weights(DEFAULT_WEIGHTS)


def shipped_weights(name: str) -> Path:
    """A file that ships with the package. Raises InputError if this installation lacks it."""
    path = Path(str(resources.files("i2l_meshnet.models") / "data" / name))
    if not path.is_file():
        raise InputError(
            f"this installation has no {name}; reinstall i2l-meshnet, or name another file", argument="weights"
        )
    return path


def choose_device(name: str) -> torch.device:
    """ "auto" (a CUDA device where there is one), "cpu" or "cuda". Raises InputError where there is none."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {name!r}; choose auto, cpu or cuda", argument="device")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError(
            "no CUDA device can be used here; choose cpu, or install a CUDA build of PyTorch", argument="device"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def load_network(
    path: Path, body_directory: Path | None = None, snapshot: bool | None = None, published_regressor: bool = False
) -> tuple[MeshNet, Body, checkpoint.Metadata]:
    """The network, in evaluation mode on the CPU, of a checkpoint of ours or of a published snapshot_N.pth.tar.

    body_directory: where the licensed files of SMPL and MANO are. snapshot: which of the two `path` is; None tells it
    by the ending. published_regressor: the parity switch `middle_fingertip`; networks of MANO then read the middle
    finger's tip at vertex 445, as the published network does. A published network whose parameter regressor was never
    trained (a snapshot of the lixel stage: its BatchNorm layers have seen no batch) comes without it. Raises UserError
    for whatever cannot be loaded.
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
        # Of a parameter stage with frozen BatchNorm they have not either.
        unseen = all(norm.num_batches_tracked == 0 for norm in norms)
        if norms and unseen and metadata.extra.get("stage") != "param":
            network.parameter_regressor = None
    return network, body.eval(), metadata


def _load_body(name: str, directory: Path | None, published_regressor: bool) -> Body:
    if published_regressor and name == "mano":
        return load_mano(find_body_file(name, directory), published_regressor=True)
    return load_body(name, directory)
