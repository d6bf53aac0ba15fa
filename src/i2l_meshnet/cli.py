"""The `i2l-meshnet` command."""

import contextlib
import dataclasses
import errno
import itertools
import os
import pkgutil
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from i2l_meshnet.errors import InputError, UserError

_EXIT_INTERRUPTED = 130
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EIO)
"""Errors of writing to standard output. Errors of writing files are `FileError`."""


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """A program with subcommands. Only the subcommand that runs is imported.

    commands: name → "module:function".
    examples: the last lines of the help of a command; a command without examples shows the examples of its parent.
    removed: commands and options of earlier versions → what to use instead.
    summaries: the help of commands that take one options dataclass. The help of other functions is their docstring.
    prepared: commands whose defaults depend on their arguments → "module:function". This function takes the arguments.
    It returns the command's function and the arguments to parse.
    """

    name: str
    description: str
    commands: Mapping[str, str]
    examples: Mapping[str, tuple[str, ...]]
    removed: Mapping[str, str]
    summaries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prepared: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def command(self, name: str) -> Callable[..., int]:
        """The function of a command."""
        if name == "completion":
            return self.completion
        function = pkgutil.resolve_name(self.commands[name])
        if name not in self.summaries:
            return function

        def run(options: typing.Any) -> int:
            return function(options)

        kind = typing.get_type_hints(function)["options"]
        run.__annotations__["options"] = Annotated[kind, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes]
        run.__doc__ = self.summaries[name]
        return run

    @property
    def names(self) -> tuple[str, ...]:
        """All commands."""
        return (*self.commands, "completion")

    def completion(self, shell: Positional[Literal["bash", "zsh", "fish"]]) -> int:
        """Print a script for command completion in a shell.

        Args:
            shell: the shell.
        """
        with contextlib.suppress(SystemExit):
            self.run(["--tyro-print-completion", shell])
        return 0

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command and return its exit code. Raise UserError for errors that the user can fix."""
        self._refuse_removed(arguments)
        given = [name for name in arguments[:1] if name in self.names]
        # Without a command, import all commands, to list them.
        functions = {name: self.command(name) for name in given or self.names}
        for name in given:
            if name in self.prepared:
                functions[name], arguments = pkgutil.resolve_name(self.prepared[name])(arguments)
        return tyro.extras.subcommand_cli_from_dict(
            functions,
            prog=self.name,
            description=self.description,
            args=arguments,
        )

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run a command. Print errors that the user can fix as one line, with exit code 1."""
        try:
            try:
                return self._run_and_report(sys.argv[1:] if arguments is None else arguments)
            finally:
                sys.stdout.flush()
        except OSError as error:
            if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
                raise
            # Discard the buffer. Otherwise, the interpreter reports the same error at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):  # e.g. `| head`
                print(f"{self.name}: cannot write the output: {error.strerror}", file=sys.stderr)
            return 1

    def _run_and_report(self, arguments: Sequence[str]) -> int:
        # PyTorch reads this at import. Waiting threads then sleep and leave the CPU to reading and writing images.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        try:
            return self.run(arguments)
        except SystemExit as leaving:
            if leaving.code == 0 and {"-h", "--help"} & {*arguments}:
                self._print_examples(arguments)
            raise
        except UserError as error:
            argument = error.argument if isinstance(error, InputError) else None
            flag = f"--{argument.replace('_', '-')}: " if argument else ""
            print(f"{self.name}: {flag}{error}", file=sys.stderr)
            return 1
        except MemoryError:
            print(f"{self.name}: not enough memory; use smaller images, batches or files", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"{self.name}: stopped", file=sys.stderr)
            return _EXIT_INTERRUPTED

    def _refuse_removed(self, arguments: Sequence[str]) -> None:
        first, *rest = arguments or [""]
        for words in (first, *(f"{first} {word.partition('=')[0]}" for word in rest)):
            if words in self.removed:
                raise InputError(self.removed[words])

    def _print_examples(self, arguments: Sequence[str]) -> None:
        words = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
        while words and " ".join(words) not in self.examples:
            words.pop()
        for example in self.examples.get(" ".join(words), next(iter(self.examples.values()))[:1]):
            print(f"example: {example}")


