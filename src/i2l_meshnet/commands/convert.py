"""`i2l-meshnet convert`."""

from pathlib import Path

from tyro.conf import Positional

from i2l_meshnet.errors import InputError
from i2l_meshnet.models.snapshot import convert_snapshot


def convert(snapshot: Positional[Path], out: Positional[Path], half: bool = False) -> int:
    """Convert an official snapshot (snapshot_N.pth.tar) to safetensors, without the licensed buffers in it.

    Args:
        snapshot: the published checkpoint.
        out: the file to write, ending in .safetensors.
        half: store 16-bit floats, half the size.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"{out} does not end in .safetensors; name the output so")
    read = convert_snapshot(snapshot, out, half=half)
    for reason, keys in read.dropped.items():
        if keys:
            print(f"left out {len(keys)} tensors: {reason}")
    tensors = len(read.state)
    print(f"{out}: {read.config.backbone}, {read.config.body}, {tensors} tensors, epoch {read.epoch}")
    return 0
