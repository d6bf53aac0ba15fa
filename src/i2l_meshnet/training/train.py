"""The `train` command: build the parts that a recipe names, and train."""

import contextlib
import dataclasses
import importlib.util
import logging
import math
import warnings
from pathlib import Path
from signal import Signals

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from i2l_meshnet import assets
from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.console import counted, output
from i2l_meshnet.devices import choose_device, device_numbers
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.folders import own_folder
from i2l_meshnet.models import assembly, imagenet
from i2l_meshnet.models.backbone import RESNET_NAMES
from i2l_meshnet.models.loading import load_weights, read_weights, trained_stage
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.published import run_code
from i2l_meshnet.precision import require_precision
from i2l_meshnet.training.data import TrainingData, network_config
from i2l_meshnet.training.loop import Folders, Trainer
from i2l_meshnet.training.losses import PUBLISHED_HAND_UNIT, LixelWeights
from i2l_meshnet.training.progress import CsvLog, Log, Reporter, TensorBoardLog, WandbLog
from i2l_meshnet.training.recipe import Recipe, RunOptions, TrainOptions
from i2l_meshnet.training.recipe_file import write_recipe
from i2l_meshnet.training.stages import LixelStage, ParamStage, Stage
from i2l_meshnet.training.state import StateFolder

SIGNAL_EXIT = 128
"""Exit code minus signal number, as in shells."""


def run(options: TrainOptions) -> int:
    """Train and return the exit code: 0, or 128 + the signal that ended the training early.

    Raise UserError for missing, incompatible or unwritable files and options, TakenError if another process uses the
    folder.
    """
    recipe, folders = options.recipe, Folders(options.run.out)
    started = bool(StateFolder(folders.models, recipe.stage).paths())
    if started and not options.run.resume:
        raise InputError(
            f"{folders.models} has a training state of the {recipe.stage} stage: resume it, or choose another output "
            "folder",
            argument="out",
        )
    # `resume` without a state starts a new run, so that the same command can be repeated until the training is done.
    starts = options.run.resume and not started
    options = dataclasses.replace(options, run=dataclasses.replace(options.run, resume=started))
    fabric = start_fabric(recipe, options.run)
    if starts and fabric.is_global_zero:
        output(f"{folders.models} has no training state of the {recipe.stage} stage: a new training starts")
    folders.make()
    run_code(options.run.code)
    if fabric.is_global_zero:
        write_recipe(options)
    torch.manual_seed(recipe.seed)
    body = load_body(recipe.body, options.run.body_dir)
    data = TrainingData(recipe, options.run, body)
    # Only the first process writes.
    with own_folder(folders.models) if fabric.is_global_zero else contextlib.nullcontext():
        network, origin = make_network(recipe, options.run, body, folders)
        stage = make_stage(recipe, body.to(fabric.device))
        targets = data.targets(recipe.own_joints).to(fabric.device)
        validation = data.validation(stage, network, fabric.device)
        trainer = Trainer(fabric, network, stage, targets, data.dataset(), options, validation)
        if options.run.resume:
            trainer.resume()
        step = trainer.position.step
        logs = _logs(recipe, options.run, folders, step) if fabric.is_global_zero else []
        quiet = not fabric.is_global_zero
        with Reporter(logs, trainer.total_steps, step, recipe.end_epoch, quiet) as reporter:
            for line in _opening(trainer, options, data, fabric, origin):
                reporter.say(line)
            signal = trainer.fit(reporter)
        if fabric.is_global_zero:
            output(_closing(trainer, options, folders, stage, signal))
        return 0 if signal is None else SIGNAL_EXIT + signal


def _opening(trainer: Trainer, options: TrainOptions, data: TrainingData, fabric: Fabric, origin: str) -> list[str]:
    """The lines that are printed at the start of a training."""
    recipe, processes = options.recipe, fabric.world_size
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.sizes().items())
    batch = recipe.batch * recipe.accumulate * processes
    if options.run.resume:
        origin = f"resumed at step {trainer.position.step:,} of {trainer.total_steps:,}"
    return [
        f"{recipe.stage} stage of the body {recipe.body}, {recipe.backbone}, on {fabric.device.type}, "
        f"{counted(processes, 'process', 'processes')}",
        f"weights: {origin}",
        f"samples: {sizes}",
        f"{trainer.steps_per_epoch:,} steps per epoch, {batch} samples per step, epochs {recipe.first_epoch} to "
        f"{recipe.end_epoch - 1}",
    ]


