"""Sampled shapes and views."""

import pytest
import torch

from i2l_lab.synthetic.cameras import ViewMix, ViewSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import STATURE, ShapeSampler
from i2l_meshnet.bodies.anny import AnnyBody, stature
from i2l_meshnet.bodies.library import load_body

STILL = ViewMix(
    frontal=1.0,
    frontal_range=0.0,
    pitch_mean=0.0,
    pitch=0.0,
    steep=0.0,
    roll=0.0,
    tilted_roll=0.0,
    offset=0.0,
    truncated=0.0,
    box_scale=0.0,
    box_shift=0.0,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def upright(body: AnnyBody, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.eye(3).repeat(n, len(body.bones), 1, 1), body.mean_shape.repeat(n, 1)


def test_adults_have_realistic_statures(anny: AnnyBody):
    shape = ShapeSampler(anny, seed=2, size=512, children=0.0).sample(512, generator())
    height, female = stature(anny, shape), shape[:, 0] > 0.5
    for sex, rows in (("female", female), ("male", ~female)):
        mean, deviation = STATURE[sex]
        assert abs(height[rows].mean() - mean) < 0.02
        assert abs(height[rows].std() - deviation) < 0.02


def test_shapes_need_annys_values():
    with pytest.raises(ValueError, match="shape values"):
        ShapeSampler(load_body("toy"))


def test_a_still_view_shows_an_upright_person_who_faces_the_camera(anny: AnnyBody):
    sample = ViewSampler(anny, STILL).place(*upright(anny, 4), generator())
    place = {name: sample.mesh.joints[:, anny.skeleton.index(name)] for name in anny.skeleton.joints}
    assert (place["Head_top"][:, 1] < place["L_Ankle"][:, 1] - 1).all()  # y points down
    assert (place["Nose"][:, 2] < place["Neck"][:, 2]).all()  # the face is nearer
    assert (place["L_Shoulder"][:, 0] > place["R_Shoulder"][:, 0]).all()  # their left is at our right
    torch.testing.assert_close(sample.up, torch.tensor([[0.0, -1.0, 0.0]]).expand(4, 3))


def test_without_jitter_the_box_is_the_projection(anny: AnnyBody):
    sample = ViewSampler(anny, STILL).place(*upright(anny, 4), generator())
    pixels = sample.camera.project(sample.mesh.vertices)
    low, high = pixels.amin(1), pixels.amax(1)
    torch.testing.assert_close(sample.box, torch.cat([low, high - low], 1), atol=1e-2, rtol=0)
    torch.testing.assert_close((high - low).amax(1), torch.full((4,), 400.0))


def test_the_mesh_agrees_with_the_parameters(sampler: BodySampler, anny: AnnyBody):
    sample = sampler.sample(16, generator())
    with torch.no_grad():
        mesh = anny(sample.params)
    torch.testing.assert_close(mesh.vertices, sample.mesh.vertices, atol=1e-4, rtol=0)
    torch.testing.assert_close(mesh.joints, sample.mesh.joints, atol=1e-4, rtol=0)


def test_nobody_is_at_the_lens_and_boxes_contain_people(sampler: BodySampler):
    sample = sampler.sample(300, generator())
    assert sample.mesh.vertices[..., 2].min() > 0.3
    middle = sample.camera.project(sample.mesh.joints).mean(1)
    inside = (middle > sample.box[:, :2]) & (middle < sample.box[:, :2] + sample.box[:, 2:])
    assert inside.all(1).float().mean() > 0.9
