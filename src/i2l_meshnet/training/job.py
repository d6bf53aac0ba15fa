"""The `train` command: puts together what a recipe names, trains, and says in one line how it ended."""

import contextlib
import dataclasses
import importlib.util
import logging
import math
import warnings
from pathlib import Path

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import Tensor

from i2l_meshnet import assets
from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.data.mixture import Mixture, union_skeleton
from i2l_meshnet.data.sources import ADAPTERS, Source, open_source
from i2l_meshnet.data.sources.synthetic import synthetic_source
from i2l_meshnet.data.sources.toy import toy_source
from i2l_meshnet.data.targets import CameraFitCheck, ImageFitCheck, TargetBuilder, read_regressor
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.folders import own_folder
from i2l_meshnet.models import assembly, checkpoint, imagenet
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.precision import require_precision
from i2l_meshnet.training.loop import Folders, Metric, Trainer, Validation
from i2l_meshnet.training.losses import PUBLISHED_HAND_UNIT
from i2l_meshnet.training.progress import CsvLog, Log, Reporter, TensorBoardLog, WandbLog
from i2l_meshnet.training.recipe import Recipe, RunOptions, TrainOptions
from i2l_meshnet.training.stages import LixelStage, ParamStage, Stage, joint_error
from i2l_meshnet.training.state import StateFolder

TOY, TOY_VALIDATION_SEED = "Toy", 1
SYNTHETIC = "Synthetic"
SIGNAL_EXIT = 128
"""What a shell adds to a signal's number."""


def run(options: TrainOptions) -> int:
    """Trains and returns the exit code: 0, or 128 + the signal that ended the training early.

    Raises UserError, in one line, for what is missing, does not fit or cannot be written, and TakenError where another
    process trains into the same folder.
    """
    recipe, run_options = options.recipe, options.run
    folders = Folders(run_options.out)
    states = StateFolder(folders.models, recipe.stage, run_options.keep)
    if states.paths() and not run_options.resume:
        raise InputError(
            f"{folders.models} holds a started training of the {recipe.stage} stage: --continue goes on with it, "
            "or choose another --out"
        )
    begins = run_options.resume and not states.paths()
    if begins:
        # So that one command may be given again and again until it is done.
        run_options = dataclasses.replace(run_options, resume=False)
        options = dataclasses.replace(options, run=run_options)
    fabric = start_fabric(recipe, run_options)
    if begins and fabric.is_global_zero:
        _say(f"{folders.models} holds no state of the {recipe.stage} stage to go on from: it begins")
    folders.make()
    torch.manual_seed(recipe.seed)
    body = load_body(recipe.body, run_options.body_dir)
    parts = DataParts(recipe, run_options, body)
    # The other processes of one training write nothing.
    with own_folder(folders.models) if fabric.is_global_zero else contextlib.nullcontext():
        network = make_network(recipe, run_options, body, folders)
        return _train(fabric, network, body, parts, options, folders)


def _train(
    fabric: Fabric,
    network: MeshNet,
    body: Body,
    parts: "DataParts",
    options: TrainOptions,
    folders: Folders,
) -> int:
    recipe, run_options = options.recipe, options.run
    stage = make_stage(recipe, body.to(fabric.device))
    trainer = Trainer(
        fabric,
        network,
        stage,
        parts.targets(recipe.own_joints).to(fabric.device),
        parts.dataset(),
        recipe,
        folders,
        validation=parts.validation(stage, network, fabric.device),
        workers=run_options.workers,
        max_steps=run_options.max_steps,
        save_every=run_options.save_every,
        log_every=run_options.log_every,
        keep=run_options.keep,
        channels_last=run_options.channels_last,
        compile=run_options.compile,
        licence=f"trained with the body {body.name}: {body.licence}",
        sources=parts.names,
    )
    if run_options.resume:
        trainer.resume()
    step = trainer.position.step
    logs = _logs(recipe, run_options, folders, step) if fabric.is_global_zero else []
    with Reporter(logs, trainer.total_steps, step, quiet=not fabric.is_global_zero) as reporter:
        signal = trainer.fit(reporter)
    if fabric.is_global_zero:
        done = f"{trainer.position.step} steps"
        if signal is not None:
            line = f"stopped by {signal.name} after {done}, all saved in {folders.models}; --continue goes on"
        elif trainer.position.epoch < recipe.end_epoch:
            line = f"stopped after {done} as --max-steps says, all saved in {folders.models}; --continue goes on"
        else:
            line = f"trained {done}; snapshots in {folders.models}"
            line += f", best {stage.mesh_name} error {trainer.best:.2f} mm" if math.isfinite(trainer.best) else ""
        _say(line)
    return 0 if signal is None else SIGNAL_EXIT + signal


