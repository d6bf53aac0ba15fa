"""The settings of a training: `Recipe` determines the weights, `RunOptions` where and how the training runs."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from i2l_meshnet.errors import InputError
from i2l_meshnet.training.losses import LixelWeights

Parity = Literal["batchnorm-drift", "hand-millimetres", "coco-fit-check", "full-decode"]
"""Published behaviour that can be restored; see docs/training.md."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of the network and its training. A run can be resumed only with the same recipe."""

    stage: Literal["lixel", "param"] = "lixel"
    """What is trained: the lixel network, or the parameter regressor on top of it."""
    body: str = "smpl"
    """The body whose mesh is predicted: smpl, mano, anny, anny-hand, toy."""
    backbone: str = "resnet50"
    """Backbone of the pose network and of the mesh network: resnet18, 34, 50, 101 or 152, resnet18-narrow (a
    quarter of the channels), or a name that is added by the file given as --code."""
    head: str = "lixel"
    """Heads of both networks: lixel, lixel-narrow (a quarter of the channels), or a name that is added by the
    file given as --code."""
    crop: int = 256
    """Height of the crop, pixels, a multiple of 32. The lixel grid has a quarter as many bins along each side."""
    crop_width: int = 0
    """Width of the crop, pixels, a multiple of 32; 0 for a square crop."""
    depth_bins: int = 0
    """Bins of the lixel grid along the depth; 0 for a quarter of the crop's height."""
    depth_extent: float = 0.0
    """Depth of the lixel grid, metres; 0 for 2 m (bodies) or 0.3 m (hands)."""
    sigma: float = 2.5
    """Standard deviation of the joints' Gaussians, lixels."""
    train_3d: tuple[str, ...] = ("Human36M", "MuCo")
    """Datasets with 3D joints."""
    train_2d: tuple[str, ...] = ("MSCOCO",)
    """Datasets with 2D joints. If there are both kinds, each is half of an epoch."""
    validation: str = ""
    """Dataset on which the error is measured after every epoch, as NAME (with the split that `evaluate` uses) or
    NAME:SPLIT. Empty: none."""
    batch: int = 16
    """Batch size per device."""
    accumulate: int = 1
    """Number of batches per optimizer step. The gradient is the mean over all their samples."""
    first_epoch: int = 0
    """Number of the first epoch. The published parameter stage continues the count of the lixel stage."""
    end_epoch: int = 13
    """Epoch at which training ends. This epoch is not trained."""
    decay_epochs: tuple[int, ...] = (10, 12)
    """Epochs at which the learning rate is divided by --decay-factor."""
    decay_factor: float = 10.0
    """Divisor of the learning rate at each of --decay-epochs."""
    learning_rate: float = 1e-4
    """Learning rate of Adam. It does not depend on the number of devices."""
    own_joints: bool = True
    """Lixel stage: use losses on the datasets' own joints. Without them, meshes look smoother and are less accurate."""
    mesh_joint_weight: float = LixelWeights.mesh_joint
    """Lixel stage: weight of the losses on joints regressed from the mesh."""
    normal_weight: float = LixelWeights.normal
    """Lixel stage: weight of the loss on surface normals."""
    edge_weight: float = LixelWeights.edge
    """Lixel stage: weight of the loss on edge lengths."""
    augment: bool = True
    """Augment training images: random scale, rotation, colour and mirroring."""
    imagenet: str = "torchvision"
    """Initial weights of the ResNets: torchvision (downloads), keras (the asset resnet50), none, or a file."""
    batchnorm: Literal["local", "synced", "frozen"] = "local"
    """Statistics of BatchNorm. local: per device (published). synced: across devices (CUDA only). frozen: running
    statistics, not updated."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Precision of the network: float32, TF32 (CUDA), or bfloat16 in the layers where it is safe. The device must
    support it."""
    clip: float = 0.0
    """Maximum norm of the gradient; 0 for no limit."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is then evaluated and saved; 0 for none."""
    seed: int = 0
    """Seed of the weights, the order of the samples and their augmentation."""
    pictures: int = 0
    """Number of images to draw for the toy body."""
    parity: tuple[Parity, ...] = ()
    """Published behaviour to restore; see docs/training.md."""

    def __post_init__(self) -> None:
        _require(self, lambda value: value >= 32 and value % 32 == 0, "a multiple of 32", "crop")
        _require(self, lambda value: value >= 0 and value % 32 == 0, "a multiple of 32, or 0", "crop_width")
        _require(self, lambda value: value >= 0, "at least 0", "depth_bins")
        _require(self, lambda value: 0 <= value < math.inf, "at least 0", "depth_extent")
        _require(self, lambda value: value >= 1, "at least 1", "batch", "accumulate")
        _require(self, lambda value: 0 <= value < self.end_epoch, "at least 0 and before the end epoch", "first_epoch")
        _require(self, lambda value: 0 < value < math.inf, "greater than 0", "learning_rate", "decay_factor", "sigma")
        weights = "mesh_joint_weight", "normal_weight", "edge_weight"
        _require(self, lambda value: 0 <= value < math.inf, "at least 0", *weights)
        _require(self, lambda value: value >= 0, "at least 0", "clip")
        _require(self, lambda value: 0 <= value < 1, "in [0, 1)", "ema")
        if not self.train_3d + self.train_2d:
            raise InputError("nothing to train on: name a dataset", argument="train_3d")

    def rate(self, epoch: int) -> float:
        """The learning rate in `epoch`."""
        return self.learning_rate / self.decay_factor ** sum(epoch >= decay for decay in self.decay_epochs)

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Messages about the settings that differ from a recipe in JSON. `end_epoch` may differ."""
        # Training states of earlier versions lack the newest settings.
        own, other = self.to_json(), Recipe().to_json() | other
        names = (own.keys() | other.keys()) - {"end_epoch"}
        return [
            f"{name} {other.get(name)!r}, not {own.get(name)!r}"
            for name in sorted(names)
            if own.get(name) != other.get(name)
        ]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Folders, devices, saving and logging of a run. A resumed run needs the same number of devices."""

    data: Path = Path("data")
    """Folder of the datasets."""
    out: Path = Path("output")
    """Output folder. It gets the folders log, model_dump, result and vis."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files."""
    code: Path | None = None
    """Python file that adds backbones or heads; see docs/research.md."""
    start: Path | None = None
    """Checkpoint or published snapshot to start from. Default for the parameter stage: the newest lixel snapshot in the
    output folder."""
    resume: Annotated[bool, tyro.conf.arg(name="continue", aliases=["--resume"])] = False
    """Resume the run in --out from its latest training state, or start a new run if there is none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto uses CUDA devices if there are any."""
    gpu: Annotated[str, tyro.conf.arg(aliases=["--devices"])] = ""
    """Indices of CUDA devices, such as 0-3 or 0,2. Default: all CUDA devices, or one process on the CPU. With
    --device cpu, one process starts for each index."""
    nodes: int = 1
    """Number of machines, started by torchrun or SLURM."""
    workers: int = 4
    """Processes per device that load images."""
    max_steps: int = 0
    """Stop after this many steps in total. --continue resumes. 0 for no limit."""
    save_every: int = 1000
    """Save the training state every N steps, and after every epoch."""
    keep: int = 2
    """Number of training states to keep."""
    log_every: int = 20
    """Write a row of the log every N steps."""
    compile: bool = False
    """Compile the network with torch.compile."""
    channels_last: bool = False
    """Use the channels-last memory format."""
    tensorboard: bool = True
    """Write losses, rates and images of predictions for TensorBoard."""
    wandb: bool = False
    """Log to Weights & Biases too, if wandb is installed."""

    def __post_init__(self) -> None:
        _require(self, lambda value: value >= 1, "at least 1", "nodes", "save_every", "keep", "log_every")
        _require(self, lambda value: value >= 0, "at least 0", "workers", "max_steps")


def _require(options: Any, holds: Callable[[float], bool], wanted: str, *names: str) -> None:
    """Raise InputError for the first of the options `names` for which `holds` is false."""
    for name in names:
        value = getattr(options, name)
        if not holds(value):
            raise InputError(f"it must be {wanted}, not {value}", argument=name)


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """A recipe, and where and how it runs. name: the name of the recipe in `RECIPES` from which
    the settings started.
    """

    recipe: Recipe
    run: RunOptions = dataclasses.field(default_factory=RunOptions)
    name: tyro.conf.Suppress[str] = ""
