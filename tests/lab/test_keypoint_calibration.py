"""Positions of keypoints on real people: known offsets are recovered."""

import pytest
import torch
from torch import Tensor

from i2l_lab.keypoint_calibration import (
    MIRROR,
    CalibrationOptions,
    learn_offsets,
    moved_regressor,
    offset_rows,
    triangulated_people,
)
from i2l_meshnet.bodies.anny import AnnyBody, rendered_keypoints
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.data.multiview import KEYPOINT_ROWS, MultiviewSamples
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.skeletons import HALPE26

PEOPLE, FRAMES = 2, 6


def _noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _offsets() -> Tensor:
    """Heads 3 cm higher and 2 cm further to the front, elbows 2.5 cm backwards."""
    offsets = torch.zeros(26, 3)
    for name, offset in {"Head_top": (0.0, -0.02, 0.03), "Elbow": (0.0, 0.025, 0.0)}.items():
        for index, joint in enumerate(HALPE26.joints):
            if joint.endswith(name):
                offsets[index] = torch.tensor(offset)
    return offsets


@pytest.mark.slow
def test_known_offsets_are_found_again(anny: AnnyBody):
    n, bones = PEOPLE * FRAMES, len(anny.bones)
    pose = axis_angle_to_matrix(0.25 * _noise(n, bones, 3, seed=1))
    people = torch.arange(PEOPLE).repeat_interleave(FRAMES)
    shape = (anny.mean_shape + 0.1 * _noise(PEOPLE, 6, seed=2)).clamp(0, 1)[people]
    true = _offsets()
    points = moved_regressor(anny, true) @ anny(BodyParams(pose, shape, _noise(n, 3, seed=3))).vertices
    points = points + 0.001 * _noise(n, 26, 3, seed=4)
    points[0, 3] += 0.2  # a limb taken for another
    points[1, 4] = torch.nan  # and one that was not seen
    start = BodyParams(axis_angle_to_matrix(0.03 * _noise(n, bones, 3, seed=5)) @ pose, shape, torch.zeros(n, 3))
    options = CalibrationOptions(steps=120)
    found = learn_offsets(anny, start, people, points, torch.eye(3 * bones) / 0.05**2, options)
    moved = true.norm(dim=1) > 0
    # The prior holds an offset back, and shapes and poses take a part of it.
    assert (found.offsets - true)[moved].norm(dim=1).max() < 0.6 * true[moved].norm(dim=1).min()
    assert found.offsets[~moved].norm(dim=1).median() < 0.006
    mirrored = found.offsets[list(HALPE26.mirror_permutation)] * torch.tensor(MIRROR)
    torch.testing.assert_close(found.offsets, mirrored)
    assert found.after < 0.7 * found.before


def test_an_offset_moves_its_point_with_its_bone(anny: AnnyBody):
    rows, offsets = offset_rows(anny), _offsets()
    torch.testing.assert_close(rows.sum(-1), torch.zeros(26, 3), atol=1e-3, rtol=0)
    assert anny.vertex_mirror is not None
    mirrored = rows[list(HALPE26.mirror_permutation)][..., anny.vertex_mirror] * torch.tensor(MIRROR)[:, None]
    torch.testing.assert_close(rows, mirrored, atol=2e-3, rtol=0)
    change = moved_regressor(anny, offsets) - rendered_keypoints()
    rest = anny.rest_params()
    torch.testing.assert_close(change @ anny(rest).vertices, offsets, atol=1e-5, rtol=0)
    pose = rest.pose.clone()
    bone = anny.bones.index("head")
    pose[bone] = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.7]))
    turned = change @ anny(BodyParams(pose, rest.shape, rest.translation)).vertices
    top = HALPE26.index("Head_top")
    torch.testing.assert_close(turned[top], pose[bone] @ offsets[top], atol=3e-3, rtol=0)


def test_points_are_triangulated_in_the_first_view():
    """Four views of two people; the points come out in the frame of each person's first view."""
    turns = axis_angle_to_matrix(torch.tensor([[0.0, 0.4 * i, 0.1] for i in range(4)]))
    points = 0.5 * _noise(2, 26, 3, seed=6)
    seen = torch.einsum("vij,pnj->pvni", turns, points) + torch.tensor([0.0, 0.2, 5.0])
    camera = Camera(torch.full((8, 2), 900.0), torch.full((8, 2), 500.0))
    flat = seen.flatten(0, 1)
    samples = MultiviewSamples(
        view=torch.arange(4).repeat(2),
        frame=torch.zeros(8, dtype=torch.int64),
        person=torch.arange(2).repeat_interleave(4),
        box=torch.tensor([0.0, 0.0, 100.0, 200.0]).expand(8, 4),
        camera=camera,
        keypoints=torch.cat([camera.project(flat), torch.full((8, 26, 1), 0.8)], -1),
        joints=flat[:, list(KEYPOINT_ROWS)],
        joints_without=flat[:, list(KEYPOINT_ROWS)],
        error=torch.zeros(8),
    )
    chosen, found = triangulated_people(samples)
    assert chosen.person.tolist() == [0, 1]
    torch.testing.assert_close(found, seen[:, 0], atol=2e-3, rtol=0)
