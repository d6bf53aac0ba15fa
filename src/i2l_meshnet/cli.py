"""The `i2l-meshnet` command."""

import contextlib
import itertools
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Literal

import tyro
from tyro.conf import Positional

from i2l_meshnet.errors import InputError, UserError

_EXIT_INTERRUPTED = 130

COMMANDS = {
    "predict": "commands.predict:predict",
    "serve": "commands.serve:serve",
    "view": "commands.view:view",
    "rig": "commands.rig:rig",
    "evaluate": "commands.evaluate:evaluate",
    "train": "recipes:train",
    "lift": "commands.lift:lift",
    "lift-hand": "commands.lift:lift_hand",
    "data": "commands.data:data",
    "synthesize": "commands.synthesize:synthesize",
    "convert": "commands.convert:convert",
    "assets": "commands.assets:assets",
    "export": "commands.export:export",
    "bench": "commands.bench:bench",
    "info": "commands.info:info",
    "completion": "cli:completion",
}
"""Where each command's function is; its options and what it imports are not loaded for the others."""
EXAMPLES = {
    "predict": (
        "i2l-meshnet predict photo.jpg holiday/ --out results",
        "i2l-meshnet predict clip.mp4 --out results",
        "i2l-meshnet predict s3://bucket/photos --parquet people --engine ray --workers 8",
    ),
    "serve": ("i2l-meshnet serve --port 8000",),
    "view": ("i2l-meshnet view results/photo.json --picture photo.jpg",),
    "rig": (
        "i2l-meshnet rig results/clip_person_00.npz --out dancer.glb",
        "i2l-meshnet rig results/photo.json --person 1 --out person.bvh",
    ),
    "export": (
        "i2l-meshnet export --out default.onnx",
        "i2l-meshnet export --out hand.openvino --hand",
        "i2l-meshnet export --out body.openvino --weights body.safetensors --body-dir bodies --pictures photos",
    ),
    "bench": ("i2l-meshnet bench --only default predict --quick",),
    "evaluate": ("i2l-meshnet evaluate --data PW3D --root data --body-dir bodies --out results/pw3d",),
    "train": ("i2l-meshnet train tiny --out output", "i2l-meshnet train body-lixel --data data --gpu 0-3"),
    "lift": ("i2l-meshnet lift --bank bank --out lifting --mocap MOCAP",),
    "lift-hand": ("i2l-meshnet lift-hand --out hands --workers 2",),
    "data": ("i2l-meshnet data check PW3D --root data",),
    "data check": ("i2l-meshnet data check Human36M --root data --body-dir bodies",),
    "data convert": ("i2l-meshnet data convert 3dpw --release 3DPW --root data",),
    "data convert 3dpw": ("i2l-meshnet data convert 3dpw --release 3DPW --root data",),
    "data convert surreal": ("i2l-meshnet data convert surreal --release SURREAL --root data --body-dir bodies",),
    "data fetch": ("i2l-meshnet data fetch real-multiview",),
    "synthesize": ("i2l-meshnet synthesize pictures --out pictures --count 1024",),
    "synthesize pictures": ("i2l-meshnet synthesize pictures --out pictures --count 1024 --workers 2",),
    "synthesize detections": ("i2l-meshnet synthesize detections --pictures pictures --out bank",),
    "synthesize keypoints": ("i2l-meshnet synthesize keypoints --bank bank --out anny_halpe26_rendered.npz",),
    "convert": ("i2l-meshnet convert snapshot_12.pth.tar body.safetensors --half",),
    "assets": ("i2l-meshnet assets detector",),
    "info": ("i2l-meshnet info --body-dir bodies",),
    "completion": ("i2l-meshnet completion bash > ~/.local/share/bash-completion/completions/i2l-meshnet",),
}
"""What the help of a command ends with; one without an entry ends with that of the command above it."""
REMOVED = {
    "export --int8": "8-bit networks were removed: export without --int8; OpenVINO in fp16 is as fast",
    "export --calibration": "8-bit networks were removed: export without --calibration",
}
"""Commands and options of earlier versions, and what to use instead."""


def completion(shell: Positional[Literal["bash", "zsh", "fish"]]) -> int:
    """Print the script that completes this command in a shell.

    Args:
        shell: the shell to complete in.
    """
    with contextlib.suppress(SystemExit):
        _parse(["--tyro-print-completion", shell])
    return 0


def command(name: str) -> Callable[..., int]:
    """The function of a command."""
    return pkgutil.resolve_name(f"i2l_meshnet.{COMMANDS[name]}")


def _parse(arguments: Sequence[str]) -> int:
    """Runs the command that is named first; where none is, all are loaded, to tell of them."""
    for word in arguments[1:]:
        removed = REMOVED.get(f"{arguments[0]} {word.partition('=')[0]}")
        if removed is not None:
            raise InputError(removed)
    named = [name for name in arguments[:1] if name in COMMANDS]
    return tyro.extras.subcommand_cli_from_dict(
        {name: command(name) for name in named or COMMANDS},
        prog="i2l-meshnet",
        description="3D human meshes from one photograph.",
        args=arguments,
    )


def _print_examples(arguments: Sequence[str]) -> None:
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    while words and " ".join(words) not in EXAMPLES:
        words.pop()
    for example in EXAMPLES.get(" ".join(words), ("i2l-meshnet predict photo.jpg --out results",)):
        print(f"example: {example}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; what the user can mend is told in one line, code 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Read when PyTorch is loaded: its threads sleep while they wait, in place of taking the processor from those that
    # read pictures, draw and write.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return _parse(arguments)
    except SystemExit as leaving:
        if leaving.code == 0 and {"-h", "--help"} & {*arguments}:
            _print_examples(arguments)
        raise
    except UserError as error:
        print(f"i2l-meshnet: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        print("i2l-meshnet: not enough memory; take smaller pictures, batches or files", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("i2l-meshnet: stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; pointing stdout elsewhere keeps the interpreter quiet at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
