"""`i2l-meshnet convert`."""

from pathlib import Path

from tyro.conf import Positional

from i2l_meshnet.errors import InputError
from i2l_meshnet.models.snapshot import convert_snapshot


def convert(snapshot: Positional[Path], out: Positional[Path], half: bool = False) -> int:
    """Convert a published snapshot (snapshot_N.pth.tar) to safetensors, without its licensed buffers.

    Args:
        snapshot: the published snapshot.
        out: the file to write, ending in .safetensors.
        half: store 16-bit floats, at half the size.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"{out} does not end in .safetensors")
    read = convert_snapshot(snapshot, out, half=half)
    for reason, keys in read.dropped.items():
        if keys:
            print(f"left out {len(keys)} tensors: {reason}")
    tensors = len(read.state)
    print(f"{out}: {read.config.backbone}, {read.config.body}, {tensors} tensors, epoch {read.epoch}")
    return 0
