"""Bodies and samplers that need no assets: Anny, its hand, and procedural poses."""

import pytest

from i2l_lab.synthetic.cameras import ViewSampler
from i2l_lab.synthetic.poses import PoseBank, PoseSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.library import load_body


def _anny(name: str) -> AnnyBody:
    body = load_body(name)
    assert isinstance(body, AnnyBody)
    return body


@pytest.fixture(scope="session")
def anny() -> AnnyBody:
    return _anny("anny")


@pytest.fixture(scope="session")
def hand() -> AnnyBody:
    return _anny("anny-hand")


@pytest.fixture(scope="session")
def bank(anny: AnnyBody) -> PoseBank:
    return PoseBank.build(anny, None, procedural=800, seed=3)


@pytest.fixture(scope="session")
def sampler(anny: AnnyBody, bank: PoseBank) -> BodySampler:
    return BodySampler(PoseSampler(anny, bank), ShapeSampler(anny, seed=1, size=256), ViewSampler(anny))