def _closing(trainer: Trainer, options: TrainOptions, folders: Folders, stage: Stage, signal: Signals | None) -> str:
    """The line that is printed at the end of a training."""
    done = f"{trainer.position.step} steps"
    if signal is not None:
        return f"stopped by {signal.name} after {done}; the training state is in {folders.models}"
    if trainer.position.epoch < options.recipe.end_epoch:
        return f"stopped after {done}, the maximum; the training state is in {folders.models}"
    best = f", best {stage.mesh_name} error {trainer.best:.2f} mm" if math.isfinite(trainer.best) else ""
    return f"trained {done}; snapshots in {folders.models}{best}"


def start_fabric(recipe: Recipe, options: RunOptions) -> Fabric:
    """Start the processes and set the precision. Raise InputError if a device is missing."""
    # Numbers are those of CUDA devices, unless the CPU is chosen.
    cuda = choose_device("cuda" if options.gpu and options.device == "auto" else options.device).type == "cuda"
    if recipe.batchnorm == "synced" and not cuda:
        raise InputError("synced needs CUDA devices; on the CPU choose local or frozen", argument="batchnorm")
    require_precision(recipe.precision, "cuda" if cuda else "cpu")
    numbers = device_numbers(options.gpu)
    if cuda:
        devices: list[int] | int | str = numbers if numbers is not None else "auto"
    else:
        devices = 1 if numbers is None else len(numbers)
    torch.set_float32_matmul_precision("high" if recipe.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning_fabric")
    # More loader processes than cores are not an error.
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
    try:
        fabric = Fabric(
            accelerator="cuda" if cuda else "cpu",
            devices=devices,
            num_nodes=options.nodes,
            precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(f"cannot train on these devices: {' '.join(str(error).split())}") from error
    fabric.launch()
    return fabric


def make_stage(recipe: Recipe, body: Body) -> Stage:
    """The recipe's stage."""
    if recipe.stage == "lixel":
        return LixelStage(body, LixelWeights(recipe.mesh_joint_weight, recipe.normal_weight, recipe.edge_weight))
    unit = PUBLISHED_HAND_UNIT if "hand-millimetres" in recipe.parity else 1.0
    return ParamStage(body, "batchnorm-drift" in recipe.parity, unit)


def make_network(recipe: Recipe, options: RunOptions, body: Body, folders: Folders) -> tuple[MeshNet, str]:
    """The network with its initial weights, and where they come from. A resumed training loads its weights later, from
    the training state.

    Raise FileError or InputError for missing weights or weights of another network.
    """
    config = network_config(recipe, body)
    start = options.start
    if start is None and recipe.stage == "param" and not options.resume:
        start = _newest_lixel_snapshot(folders.models)
    if start is not None and not options.resume:
        network, _, _ = load_weights(start, options.body_dir)
        if network.config != config:
            raise InputError(
                f"{start} has another network than the recipe: {recipe.backbone} for {recipe.body} in crops of "
                f"{recipe.crop} pixels. Change backbone or crop, or choose another checkpoint",
                argument="start",
            )
        return network, str(start)
    network = assembly.build(config, body)
    if recipe.imagenet == "none" or options.resume:
        return network, "random"
    if recipe.backbone not in RESNET_NAMES:
        raise InputError(f"ImageNet weights are for ResNets, not for {recipe.backbone}: use none", argument="imagenet")
    if recipe.imagenet == "torchvision":
        weights, path = imagenet.download_weights(recipe.backbone), Path(imagenet.HUB_FILES[recipe.backbone])
    elif recipe.imagenet == "keras":
        path = assets.ensure("resnet50")
        weights = imagenet.convert_keras_resnet50(path)
    else:
        path = Path(recipe.imagenet)
        weights = imagenet.load_weights(recipe.backbone, path)
    imagenet.load_backbones(network, weights, path)
    return network, f"ImageNet ({recipe.imagenet}) in the backbones, the rest random"


def _newest_lixel_snapshot(folder: Path) -> Path:
    """The lixel network of the highest epoch: a snapshot of this project or of the published code."""
    found = []
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.pth.tar")):
        if not path.name.startswith("best_"):
            state, metadata = read_weights(path)
            if trained_stage(state, metadata) == LixelStage.name:
                # The highest epoch, because file times are unreliable.
                found.append((int(metadata.extra.get("epoch", -1)), path))
    if found:
        return max(found)[1]
    raise FileError(
        f"{folder} has no snapshot of the lixel stage (.safetensors, .pth.tar) to start from: train the lixel stage, "
        "or name a file"
    )


def _logs(recipe: Recipe, options: RunOptions, folders: Folders, step: int) -> list[Log]:
    logs: list[Log] = [CsvLog(folders.log / f"{recipe.stage}.csv", step)]
    if options.tensorboard and importlib.util.find_spec("tensorboard") is not None:
        logs.append(TensorBoardLog(folders.log / "tensorboard" / recipe.stage, step))
    if options.wandb:
        logs.append(WandbLog(folders.log, recipe.to_json()))
    return logs
