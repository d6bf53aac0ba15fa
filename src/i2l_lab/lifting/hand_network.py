"""Training the hand network from the command line: drawn hands, MediaPipe's answers on them, the lifting parts."""

import dataclasses
from pathlib import Path

import torch

from i2l_lab.lifting.body_network import run_stages
from i2l_lab.lifting.hand_samples import HandLiftingSampler
from i2l_lab.lifting.training import LiftingOptions, start_heads
from i2l_lab.synthetic.hands import HandBankOptions, HandSampler, make_hand_bank, read_hand_bank, read_landmark_net
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.hand import GRID, HandPoseNet, hand_config

LICENCE = "Lifting parts: Apache-2.0. Landmark network: MediaPipe (Google), Apache-2.0."


@dataclasses.dataclass(frozen=True)
class LiftHandOptions:
    """Train the hand network's lifting parts: MediaPipe's landmarks to mesh and parameters of the Anny hand."""

    out: Path
    """Folder for the bank of drawn hands, the network, the training state and the history."""
    landmarks: Path | None = None
    """Weights of the landmark network, of i2l_lab.tools.convert_mediapipe; those of the shipped model if not given."""
    pictures: int = 3456
    """Drawn hands on which the landmark network is run."""
    workers: int = 1
    """Processes that draw them."""
    going_on: bool = False
    """Go on from the state in `out`."""
    seed: int = 1
    """Of the hands and the first weights."""
    heatmap_steps: int = 0
    """Steps of the second stage, in which the heads' heatmaps are trained whole; 0 leaves it out."""
    training: LiftingOptions = dataclasses.field(
        default_factory=lambda: LiftingOptions(steps=2600, batch=192, detected=0.4, learning_rate=1.5e-3)
    )
    """Of the first stage; the second takes a fifth of its learning rate."""


def train_hand(options: LiftHandOptions) -> Path:
    """Draws the bank, trains; returns the network's file. Raises InputError or FileError for what the user can mend."""
    torch.manual_seed(options.seed)
    body = load_body("anny-hand")
    assert isinstance(body, AnnyBody)
    bank = options.out / "bank"
    make_hand_bank(
        HandBankOptions(bank, options.landmarks, options.pictures, seed=options.seed, workers=options.workers)
    )
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
