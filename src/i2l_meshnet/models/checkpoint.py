"""Our checkpoint format: a safetensors file with the description of the network as JSON in its header.

Header entries: `format`, `version` and `i2l_meshnet`, a JSON object with `network` (a NetworkConfig: kind, backbone,
body, joints, grid and so on), `licence`, `source` and `extra`. Only parameters and persistent buffers are written, so a
checkpoint never contains data of a licensed body model.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as encode
from torch import Tensor, nn

from i2l_meshnet import bodies
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import parse_json, reading, require_regular, write_safetensors
from i2l_meshnet.models import assembly
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.unfilled import Unfilled

FORMAT, VERSION = "i2l-meshnet", 1
_HEADER = "i2l_meshnet"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The description in a checkpoint.

    licence: terms of the weights. source: origin of the weights. extra: other JSON values; networks trained here have
    "precision", the precision of the training (see `i2l_meshnet.precision`).
    """

    network: NetworkConfig
    licence: str
    source: str
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "network": self.network.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Metadata":
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for other values."""
        network = NetworkConfig.from_json(values["network"])
        return cls(network, values["licence"], values["source"], values["extra"])


def save(
    network: MeshNet,
    path: Path,
    extra: dict[str, Any] | None = None,
    *,
    licence: str = "",
    source: str = "",
    half: bool = False,
) -> None:
    """Write a network to a checkpoint (suffix .safetensors by convention).

    extra, licence, source: see `Metadata`. half: store weights as 16-bit floats, which `load` converts to 32 bits;
    BatchNorm statistics stay in 32 bits. Raises FileError if the file cannot be written, and InputError for a published
    network with replaced parts that its description does not name: it could not be loaded.
    """
    if network.config.kind == "published":
        with torch.device("meta"), Unfilled():
            described = assembly.build_published(network.config, network.joint_regressor).state_dict()
        shapes = {key: value.shape for key, value in described.items()}
        if shapes != {key: value.shape for key, value in network.state_dict().items()}:
            raise InputError(
                f"{path} would not load: the network has other tensors than its description (backbone "
                f"{network.config.backbone}, head {network.config.head}). Add your part to BACKBONES or HEADS "
                "(i2l_meshnet.models.published), and build the network with its name"
            )
    write(network.state_dict(), Metadata(network.config, licence, source, extra or {}), path, half=half)


def write(state: dict[str, Tensor], metadata: Metadata, path: Path, *, half: bool = False) -> None:
    """Write a state dict with its description; see `save`."""

    def stored(key: str, value: Tensor) -> Tensor:
        value = value.detach().cpu().contiguous()
        is_weight = value.dtype == torch.float32 and "running_" not in key
        return value.half() if half and is_weight else value

    tensors = {key: stored(key, value) for key, value in state.items()}
    header = {"format": FORMAT, "version": str(VERSION), _HEADER: json.dumps(metadata.to_json())}
    # The file writer of safetensors would leave a temporary file if the process is killed.
    write_safetensors(path, encode(tensors, metadata=header))


def read_metadata(path: Path) -> Metadata:
    """Read the description in a checkpoint. Raises FileError if the file is not a checkpoint."""
    return read(path)[0]


def load(path: Path, body: Body | None = None, device: torch.device | str = "cpu") -> MeshNet:
    """Load the network of a checkpoint, in eval mode, as float32, on `device`.

    body: default is the body of the description (`bodies.load_body`). Loading is strict. Raises FileError if the file
    is missing, is not a checkpoint, has another version, or if its tensors do not fit its description. Raises
    InputError if `body` does not fit the description.
    """
    metadata, state = read(path)
    return build_network(metadata, state, body or bodies.load_body(metadata.network.body), path).to(device)


def build_network(metadata: Metadata, state: dict[str, Tensor], body: Body, path: Path) -> MeshNet:
    """The network with these tensors, in eval mode on the CPU. path: of the file, for messages. Errors as in `load`."""
    # First without memory, because a description may name any size; the tensors must have the same shapes.
    with reading(path, "a checkpoint of a network", "download it again"), torch.device("meta"), Unfilled():
        expected = assembly.build(metadata.network, body).state_dict()
    check_state(expected, state, path)
    with Unfilled():
        network = assembly.build(metadata.network, body)
    load_state(network, state, path)
    return network.eval()


def load_state(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Copy all tensors into `network`. Raises FileError like `check_state`."""
    own = network.state_dict()
    check_state(own, state, path)
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(state[key])


def check_state(expected: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    """Raise FileError with `path` and the first difference unless keys and shapes are equal to the expected ones."""
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    for keys, what in ((missing, "lacks the"), (unknown, "has the unknown")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise FileError(f"{path} {what} tensor {keys[0]!r}{more}: it is not a checkpoint of this network")
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise FileError(
                f"{path}: tensor {key!r} has shape {tuple(state[key].shape)}, not {tuple(value.shape)}: "
                "it is not a checkpoint of this network"
            )


def require_state(value: Any) -> dict[str, Tensor]:
    """Return `value` if it is a state dict. Raises ValueError otherwise."""
    if isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        return value
    raise ValueError("it does not contain a dict of tensors")


def read(path: Path) -> tuple[Metadata, dict[str, Tensor]]:
    """The description and the tensors of a checkpoint, as they are stored. Raise FileError for another file."""
    fix = "give a checkpoint of this software; `i2l-meshnet convert` converts published snapshots"
    with reading(path, "an I2L-MeshNet checkpoint", fix):
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if header.get("format") != FORMAT:
            raise ValueError("its header has another format")
        version = header.get("version")
        if version != str(VERSION):
            raise FileError(f"{path} has checkpoint version {version}; this software reads {VERSION}: update it")
        return Metadata.from_json(parse_json(header[_HEADER])), state
