"""Published networks with the weights and synthetic bodies of the goldens."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import golden_recipe
import pytest
import torch
from golden_recipe import official_key
from torch import Tensor

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.bodies.files import find_body_file
from i2l_meshnet.bodies.linear import load_mano
from i2l_meshnet.models import assembly
from i2l_meshnet.models.meshnet import MeshNet


@functools.cache
def recipe_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """Cached, because body and hand have the same ResNets."""
    return torch.from_numpy(golden_recipe.weight(key, shape))


@pytest.fixture(scope="session")
def published_body(body_directory: Path) -> Callable[[str], Body]:
    """The synthetic SMPL ("body") or MANO ("hand") of the goldens, with the published joint regressor."""

    @functools.cache
    def make(kind: str) -> Body:
        if kind == "body":
            return load_body("smpl", body_directory)
        return load_mano(find_body_file("mano", body_directory), published_regressor=True)

    return make


@pytest.fixture(scope="session")
def published_network(published_body: Callable[[str], Body]) -> Iterator[Callable[[str], MeshNet]]:
    """A fresh published network with the goldens' weights, in eval mode."""

    def make(kind: str) -> MeshNet:
        body = published_body(kind)
        with torch.device("meta"):
            network = assembly.build_published(assembly.published_config(body), body.joint_regressor)
        state = {
            key: recipe_weight(official_key(key), tuple(value.shape)) for key, value in network.state_dict().items()
        }
        network.load_state_dict({key: value.clone() for key, value in state.items()}, assign=True)
        network.joint_regressor = body.joint_regressor
        return network.eval()

    yield make
    recipe_weight.cache_clear()