COMMANDS = {
    "predict": "i2l_meshnet.commands.predict:predict",
    "serve": "i2l_meshnet.serving.server:run",
    "view": "i2l_meshnet.viewing.view:run",
    "rig": "i2l_meshnet.viewing.rig:run",
    "evaluate": "i2l_meshnet.evaluation.evaluate:run",
    "train": "i2l_meshnet.recipes:train",
    "plot": "i2l_meshnet.commands.plot:plot",
    "data": "i2l_meshnet.commands.data:data",
    "convert": "i2l_meshnet.commands.convert:convert",
    "assets": "i2l_meshnet.commands.assets:assets",
    "export": "i2l_meshnet.exporting.export:run",
    "info": "i2l_meshnet.commands.info:info",
}
"""Name → "module:function"."""
SUMMARIES = {
    "serve": "Open a page on this machine that turns photos into 3D meshes, and an HTTP endpoint beside it.",
    "view": "View saved results from all sides, in the browser on this machine.",
    "rig": "Convert a person of saved results to a file with skeleton and motion: skinned GLB or USD, or BVH.",
    "evaluate": "Score a network on a benchmark: the published metrics and more, tables, plots, the worst samples.",
    "export": "Write a network as one file for ONNX Runtime or OpenVINO, after comparing its meshes with PyTorch's.",
}
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
    "evaluate": ("i2l-meshnet evaluate --data PW3D --root data --body-dir bodies --out results/pw3d",),
    "train": ("i2l-meshnet train tiny --out output", "i2l-meshnet train body-lixel --data data --gpu 0-3"),
    "plot": ("i2l-meshnet plot output",),
    "data": ("i2l-meshnet data check PW3D --root data",),
    "data check": ("i2l-meshnet data check Human36M --root data --body-dir bodies",),
    "data convert": ("i2l-meshnet data convert 3dpw --release 3DPW --root data",),
    "data convert 3dpw": ("i2l-meshnet data convert 3dpw --release 3DPW --root data",),
    "data convert surreal": ("i2l-meshnet data convert surreal --release SURREAL --root data --body-dir bodies",),
    "data fetch": ("i2l-meshnet data fetch real-multiview",),
    "convert": ("i2l-meshnet convert snapshot_12.pth.tar body.safetensors --half",),
    "assets": ("i2l-meshnet assets detector",),
    "info": ("i2l-meshnet info --body-dir bodies",),
    "completion": ("i2l-meshnet completion bash > ~/.local/share/bash-completion/completions/i2l-meshnet",),
}
REMOVED = {
    "bench": "bench is now `python benchmarks/run.py`, in a checkout of the project",
    "lift": "lift is now `i2l-lab lift`: pip install 'i2l-meshnet[lab]'",
    "lift-hand": "lift-hand is now `i2l-lab lift-hand`: pip install 'i2l-meshnet[lab]'",
    "synthesize": "synthesize is now `i2l-lab synthesize`: pip install 'i2l-meshnet[lab]'",
    "evaluate --snapshot": "--snapshot is now --weights, which reads published snapshots too",
    "evaluate --test_epoch": "--test_epoch N is now --weights snapshot_N.pth.tar",
    "evaluate --test-epoch": "--test_epoch N is now --weights snapshot_N.pth.tar",
    "predict --test_epoch": "--test_epoch N is now --weights snapshot_N.pth.tar",
    "train --stage": "the stage is now part of the recipe: train body-lixel, then train body-param",
    "export --int8": "8-bit networks were removed: export without --int8; OpenVINO in fp16 is as fast",
    "export --calibration": "8-bit networks were removed: export without --calibration",
}
PREPARED = {"train": "i2l_meshnet.recipes:prepare_train"}
PRODUCT = CommandLine(
    "i2l-meshnet", "3D human meshes from one photograph.", COMMANDS, EXAMPLES, REMOVED, SUMMARIES, PREPARED
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of `i2l-meshnet` and return its exit code."""
    return PRODUCT.main(arguments)
