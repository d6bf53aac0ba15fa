"""Sampled hands: ranges of motion, clearance between fingers, views."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from i2l_lab.synthetic.hand_poses import HandPoseSampler
from i2l_lab.synthetic.hands import HandSampler, in_crop
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.models.mediapipe import crop_around


@pytest.fixture(scope="module")
def hands(hand: AnnyBody) -> HandSampler:
    return HandSampler(hand, shapes=16)


@pytest.fixture(scope="module")
def joints(hand: AnnyBody) -> torch.Tensor:
    pose = HandPoseSampler(hand).sample(300, torch.Generator().manual_seed(0))
    with torch.no_grad():
        return hand(BodyParams(pose, hand.mean_shape.expand(300, -1), torch.zeros(300, 3))).joints


def test_fingers_bend_towards_the_palm(hand: AnnyBody, joints: torch.Tensor):
    rows = {name: row for row, name in enumerate(hand.skeleton.joints)}
    across = torch.linalg.cross(joints[:, rows["Index_1"]] - joints[:, 0], joints[:, rows["Pinky_1"]] - joints[:, 0])
    palm = normalize(across, dim=-1)
    for finger in ("Index", "Middle", "Ring", "Pinky"):
        lower, middle, tip = (joints[:, rows[f"{finger}_{i}"]] for i in (1, 2, 3))
        first, second = middle - lower, tip - middle
        bend = torch.rad2deg(cosine_similarity(first, second).clamp(-1, 1).acos())
        before, after = ((normalize(bone, dim=-1) * palm).sum(-1) for bone in (first, second))
        # A finger that already points along the palm's normal can only bend back over the palm.
        straight = before < 0.5
        assert bool((after > before)[straight & (bend > 45)].all())
        assert float(bend.max()) < 125
        assert float(bend.median()) > 10


def test_fingers_do_not_run_through_each_other(joints: torch.Tensor):
    tips = joints[:, [4, 8, 12, 16, 20]]
    distance = torch.cdist(tips, tips) + torch.eye(5)
    assert float(distance.min()) > 0.008


def test_hands_are_upright_in_front_of_their_cameras(hands: HandSampler):
    sample = hands.sample(20, torch.Generator().manual_seed(0))
    crop = crop_around(sample.camera.project(sample.mesh.joints))
    torch.testing.assert_close(crop.rotation, torch.zeros(20), atol=1e-4, rtol=0)
    assert float(sample.mesh.vertices[..., 2].min()) > 0.1


def test_the_camera_of_a_rotated_crop_sees_what_the_crop_shows(hand: AnnyBody, hands: HandSampler):
    sample = hands.sample(1, torch.Generator().manual_seed(1))[0]
    flat = sample.camera.project(sample.mesh.joints)
    box = torch.cat([flat.mean(0) - 90, torch.tensor([180.0, 180.0])])
    crop = Crop.around(box, (224, 224), margin=1.0, rotation=0.6)
    seen = in_crop(hand, sample, crop)
    torch.testing.assert_close(seen.camera.project(seen.mesh.joints), crop.to_crop(flat), atol=0.02, rtol=0)
    again = dataclasses.replace(seen, mesh=hand(seen.params))
    np.testing.assert_allclose(again.mesh.joints, seen.mesh.joints, atol=1e-5)
