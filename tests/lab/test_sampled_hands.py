"""Sampled hands: ranges of motion, clearance between fingers, views, and the bank's bookkeeping."""

import dataclasses

import numpy as np
import pytest
import torch

from i2l_lab.synthetic.hand_poses import HandPoseSampler
from i2l_lab.synthetic.hands import HandSampler, in_crop
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.models.mediapipe import crop_around


@pytest.fixture(scope="module")
def body() -> AnnyBody:
    body = load_body("anny-hand")
    assert isinstance(body, AnnyBody)
    return body


@pytest.fixture(scope="module")
def sampler(body: AnnyBody) -> HandSampler:
    return HandSampler(body, shapes=16)


@pytest.fixture(scope="module")
def joints(body: AnnyBody) -> torch.Tensor:
    pose = HandPoseSampler(body).sample(300, torch.Generator().manual_seed(0))
    with torch.no_grad():
        return body(BodyParams(pose, body.mean_shape.expand(300, -1), torch.zeros(300, 3))).joints


def test_fingers_bend_towards_the_palm(body: AnnyBody, joints: torch.Tensor):
    """A joint that is much bent is bent to the side on which the palm is."""
    rows = {name: row for row, name in enumerate(body.skeleton.joints)}
    palm = torch.linalg.cross(joints[:, rows["Index_1"]] - joints[:, 0], joints[:, rows["Pinky_1"]] - joints[:, 0])
    palm = palm / palm.norm(dim=-1, keepdim=True)
    for finger in ("Index", "Middle", "Ring", "Pinky"):
        lower, middle, tip = (joints[:, rows[f"{finger}_{i}"]] for i in (1, 2, 3))
        first, second = middle - lower, tip - middle
        bend = torch.rad2deg(torch.nn.functional.cosine_similarity(first, second).clamp(-1, 1).acos())
        lifted = (second / second.norm(dim=-1, keepdim=True) * palm).sum(-1) - (
            first / first.norm(dim=-1, keepdim=True) * palm
        ).sum(-1)
        # Fingers that lie along the palm's normal already can only bend back over the palm.
        straight = (first / first.norm(dim=-1, keepdim=True) * palm).sum(-1) < 0.5
        assert bool((lifted[straight & (bend > 45)] > 0).all())
        assert float(bend.max()) < 125
        assert float(bend.median()) > 10


def test_fingers_do_not_run_through_each_other(joints: torch.Tensor):
    tips = joints[:, [4, 8, 12, 16, 20]]
    distance = torch.cdist(tips, tips) + torch.eye(5)
    assert float(distance.min()) > 0.008


def test_the_same_generator_gives_the_same_hands(sampler: HandSampler):
    first, second = (sampler.sample(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.mesh.vertices, second.mesh.vertices)
    other = sampler.sample(5, torch.Generator().manual_seed(4))
    assert not torch.equal(first.mesh.vertices, other.mesh.vertices)


def test_hands_stand_upright_before_their_cameras(sampler: HandSampler):
    hands = sampler.sample(20, torch.Generator().manual_seed(0))
    crop = crop_around(hands.camera.project(hands.mesh.joints))
    torch.testing.assert_close(crop.rotation, torch.zeros(20), atol=1e-4, rtol=0)
    assert float(hands.mesh.vertices[..., 2].min()) > 0.1


def test_a_turned_crop_s_camera_sees_what_the_crop_shows(body: AnnyBody, sampler: HandSampler):
    hand = sampler.sample(1, torch.Generator().manual_seed(1))[0]
    flat = hand.camera.project(hand.mesh.joints)
    middle = flat.mean(0)
    box = torch.cat([middle - 90, torch.tensor([180.0, 180.0])])
    crop = Crop.around(box, (224, 224), margin=1.0, rotation=0.6)
    seen = in_crop(body, hand, crop)
    torch.testing.assert_close(seen.camera.project(seen.mesh.joints), crop.to_crop(flat), atol=0.02, rtol=0)
    again = dataclasses.replace(seen, mesh=body(seen.params))
    np.testing.assert_allclose(again.mesh.joints, seen.mesh.joints, atol=1e-5)
