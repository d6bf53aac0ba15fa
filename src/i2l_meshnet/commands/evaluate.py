"""`i2l-meshnet evaluate`."""

from typing import Annotated

import torch
import tyro

from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.evaluation import evaluate as evaluation
from i2l_meshnet.evaluation.evaluate import EvaluateOptions
from i2l_meshnet.evaluation.photos import Predict
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.prediction.detect import PersonDetector
from i2l_meshnet.prediction.predictor import MeshPredictor


def evaluate(options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]) -> int:
    """Score a network on a benchmark: the published metrics and more, tables, plots, the worst samples."""
    return evaluation.run(options, lambda: PersonDetector(assets.ensure("detector")), _photo_predictor)


def _photo_predictor(network: LixelNetwork, body: Body, device: torch.device) -> Predict:
    """What places a network's meshes in photos, as `predict` does it."""
    predictor = MeshPredictor(network, body, device=device)
    return lambda picture, boxes: predictor(picture, boxes=boxes)
