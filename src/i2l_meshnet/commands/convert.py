"""`i2l-meshnet convert`."""

from pathlib import Path

from tyro.conf import Positional

from i2l_meshnet.console import output
from i2l_meshnet.errors import InputError
from i2l_meshnet.models.snapshot import convert_snapshot, published_settings, write_snapshot


def convert(source: Positional[Path], out: Positional[Path], half: bool = False) -> int:
    """Convert a published snapshot (.pth.tar) to a checkpoint (.safetensors), or the reverse.

    A checkpoint leaves out the data of the licensed body models. A snapshot written by this command can be read by the
    published test.py, demo.py and `train.py --continue` if it is named snapshot_N.pth.tar.

    Args:
        source: the file to read.
        out: the file to write; its ending, .safetensors or .pth.tar, decides the format.
        half: store 16-bit floats, half the size. For .safetensors only.
    """
    if out.name.endswith(".pth.tar"):
        if half:
            raise InputError("snapshots of the published code have 32-bit floats: convert without it", argument="half")
        config = write_snapshot(source, out)
        output(f"{out}: {config.backbone}, {config.body}, for the published code")
        for line in published_settings(config):
            output(f"in its config.py, set {line}")
        return 0
    if out.suffix != ".safetensors":
        raise InputError(f"{out} must end in .safetensors, or in .pth.tar for the published code")
    snapshot = convert_snapshot(source, out, half=half)
    for reason, keys in snapshot.dropped.items():
        if keys:
            output(f"left out {len(keys)} tensors: {reason}")
    config = snapshot.config
    output(f"{out}: {config.backbone}, {config.body}, {len(snapshot.state)} tensors, epoch {snapshot.epoch}")
    return 0
