"""Training the default model from the command line: data, two stages, history, the checkpoint."""

import dataclasses
import json
from pathlib import Path

import torch

from i2l_lab.lifting.samples import BatchSampler, LiftingSampler, NoiseOptions
from i2l_lab.lifting.training import LiftingOptions, LiftingTrainer, learn_errors, start_heads
from i2l_lab.synthetic.cameras import ViewMix, ViewSampler
from i2l_lab.synthetic.detections import read_bank
from i2l_lab.synthetic.poses import PoseBank, PoseMix, PoseSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet import assets
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.io import read_bytes, write_bytes
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.keypoint import GRID, KeypointPoseNet, keypoint_config
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.rtmpose import load_onnx

LICENCE = (
    "Lifting parts: Apache-2.0. RTMPose weights: OpenMMLab, Apache-2.0, stated usable commercially by their "
    "maintainers, terms of some training sets unresolved upstream."
)
POSES = PoseMix(
    sources=(("procedural", 0.50), ("makehuman", 0.08), ("mocap", 0.42)), recombine=0.15, arms=0.2, noise=0.8
)
VIEWS = ViewMix(offset=5.0, pitch_mean=7.0, pitch=10.0, steep=18.0, tele=0.15)
"""A hand-held camera is above the centre of the body, so it mostly looks down."""
NOISE = NoiseOptions(minimum=0.2, maximum=1.0, clean=0.3, jitter=1.0)
CHILDREN = 0.05
ERROR_BATCHES = 80
"""Batches of 256 new samples on which the errors of the trained network are measured."""


@dataclasses.dataclass(frozen=True)
class LiftOptions:
    """Train the lifting parts of the default model: RTMPose's keypoints to mesh and parameters, without images."""

    bank: Path
    """Folder of detections on synthetic images (see docs/synthetic.md)."""
    out: Path
    """Folder for the checkpoint, the training state and the history."""
    mocap: tuple[Path, ...] = ()
    """Folders of motion capture (BVH)."""
    start: Path | None = None
    """Training state to take the initial weights from, where names and shapes agree."""
    going_on: bool = False
    """Resume from the training state in `out`."""
    seed: int = 5
    """Random seed of the samples and the initial weights."""
    heatmap_steps: int = 0
    """Steps of the second stage, which trains the heads' heatmaps. 0 skips it."""
    training: LiftingOptions = dataclasses.field(default_factory=LiftingOptions)
    """Settings of the first stage. The second uses a fifth of its learning rate."""


def train_lifting(options: LiftOptions) -> Path:
    """Run the stages; return the path of the checkpoint. Raise InputError or FileError."""
    torch.manual_seed(options.seed)
    body = load_body("anny")
    assert isinstance(body, AnnyBody)
    sampler = build_sampler(body, options)
    network = assembly.build(keypoint_config(body), body)
    pose_net = network.pose_net
    assert isinstance(pose_net, KeypointPoseNet)
    pose_net.estimator = load_onnx(assets.ensure("rtmpose"))
    start_heads(network, sampler)
    if options.start is not None:
        LiftingTrainer(network, body, sampler, options.training).start_from(options.start)
    average = run_stages(network, body, sampler, options.training, options.heatmap_steps, options.out, options.going_on)
    learn_errors(
        average, body, (sampler.batch(-1000 - i, 256, options.training.detected) for i in range(ERROR_BATCHES))
    )
    path = options.out / "network.safetensors"
    source = f"training.lifting_job, seed {options.seed}, {len(sampler.residual)} detections"
    extra = {"precision": options.training.chosen_precision()}
    checkpoint.save(average, path, extra, licence=LICENCE, source=source, half=True)
    return path


def run_stages(
    network: MeshNet,
    body: Body,
    sampler: BatchSampler,
    training: LiftingOptions,
    heatmap_steps: int,
    out: Path,
    going_on: bool,
) -> MeshNet:
    """Train the lifting parts; return the averaged network. Training states and histories are written to `out`.

    The second stage has `heatmap_steps` steps and a fifth of the learning rate. Raise InputError if `out` contains a
    training state and `going_on` is false.
    """
    stages = {"centres": dataclasses.replace(training, heatmaps=False)}
    if heatmap_steps:
        rate = training.learning_rate / 5
        stages["heatmaps"] = dataclasses.replace(training, heatmaps=True, steps=heatmap_steps, learning_rate=rate)
    average = network
    for name, stage in stages.items():
        state = out / f"{name}.pt"
        trainer = LiftingTrainer(average, body, sampler, stage)
        if going_on and state.exists():
            trainer.resume(state)
        elif state.exists():
            raise InputError(f"{state} exists: resume it with --going-on, or use another folder", argument="out")
        history = out / f"{name}.jsonl"
        trainer.run(lambda row, path=history: _append(path, row), save_to=state)
        average = trainer.average
    return average


def build_sampler(body: AnnyBody, options: LiftOptions) -> LiftingSampler:
    """The people, views and detections that the default model is trained on."""
    bank = PoseBank.build(body, assets.ensure("makehuman"), options.mocap, 60_000, frames_per_second=30.0)
    people = BodySampler(
        PoseSampler(body, bank, POSES), ShapeSampler(body, children=CHILDREN), ViewSampler(body, VIEWS)
    )
    return LiftingSampler(body, GRID, people, read_bank(options.bank), NOISE, seed=options.seed)


def _append(path: Path, row: dict[str, float]) -> None:
    """Add a line to a JSON Lines file. Lines of this step and later ones, of a killed run, are removed."""
    known = read_bytes(path).decode().splitlines(keepends=True) if path.exists() else []
    known = [line for line in known if json.loads(line)["step"] < row["step"]]
    line = json.dumps({key: round(value, 5) for key, value in row.items()}) + "\n"
    write_bytes(path, "".join([*known, line]).encode())
