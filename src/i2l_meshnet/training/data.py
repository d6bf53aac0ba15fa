"""The datasets of a training: from the names in a recipe to samples, targets and validation."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.data.augmentation import RandomAugmentation, no_augmentation
from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.data.mixture import Mixture, union_skeleton
from i2l_meshnet.data.sources import ADAPTERS, Source, open_source
from i2l_meshnet.data.sources.synthetic import SPLITS as SYNTHETIC_SPLITS
from i2l_meshnet.data.sources.synthetic import synthetic_source
from i2l_meshnet.data.sources.toy import SEEDS as TOY_SPLITS
from i2l_meshnet.data.sources.toy import TOY, open_toy
from i2l_meshnet.data.targets import CameraFitCheck, ImageFitCheck, TargetBuilder, read_regressor
from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation.protocols import PROTOCOLS
from i2l_meshnet.models import assembly
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.training.loop import Validation
from i2l_meshnet.training.recipe import Recipe, RunOptions
from i2l_meshnet.training.stages import Stage, joint_error

SYNTHETIC = "Synthetic"
MIN_SHARED_JOINTS = 3
"""A dataset without fits needs this many joints of the trained body."""


def dataset_splits() -> dict[str, tuple[str, ...]]:
    """Dataset → its splits."""
    own = {SYNTHETIC: SYNTHETIC_SPLITS, TOY: tuple(TOY_SPLITS)}
    return {name: adapter.splits for name, adapter in ADAPTERS.items()} | own


def can_train(source: Source, body: Body, stage: str, own_joints: bool = True) -> bool:
    """Whether a dataset has targets for a stage: fits of the body, or joints of its skeleton.

    own_joints: as in `Recipe`. The parameter stage can use joints only if they have depths.
    """
    if _has_fits(source, body):
        return True
    return own_joints and (stage == "lixel" or source.three_d) and shared_joints(source, body) >= MIN_SHARED_JOINTS


def has_truth(source: Source, body: Body) -> bool:
    """Whether the error of a body can be measured on a dataset: it has fits of the body, or 3D joints of its
    skeleton.
    """
    joints = bool(source.table.arrays["has_depth"].any()) and shared_joints(source, body) >= MIN_SHARED_JOINTS
    return joints or _has_fits(source, body)


def shared_joints(source: Source, body: Body) -> int:
    """Number of joints of a dataset that the body has, by name."""
    return len(source.table.skeleton.remap_to(body.skeleton))


def _fits(source: Source, body: Body) -> bool:
    """Whether the fits of a source are for the body or its male and female versions."""
    return body.name in source.table.bodies


def _has_fits(source: Source, body: Body) -> bool:
    return _fits(source, body) and bool(source.table.arrays["fit_known"].any())


def network_config(recipe: Recipe, body: Body) -> NetworkConfig:
    """The published network of the recipe's sizes."""
    config = assembly.published_config(body, recipe.backbone)
    height, width = recipe.crop, recipe.crop_width or recipe.crop
    grid = dataclasses.replace(
        config.grid,
        shape=(recipe.depth_bins or height // 4, height // 4, width // 4),
        crop_size=(height, width),
        depth_extent=recipe.depth_extent or config.grid.depth_extent,
    )
    return dataclasses.replace(config, grid=grid, head=recipe.head, sigma=recipe.sigma)


class TrainingData:
    """Opens the datasets that a recipe names, and makes training samples, targets and the validation from them."""

    def __init__(self, recipe: Recipe, options: RunOptions, body: Body) -> None:
        """Raise InputError for an unknown dataset or one that cannot train the body, FileError for missing or damaged
        files.
        """
        self._recipe, self._options, self._body = recipe, options, body
        self._grid = network_config(recipe, body).grid
        self._train = [self._open(name, "train") for name in (*recipe.train_3d, *recipe.train_2d)]
        for number, source in enumerate(self._train):
            self._require_targets(source, "train_3d" if number < len(recipe.train_3d) else "train_2d")
        self._validation = self._open_validation() if recipe.validation else None
        sources = [*self._train, *([self._validation] if self._validation else [])]
        self._skeleton = union_skeleton([source.table.skeleton for source in sources])
        names = max((source.table.bodies for source in sources if _fits(source, body)), key=len, default=(body.name,))
        self._bodies = [body if name == body.name else load_body(name, options.body_dir) for name in names]

    def _open_validation(self) -> Source:
        """The validation dataset, by default with the split on which the benchmark scores. Raise InputError if it has
        no ground truth for the body.
        """
        name, _, split = self._recipe.validation.partition(":")
        if not split:
            split = PROTOCOLS[name].split if name in PROTOCOLS else "val" if name == SYNTHETIC else "test"
        source = self._open(name, split, validation=True)
        if not has_truth(source, self._body):
            raise InputError(
                f"{name} has no 3D ground truth for the body {self._body.name} in its split {source.split!r}. Its "
                f"splits are {', '.join(dataset_splits()[name])}: choose another as {name}:SPLIT, or another dataset",
                argument="validation",
            )
        return source

    def _open(self, name: str, split: str, validation: bool = False) -> Source:
        if name == TOY:
            return open_toy(self._options.data, split, self._recipe.pictures)
        if name == SYNTHETIC:
            return synthetic_source(self._options.data / SYNTHETIC, split)
        if name not in ADAPTERS:
            raise InputError(f"unknown dataset {name!r}; choose from {', '.join(dataset_splits())}")
        return open_source(name, self._options.data, split, true_boxes=validation)

    def _require_targets(self, source: Source, argument: str) -> None:
        """Raise InputError if a dataset has no target for the body in the recipe's stage."""
        recipe, body = self._recipe, self._body
        if can_train(source, body, recipe.stage, recipe.own_joints):
            return
        raise InputError(
            f"{source.name} cannot train the {recipe.stage} stage of the body {body.name}. It has no fit of this body, "
            f"and no joints that this stage can use ({shared_joints(source, body)} in common): leave the dataset out",
            argument=argument,
        )

    def sizes(self) -> dict[str, int]:
        """Name of each training dataset → number of samples."""
        return {source.name: len(source) for source in self._train}

    def dataset(self) -> Mixture:
        """The training samples. If there are both 3D and 2D datasets, each kind is half of an epoch."""
        count, recipe = len(self._recipe.train_3d), self._recipe
        sets = [self._dataset(source, number, recipe.augment) for number, source in enumerate(self._train)]
        return Mixture([sets[:count], sets[count:]], recipe.seed)

    def _dataset(self, source: Source, number: int, augment: bool) -> PersonDataset:
        mirror = self._body.bone_mirror is not None  # A one-sided body has no mirror image.
        return PersonDataset(
            source,
            self._skeleton,
            (len(self._body.bones), len(self._body.shape_names)),
            self._grid.crop_size,
            RandomAugmentation(self._recipe.seed, number, mirror) if augment else no_augmentation,
            number,
            full_decode="full-decode" in self._recipe.parity,
        )

    def targets(self, own_joints: bool) -> TargetBuilder:
        """Makes the targets of batches. own_joints: whether to include the datasets' own joints."""
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
        return _fits(source, self._body) and bool((arrays["fit_known"] & ~arrays["fit_trusted"]).any())

    def validation(self, stage: Stage, network: MeshNet, device: torch.device) -> Validation | None:
        """The validation of the recipe, if any.

        `evaluate` prints another number: here, boxes and depths are the true ones, and joints are those that the body's
        own regressor computes.
        """
        if self._validation is None:
            return None
        targets = self.targets(own_joints=True).to(device)
        return Validation(
            self._dataset(self._validation, len(self._train), augment=False),
            f"validation MPJPE of {stage.mesh_name}",
            ErrorMeasure(stage, network, targets),
        )


class ErrorMeasure:
    """MPJPE of the stage's mesh, mm, and the weight of each sample. See `Validation.measure`."""

    def __init__(self, stage: Stage, network: MeshNet, targets: TargetBuilder) -> None:
        self._stage, self._network, self._targets = stage, network, targets

    def __call__(self, output: LixelOutput, sample: Sample) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        _, _, joints = self._targets.meshes(sample)
        annotation = sample.annotation
        # Without root depths (COCO), meshes are placed at the depth of the fits.
        fitted = joints[:, self._stage.body.skeleton.root_index, 2]
        depth = torch.where(annotation.root_depth.isnan(), fitted, annotation.root_depth)
        sample = dataclasses.replace(sample, annotation=dataclasses.replace(annotation, root_depth=depth))
        return joint_error(self._stage, self._stage.mesh(self._network, output, sample), self._targets(sample))
