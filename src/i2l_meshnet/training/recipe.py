"""What a training is: the settings that decide the weights (`Recipe`), and where and how it runs (`RunOptions`)."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from i2l_meshnet.errors import InputError
from i2l_meshnet.models.backbone import ResNetName
from i2l_meshnet.training.losses import LixelWeights

Parity = Literal["batchnorm-drift", "hand-millimetres", "coco-fit-check", "full-decode"]
"""Faults and habits of the published code that can be had back, see docs/training.md."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. A checkpoint is only continued with the recipe it was made with."""

    stage: Literal["lixel", "param"] = "lixel"
    """What is trained: the lixel network, or the parameter regressor on top of it."""
    body: str = "smpl"
    """The body whose mesh is predicted: smpl, mano, anny, anny-hand, toy."""
    backbone: ResNetName = "resnet50"
    """Image network of the pose net and of the mesh branch."""
    crop: int = 256
    """Side of the network's square input, pixels, a multiple of 32; there are a quarter as many lixels along a side."""
    train_3d: tuple[str, ...] = ("Human36M", "MuCo")
    """Data sets with 3D joints."""
    train_2d: tuple[str, ...] = ("MSCOCO",)
    """Data sets with 2D joints; where there are both kinds, each makes half of an epoch."""
    validation: str = ""
    """Data set to measure the error on during training, as NAME or NAME:SPLIT; none if empty."""
    batch: int = 16
    """Pictures in a batch of one device."""
    accumulate: int = 1
    """Batches whose gradients are joined for one step."""
    first_epoch: int = 0
    """Number of the first epoch; the published parameter stage counts on from the lixel stage."""
    end_epoch: int = 13
    """Number of the epoch before which training ends."""
    decay_epochs: tuple[int, ...] = (10, 12)
    """Epochs from which the learning rate is divided by --decay-factor once more."""
    decay_factor: float = 10.0
    """What the learning rate is divided by."""
    learning_rate: float = 1e-4
    """Adam's learning rate; it does not grow with the number of devices."""
    own_joints: bool = True
    """Lixel stage: also train towards the data sets' own joints; without them meshes get visually smoother."""
    mesh_joint_weight: float = LixelWeights.mesh_joint
    """Lixel stage: factor of the losses of the joints that are read off the mesh."""
    normal_weight: float = LixelWeights.normal
    """Lixel stage: factor of the loss of the surface's normals."""
    edge_weight: float = LixelWeights.edge
    """Lixel stage: factor of the loss of the edges' lengths."""
    augment: bool = True
    """Change scale, rotation and colour of the training pictures at random and mirror bodies."""
    imagenet: str = "torchvision"
    """Start of the ResNets: torchvision (downloads), keras (the asset resnet50), none, or a file of weights."""
    batchnorm: Literal["local", "synced", "frozen"] = "local"
    """BatchNorm takes its statistics from each device's batch (as published), from all devices' (synced, CUDA only),
    or keeps the running ones (frozen)."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Precision of the network: float32, TF32 (CUDA), or bfloat16 in the layers where it is safe. One that the device
    does not compute in is refused."""
    clip: float = 0.0
    """Largest norm of the gradient, 0 for no limit."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is then measured and kept; 0 for none."""
    seed: int = 0
    """Seed of the weights, the order of the samples and their augmentation."""
    pictures: int = 0
    """Toy data: how many pictures to draw."""
    parity: tuple[Parity, ...] = ()
    """Published faults to reproduce, see docs/training.md."""

    def __post_init__(self) -> None:
        _require(self, lambda value: value >= 32 and value % 32 == 0, "a multiple of 32", "crop")
        _require(self, lambda value: value >= 1, "at least 1", "batch", "accumulate")
        _require(self, lambda value: 0 <= value < self.end_epoch, "at least 0 and before the end epoch", "first_epoch")
        _require(self, lambda value: 0 < value < math.inf, "greater than 0", "learning_rate", "decay_factor")
        weights = "mesh_joint_weight", "normal_weight", "edge_weight"
        _require(self, lambda value: 0 <= value < math.inf, "at least 0", *weights)
        _require(self, lambda value: value >= 0, "at least 0", "clip")
        _require(self, lambda value: 0 <= value < 1, "in [0, 1)", "ema")
        if not self.train_3d + self.train_2d:
            raise InputError("nothing to train on: name a data set", argument="train_3d")

    def rate(self, epoch: int) -> float:
        """The learning rate in `epoch`."""
        return self.learning_rate / self.decay_factor ** sum(epoch >= decay for decay in self.decay_epochs)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Settings in which a recipe read from JSON is another one. More epochs are no difference: they follow."""
        own = self.to_json()
        names = (own.keys() | other.keys()) - {"end_epoch"}
        return [
            f"{name} {other.get(name)!r}, not {own.get(name)!r}"
            for name in sorted(names)
            if own.get(name) != other.get(name)
        ]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where and how a training runs; nothing here changes the weights of a run on the CPU."""

    data: Path = Path("data")
    """Folder that holds the data sets' folders."""
    out: Path = Path("output")
    """Output folder; log, model_dump, result and vis are made in it."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files."""
    start: Path | None = None
    """Checkpoint (.safetensors) to start from; the parameter stage takes the lixel stage's last one in --out."""
    resume: Annotated[bool, tyro.conf.arg(name="continue", aliases=["--resume"])] = False
    """Go on with the run in --out where it stopped, or begin it if nothing is saved there yet."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA devices where there are any."""
    gpu: Annotated[str, tyro.conf.arg(aliases=["--devices"])] = ""
    """Devices by number, as 0-3 or 0,2; all if empty. With --device cpu, so many processes (one if empty)."""
    nodes: int = 1
    """Machines that train together, started by torchrun or SLURM."""
    workers: int = 4
    """Processes that load pictures, for each device."""
    max_steps: int = 0
    """Stop after so many steps in all, saved so that --continue goes on; 0 for no limit."""
    save_every: int = 1000
    """Save the state every so many steps, and after every epoch."""
    keep: int = 2
    """How many saved states to keep."""
    log_every: int = 20
    """Write a row of the log every so many steps."""
    compile: bool = False
    """Compile the network with torch.compile."""
    channels_last: bool = False
    """Keep feature maps in the channels-last order."""
    tensorboard: bool = True
    """Write losses, rates and pictures of predictions for TensorBoard."""
    wandb: bool = False
    """Log to Weights & Biases too, if wandb is installed."""

    def __post_init__(self) -> None:
        _require(self, lambda value: value >= 1, "at least 1", "nodes", "save_every", "keep", "log_every")
        _require(self, lambda value: value >= 0, "at least 0", "workers", "max_steps")

    def device_numbers(self) -> list[int] | None:
        """The numbers in `gpu`, None if it is empty. Raise InputError unless it lists devices, each once."""
        if not self.gpu:
            return None
        numbers: list[int] = []
        for part in self.gpu.split(","):
            start, dash, end = part.strip().partition("-")
            if not start.isdecimal() or (dash and not end.isdecimal()):
                raise InputError(f"{self.gpu!r} is not a list of devices such as 0-3 or 0,2", argument="gpu")
            numbers += range(int(start), int(end if dash else start) + 1)
        if not numbers or len(set(numbers)) != len(numbers):
            raise InputError(f"{self.gpu!r} names no device, or one twice", argument="gpu")
        return numbers


def _require(options: Any, holds: Callable[[float], bool], wanted: str, *names: str) -> None:
    """Raise InputError for the first of the options `names` whose value is not what is wanted."""
    for name in names:
        value = getattr(options, name)
        if not holds(value):
            raise InputError(f"it must be {wanted}, not {value}", argument=name)


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """A recipe, and where to follow it."""

    recipe: Recipe
    run: RunOptions = dataclasses.field(default_factory=RunOptions)
