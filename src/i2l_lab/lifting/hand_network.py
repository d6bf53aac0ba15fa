"""Training the hand network from the command line: drawn hands, MediaPipe's landmarks on them, the lifting parts."""

import dataclasses
from pathlib import Path

import torch

from i2l_lab.lifting.body_network import run_stages
from i2l_lab.lifting.hand_samples import HandLiftingSampler
from i2l_lab.lifting.training import LiftingOptions, start_heads
from i2l_lab.synthetic.hands import HandSampler, make_hand_bank, read_hand_bank, read_landmark_net
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.hand import GRID, HandPoseNet, hand_config

LICENCE = "Lifting parts: Apache-2.0. Landmark network: MediaPipe (Google), Apache-2.0."


@dataclasses.dataclass(frozen=True)
class LiftHandOptions:
    """Train the hand network's lifting parts: MediaPipe's landmarks to mesh and parameters of the Anny hand."""

    out: Path
    """Folder for the bank of drawn hands, the checkpoint, the training state and the history."""
    landmarks: Path | None = None
    """Weights of the landmark network from i2l_lab.tools.convert_mediapipe. Default: those of the shipped model."""
    pictures: int = 3456
    """Number of drawn hands."""
    workers: int = 1
    """Processes that draw hands."""
    going_on: bool = False
    """Resume from the training state in `out`."""
    seed: int = 1
    """Random seed of the hands and the initial weights."""
    heatmap_steps: int = 0
    """Steps of the second stage, which trains the heads' heatmaps. 0 skips it."""
    training: LiftingOptions = dataclasses.field(
        default_factory=lambda: LiftingOptions(steps=2600, batch=192, detected=0.4, learning_rate=1.5e-3)
    )
    """Settings of the first stage. The second uses a fifth of its learning rate."""


def train_hand(options: LiftHandOptions) -> Path:
    """Draw the bank and train; return the path of the checkpoint. Raise InputError or FileError."""
    torch.manual_seed(options.seed)
    body = load_body("anny-hand")
    assert isinstance(body, AnnyBody)
    bank = options.out / "bank"
    make_hand_bank(bank, options.landmarks, options.pictures, options.seed, options.workers)
    sampler = HandLiftingSampler(body, GRID, HandSampler(body, options.seed), read_hand_bank(bank), seed=options.seed)
    network = assembly.build(hand_config(body), body)
    pose_net = network.pose_net
    assert isinstance(pose_net, HandPoseNet)
    pose_net.estimator = read_landmark_net(options.landmarks)
    start_heads(network, sampler)
    average = run_stages(network, body, sampler, options.training, options.heatmap_steps, options.out, options.going_on)
    path = options.out / "hand.safetensors"
    source = f"training.hand_job, seed {options.seed}, {len(sampler.residual)} drawn hands; MediaPipe 0.10.21"
    extra = {"precision": options.training.chosen_precision()}
    checkpoint.save(average, path, extra, licence=LICENCE, source=source, half=True)
    return path
