"""`i2l-meshnet info`."""

from pathlib import Path

from i2l_meshnet.installation import report


def info(body_dir: Path | None = None) -> int:
    """Show versions, devices, networks, bodies and assets, for bug reports.

    Args:
        body_dir: folder of the licensed SMPL or MANO files.
    """
    for line in report(body_dir):
        print(line)
    return 0
