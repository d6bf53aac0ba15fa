"""`i2l-meshnet info`."""

from pathlib import Path

from tyro.conf import Positional

from i2l_meshnet.console import output
from i2l_meshnet.installation import describe_weights, report


def info(file: Positional[Path | None] = None, body_dir: Path | None = None) -> int:
    """Show versions, devices, networks, bodies and assets, for bug reports. With a file: what it contains.

    Args:
        file: a checkpoint or a published snapshot.
        body_dir: folder of the licensed SMPL or MANO files.
    """
    for line in report(body_dir) if file is None else describe_weights(file):
        output(line)
    return 0
