"""Our checkpoint format: one safetensors file whose header carries the network's description as JSON.

Header entries: `format`, `version` and `i2l_meshnet`, a JSON object with `network` (a NetworkConfig: kind, backbone,
body, joints, grid and so on), `licence`, `source` and whatever `extra` the writer added. Only parameters and
persistent buffers are written: nothing of a licensed body model ever is.
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
from i2l_meshnet.errors import FileError
from i2l_meshnet.io import parse_json, reading, require_regular, write_safetensors
from i2l_meshnet.models import assembly
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.unfilled import Unfilled

FORMAT, VERSION = "i2l-meshnet", 1
_HEADER = "i2l_meshnet"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a checkpoint says about itself.

    licence: terms of the weights. source: where they come from. extra: what the writer added; of a network trained here
    it holds "precision", the one it was trained in (see `i2l_meshnet.precision`).
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
    """Writes `network` to `path` (conventionally .safetensors); `extra` holds JSON values to keep with it.

    licence: terms of the weights. source: where they come from. half: store floats in 16 bits, which `load`
    turns back to 32; BatchNorm statistics and scalars stay in 32.
    Raises ValueError for a network without description, FileError where the file cannot be written.
    """
    if network.config is None:
        raise ValueError("a network put together by hand has no description to save; use assembly.build")
    write(network.state_dict(), Metadata(network.config, licence, source, extra or {}), path, half=half)


def write(state: dict[str, Tensor], metadata: Metadata, path: Path, *, half: bool = False) -> None:
    """Writes a state dict with its description; see `save`."""

    def stored(key: str, value: Tensor) -> Tensor:
        value = value.detach().cpu().contiguous()
        is_weight = value.dtype == torch.float32 and "running_" not in key
        return value.half() if half and is_weight else value

    tensors = {key: stored(key, value) for key, value in state.items()}
    header = {"format": FORMAT, "version": str(VERSION), _HEADER: json.dumps(metadata.to_json())}
    # safetensors' own writer of files goes by a temporary file that a kill would leave.
    write_safetensors(path, encode(tensors, metadata=header))


def read_metadata(path: Path) -> Metadata:
    """The description in a checkpoint's header. Raises FileError for a file that is none."""
    return _open(path)[0]


def load(path: Path, body: Body | None = None, device: torch.device | str = "cpu") -> MeshNet:
    """The network in a checkpoint, in eval mode, float32, on `device`.

    `body` defaults to the one that the checkpoint names, found as `bodies.load_body` finds it. Loading is strict:
    raises FileError, in one line, for a file that is missing, no checkpoint, of a newer version, or whose
    tensors are not those of its description, and InputError for a body of another shape.
    """
    metadata, state = _open(path)
    body = body or bodies.load_body(metadata.network.body)
    # First without memory: a description may ask for any size; the tensors show whether they are that large.
    with reading(path, "a checkpoint of a network", "fetch it again"), torch.device("meta"), Unfilled():
        expected = assembly.build(metadata.network, body).state_dict()
    check_state(expected, state, path)
    with Unfilled():
        network = assembly.build(metadata.network, body)
    load_state(network, state, path)
    return network.eval().to(device)


def load_state(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Copies tensors into `network`, strictly; raises FileError as `check_state` does."""
    own = network.state_dict()
    check_state(own, state, path)
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(state[key])


def check_state(expected: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    """Raises FileError, naming `path` and the first thing amiss, unless keys and shapes are the expected ones."""
    missing, strange = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    for keys, what in ((missing, "lacks the"), (strange, "has the unknown")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise FileError(f"{path} {what} tensor {keys[0]!r}{more}: it is not a checkpoint of this network")
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise FileError(
                f"{path}: tensor {key!r} is {tuple(state[key].shape)}, the network's is {tuple(value.shape)}: "
                "it is not a checkpoint of this network"
            )


def require_state(value: Any) -> dict[str, Tensor]:
    """`value`, if it is a state dict. Raises ValueError otherwise."""
    if isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        return value
    raise ValueError("it has no dict of tensors")


def _open(path: Path) -> tuple[Metadata, dict[str, Tensor]]:
    fix = "give a checkpoint of ours; a published snapshot is converted by `i2l-meshnet convert`"
    with reading(path, "an I2L-MeshNet checkpoint", fix):
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if header.get("format") != FORMAT:
            raise ValueError("its header is of another format")
        version = header.get("version")
        if version != str(VERSION):
            raise FileError(f"{path} is of checkpoint version {version}, this software reads {VERSION}: update it")
        return Metadata.from_json(parse_json(header[_HEADER])), state
