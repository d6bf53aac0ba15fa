"""Bodies and samplers that need no assets: Anny and drawn-up poses."""

import pytest

from i2l_lab.synthetic.cameras import ViewSampler
from i2l_lab.synthetic.poses import PoseBank, PoseSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.library import load_body


@pytest.fixture(scope="session")
def anny() -> Body:
    return load_body("anny")


@pytest.fixture(scope="session")
def bank(anny: Body) -> PoseBank:
    return PoseBank.build(anny, None, procedural=800, seed=3)


@pytest.fixture(scope="session")
def sampler(anny: Body, bank: PoseBank) -> BodySampler:
    return BodySampler(PoseSampler(anny, bank), ShapeSampler(anny, seed=1, size=256), ViewSampler(anny))
