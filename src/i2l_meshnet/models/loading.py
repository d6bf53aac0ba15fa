"""A network ready for use from whichever weights the user names."""

from importlib import resources
from pathlib import Path

import torch

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.files import find_body_file
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.bodies.linear import load_mano
from i2l_meshnet.errors import InputError
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.snapshot import read_snapshot

DEFAULT_WEIGHTS = "default.safetensors"
"""The network that ships with the package, in i2l_meshnet/models/data."""


def default_weights() -> Path:
    """The checkpoint that ships with the package. Raises InputError if this installation lacks it."""
    path = Path(str(resources.files("i2l_meshnet.models") / "data" / DEFAULT_WEIGHTS))
    if not path.is_file():
        raise InputError("this installation has no default network; reinstall i2l-meshnet, or give --weights")
    return path


def choose_device(name: str) -> torch.device:
    """ "auto" (a CUDA device where there is one), "cpu" or "cuda". Raises InputError where there is none."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {name!r}; choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("no CUDA device can be used here; choose --device cpu, or install a CUDA build of PyTorch")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def load_network(
    weights: Path | None = None,
    snapshot: Path | None = None,
    body_directory: Path | None = None,
    device: torch.device | str = "cpu",
    published_regressor: bool = False,
) -> tuple[MeshNet, Body]:
    """A network in eval mode and the body that it predicts, both on `device`.

    weights: a checkpoint of ours. snapshot: one of the published code instead. Neither: the network that ships with
    the package. body_directory: where the licensed files of SMPL and MANO are. published_regressor: the parity
    switch `middle_fingertip`; networks of MANO then read the middle finger's tip at vertex 445, as the published
    network does. Raises UserError for whatever cannot be loaded.
    """
    if weights is not None and snapshot is not None:
        raise InputError("give either --weights or --snapshot, not both")
    if snapshot is None:
        path = weights or default_weights()
        body = _load_body(checkpoint.read_metadata(path).network.body, body_directory, published_regressor)
        return checkpoint.load(path, body, device), body.eval().to(device)
    read = read_snapshot(snapshot)
    body = _load_body(read.config.body, body_directory, published_regressor)
    network = assembly.build(read.config, body)
    checkpoint.load_state(network, read.state, snapshot)
    return network.eval().to(device), body.eval().to(device)


def _load_body(name: str, directory: Path | None, published_regressor: bool) -> Body:
    if published_regressor and name == "mano":
        return load_mano(find_body_file(name, directory), published_regressor=True)
    return load_body(name, directory)
