"""Test the wheel in an empty environment outside the checkout (`make wheel-test`).

Builds the wheel and installs it with the extras [train] and [lab], at the versions of constraints.txt. In the new
environment, without the checkout on the path, it runs `i2l-meshnet predict` on a photo, one epoch of `train tiny`, and
`i2l-lab --help`. Needs the network for packages and assets that are not cached.

--synthesize also makes two images with `i2l-lab synthesize` (downloads 320 MB of assets) and trains on them with
`i2l-lab lift`. --reuse takes the packages of another environment instead of installing them: faster, but it does not
detect a dependency missing from pyproject.toml.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "train,lab"
CHECK = """import sys, i2l_lab, i2l_meshnet
for package in (i2l_lab, i2l_meshnet):
    assert package.__file__.startswith(sys.prefix), f"{package.__file__} is not from the wheel"
"""


def build(folder: Path) -> Path:
    """Build the wheel from a copy of the files in git, so that nothing else of the checkout is included."""
    copy = folder / "checkout"
    copy.mkdir()
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    archive = subprocess.run(
        ["tar", "--create", "--null", "--files-from=-"], cwd=ROOT, check=True, input=names, capture_output=True
    ).stdout
    subprocess.run(["tar", "--extract"], cwd=copy, check=True, input=archive)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", folder, copy], check=True)
    (wheel,) = folder.glob("i2l_meshnet-*.whl")
    return wheel


def make_environment(folder: Path, wheel: Path, reuse: Path | None) -> Path:
    """Create an environment with the wheel; return its folder of programs."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    python = programs / "python"
    if reuse is not None:
        packages = "import sysconfig; print(sysconfig.get_path('purelib'))"
        mine, other = (
            subprocess.run([name, "-c", packages], check=True, capture_output=True, text=True).stdout.strip()
            for name in (python, reuse / "bin" / "python")
        )
        # Python does not read the .pth files of a folder added by a .pth file, such as the other editable install.
        (Path(mine) / "reused.pth").write_text(other + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--no-deps", "--ignore-installed", wheel], check=True)
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", f"i2l-meshnet[{EXTRAS}]"], check=True)
    return programs


def use(programs: Path, folder: Path, synthesize: bool) -> None:
    """Run commands as a user does. Raise CalledProcessError or AssertionError."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str | Path) -> None:
        start = time.perf_counter()
        subprocess.run([programs / command[0], *command[1:]], cwd=folder, env=environment, check=True)
        print(f"{time.perf_counter() - start:6.1f} s: {' '.join(map(str, command)).splitlines()[0]}", flush=True)

    run("python", "-c", CHECK)
    photo = ROOT / "examples" / "standing_phone.jpg"
    run("i2l-meshnet", "assets", "detector")
    run("i2l-meshnet", "predict", photo, "--out", "results")
    made = {path.name for path in (folder / "results").iterdir()}
    assert {"standing_phone.json", "standing_phone.npz"} <= made, made
    run("i2l-meshnet", "train", "tiny", "--out", "training", "--end-epoch", "1")
    assert (folder / "training" / "model_dump").is_dir()
    run("i2l-lab", "--help")
    if synthesize:
        run("i2l-lab", "synthesize", "pictures", "--out", "pictures", "--count", "2", "--shard", "2")
        assert (folder / "pictures" / "train_00000.npz").is_file()
        run("i2l-lab", "synthesize", "detections", "--pictures", "pictures", "--out", "bank")
        steps = ("--training.steps", "2", "--training.batch", "16", "--training.workers", "0")
        run("i2l-lab", "lift", "--bank", "bank", "--out", "lifted", *steps)
        run("i2l-meshnet", "predict", photo, "--out", "lifted", "--weights", "lifted/network.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reuse", type=Path, help="environment whose packages are used")
    parser.add_argument("--synthesize", action="store_true", help="also make two images and a network with i2l-lab")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.perf_counter()
        wheel = build(folder)
        programs = make_environment(folder / "environment", wheel, options.reuse)
        print(f"{time.perf_counter() - start:6.1f} s: {wheel.name} is installed", flush=True)
        work = folder / "work"
        work.mkdir()
        use(programs, work, options.synthesize)


if __name__ == "__main__":
    main()