def _say(line: str) -> None:
    Console(highlight=False).print(line, markup=False, soft_wrap=True)


def start_fabric(recipe: Recipe, options: RunOptions) -> Fabric:
    """Starts the processes and sets the arithmetic. Raises InputError for devices that are not there."""
    cuda = torch.cuda.is_available() if options.device == "auto" else options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise InputError("there is no CUDA device: leave --device cuda out, or install PyTorch with CUDA")
    if recipe.batchnorm == "synced" and not cuda:
        raise InputError("--batchnorm synced needs CUDA devices; on the CPU take local or frozen")
    require_precision(recipe.precision, "cuda" if cuda else "cpu")
    numbers = options.device_numbers()
    if cuda:
        devices: list[int] | int | str = numbers if numbers is not None else "auto"
    else:
        devices = 1 if numbers is None else len(numbers)
    torch.set_float32_matmul_precision("high" if recipe.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning_fabric")
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
        return LixelStage(body, recipe.mesh_joint_weight, recipe.normal_weight, recipe.edge_weight)
    unit = PUBLISHED_HAND_UNIT if "hand-millimetres" in recipe.parity else 1.0
    return ParamStage(body, "batchnorm-drift" in recipe.parity, unit)


def network_config(recipe: Recipe, body: Body) -> NetworkConfig:
    """The published network of the recipe's size."""
    config = assembly.published_config(body, recipe.backbone)
    bins = recipe.crop // 4
    grid = dataclasses.replace(config.grid, shape=(bins, bins, bins), crop_size=(recipe.crop, recipe.crop))
    return dataclasses.replace(config, grid=grid)


def make_network(recipe: Recipe, options: RunOptions, body: Body, folders: Folders) -> MeshNet:
    """The network as the training starts with it; when it goes on, its weights follow from the saved state.

    Raises FileError or InputError for weights that are missing or of another network.
    """
    config = network_config(recipe, body)
    start = options.start
    if start is None and recipe.stage == "param" and not options.resume:
        start = _newest_lixel_snapshot(folders.models)
    if start is not None and not options.resume:
        network = checkpoint.load(start, body)
        if network.config != config:
            raise InputError(
                f"{start} holds another network than the recipe's {recipe.backbone} for {recipe.body} "
                f"in crops of {recipe.crop} pixels: change --backbone or --crop, or start from another"
            )
        return network
    network = assembly.build(config, body)
    if recipe.imagenet == "none" or options.resume:
        return network
    if recipe.imagenet == "torchvision":
        weights, path = imagenet.download_weights(recipe.backbone), Path(imagenet.HUB_FILES[recipe.backbone])
    elif recipe.imagenet == "keras":
        path = assets.ensure("resnet50")
        weights = imagenet.convert_keras_resnet50(path)
    else:
        path = Path(recipe.imagenet)
        weights = imagenet.load_weights(recipe.backbone, path)
    imagenet.load_backbones(network, weights, path)
    return network


def _newest_lixel_snapshot(folder: Path) -> Path:
    # By their epochs: clocks jump, and files are copied.
    told = [(path, checkpoint.read_metadata(path).extra) for path in folder.glob("snapshot_*.safetensors")]
    found = [(int(extra["epoch"]), path) for path, extra in told if extra.get("stage") == LixelStage.name]
    if found:
        return max(found)[1]
    raise FileError(f"{folder} holds no snapshot of the lixel stage to start from: train that first, or give --start")


class DataParts:
    """The data of a training: its sources, what they have in common, and the data sets made of them."""

    def __init__(self, recipe: Recipe, options: RunOptions, body: Body) -> None:
        """Opens the sources. Raises InputError for an unknown name, FileError for missing or damaged files."""
        self._recipe, self._options, self._body = recipe, options, body
        self._grid = network_config(recipe, body).grid
        self._train = [self._open(name, "train") for name in (*recipe.train_3d, *recipe.train_2d)]
        name, _, split = recipe.validation.partition(":")
        self._validation = self._open(name, split or "test", validation=True) if name else None
        sources = [*self._train, *([self._validation] if self._validation else [])]
        self.names = [source.name for source in sources]
        self._skeleton = union_skeleton([source.table.skeleton for source in sources])
        names = max((source.table.bodies for source in sources if self._fits(source)), key=len, default=(body.name,))
        self._bodies = [body if name == body.name else load_body(name, options.body_dir) for name in names]

    def _open(self, name: str, split: str, validation: bool = False) -> Source:
        if name == TOY:
            seed = TOY_VALIDATION_SEED if validation and split != "train" else 0
            return toy_source(self._options.data / TOY, self._recipe.pictures, seed)
        if name == SYNTHETIC:
            return synthetic_source(self._options.data / SYNTHETIC, split)
        if name not in ADAPTERS:
            raise InputError(f"there is no data set {name!r}; choose from {', '.join([*ADAPTERS, SYNTHETIC, TOY])}")
        return open_source(name, self._options.data, split, true_boxes=validation)

    def _fits(self, source: Source) -> bool:
        """Whether a source's fits are of the trained body (or its male and female sisters)."""
        return self._body.name in source.table.bodies

    def dataset(self) -> Mixture:
        """The training samples: half of each epoch 3D, half 2D where there are both."""
        count, recipe = len(self._recipe.train_3d), self._recipe
        sets = [self._dataset(source, number, recipe.augment) for number, source in enumerate(self._train)]
        return Mixture([sets[:count], sets[count:]], recipe.seed)

    def _dataset(self, source: Source, number: int, augment: bool) -> PersonDataset:
        return PersonDataset(
            source,
            self._skeleton,
            (len(self._body.bones), len(self._body.shape_names)),
            self._grid.crop_size,
            augment,
            # A one-sided body has no mirror image.
            mirror=self._body.bone_mirror is not None,
            seed=self._recipe.seed,
            number=number,
            full_decode="full-decode" in self._recipe.parity,
        )

    def targets(self, own_joints: bool) -> TargetBuilder:
        """Makes the targets of batches. own_joints: whether the data sets' own joints are among them."""
        camera_check = image_check = None
        for source in self._train:
            adapter = ADAPTERS.get(source.name)
            if adapter is None or adapter.joint_regressor is None or not self._needs_check(source):
                continue
            regressor = read_regressor(self._options.data / adapter.joint_regressor)
            if source.three_d:
                camera_check = CameraFitCheck(regressor)
            else:
                image_check = ImageFitCheck(regressor, published_pelvis="coco-fit-check" in self._recipe.parity)
        return TargetBuilder(self._bodies, self._grid, self._skeleton, camera_check, image_check, own_joints)

    def _needs_check(self, source: Source) -> bool:
        arrays = source.table.arrays
        return self._fits(source) and bool((arrays["fit_known"] & ~arrays["fit_trusted"]).any())

    def validation(self, stage: Stage, network: MeshNet, device: torch.device) -> Validation | None:
        """The error of the stage's mesh on the validation samples, in the published code's words."""
        if self._validation is None:
            return None
        targets = self.targets(own_joints=True).to(device)
        return Validation(
            self._dataset(self._validation, len(self._train), augment=False),
            [Metric(f"MPJPE from {stage.mesh_name}", ErrorMeasure(stage, network, targets))],
        )


class ErrorMeasure:
    """MPJPE of the stage's mesh, mm."""

    def __init__(self, stage: Stage, network: MeshNet, targets: TargetBuilder) -> None:
        self._stage, self._network, self._targets = stage, network, targets

    def __call__(self, output: LixelOutput, sample: Sample) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        _, _, joints = self._targets.meshes(sample)
        annotation = sample.annotation
        # A set without depths (COCO) is measured against its fits, so where they stand.
        fitted = joints[:, self._stage.body.skeleton.root_index, 2]
        depth = torch.where(annotation.root_depth.isnan(), fitted, annotation.root_depth)
        sample = dataclasses.replace(sample, annotation=dataclasses.replace(annotation, root_depth=depth))
        return joint_error(self._stage, self._stage.mesh(self._network, output, sample), self._targets(sample))


def _logs(recipe: Recipe, options: RunOptions, folders: Folders, step: int) -> list[Log]:
    logs: list[Log] = [CsvLog(folders.log / f"{recipe.stage}.csv", step)]
    if options.tensorboard and importlib.util.find_spec("tensorboard") is not None:
        logs.append(TensorBoardLog(folders.log / "tensorboard" / recipe.stage, step))
    if options.wandb:
        logs.append(WandbLog(folders.log, recipe.to_json()))
    return logs
