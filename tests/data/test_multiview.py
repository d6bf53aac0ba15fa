"""The four-view clips: calibration, people found and triangulated, samples saved and loaded."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from i2l_meshnet.data.multiview import (
    KEYPOINT_ROWS,
    MultiviewClip,
    MultiviewSamples,
    build_samples,
    load_samples,
    open_clip,
    read_crops,
    save_samples,
)
from i2l_meshnet.data.triangulation import refine_orientations, triangulate
from i2l_meshnet.errors import FileError
from i2l_meshnet.evaluation.multiview import report
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix

WIDTH, HEIGHT, CUT = 96, 128, 8
PLACE = torch.tensor([0.1, 0.2, 0.9], dtype=torch.float64)
POINTS = PLACE + torch.randn(26, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.25


def write_clip(folder: Path, frames: int = 2, distortion: float = 0.0) -> None:
    """Four cameras in a ring, in Qualisys' units: millimetres, 64ths of a pixel, looking along -z with y up.

    The videos are CUT columns narrower than calibrated.
    """
    (folder / "calibration").mkdir(parents=True)
    (folder / "videos").mkdir()
    entries = []
    for view in range(4):
        angle = view * np.pi / 2 + 0.3
        back = np.array([np.cos(angle), np.sin(angle), 0.2])
        back /= np.linalg.norm(back)
        right = np.cross([0, 0, 1.0], back)
        right /= np.linalg.norm(right)
        rows = np.stack([right, np.cross(back, right), back])
        place = (back * 4 + PLACE.numpy()) * 1000
        turn = " ".join(f'r{i + 1}{j + 1}="{rows[i, j]}"' for i in range(3) for j in range(3))
        where = " ".join(f'{axis}="{value}"' for axis, value in zip("xyz", place, strict=True))
        entries.append(
            f'<camera serial="cam0{view + 1}">'
            f'<fov_video left="0" right="{WIDTH + CUT - 1}" top="0" bottom="{HEIGHT - 1}"/>'
            f"<transform {turn} {where}/>"
            f'<intrinsic focalLengthU="{120 * 64}" focalLengthV="{120 * 64}" '
            f'centerPointU="{(WIDTH + CUT) * 32}" centerPointV="{HEIGHT * 32}" '
            f'radialDistortion1="{distortion}"/></camera>'
        )
        stream = cv2.VideoWriter(
            str(folder / "videos" / f"cam0{view + 1}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (WIDTH, HEIGHT)
        )
        for _ in range(frames):
            stream.write(np.full((HEIGHT, WIDTH, 3), 60 * view + 20, np.uint8))
        stream.release()
    text = "<calibration><cameras>" + "".join(entries) + "</cameras></calibration>"
    (folder / "calibration" / "Calib.qca.txt").write_text(text)


@pytest.fixture
def clip(tmp_path: Path) -> MultiviewClip:
    write_clip(tmp_path / "clip")
    return open_clip(tmp_path / "clip")


def pixels(clip: MultiviewClip) -> torch.Tensor:
    cameras = clip.cameras
    return cameras.intrinsics.project(cameras.to_camera(POINTS.expand(4, -1, -1)))


def test_calibration_puts_the_scene_in_the_middle_of_every_picture(clip: MultiviewClip):
    middle = clip.cameras.to_camera(PLACE.expand(4, 1, 3))[:, 0]
    torch.testing.assert_close(middle, torch.tensor([0.0, 0, 4]).double().expand(4, 3), atol=1e-6, rtol=0)
    center = clip.cameras.intrinsics.center
    torch.testing.assert_close(center, torch.tensor([WIDTH / 2, HEIGHT / 2]).double().expand(4, 2))
    up = clip.cameras.rotation @ torch.tensor([0.0, 0, 1]).double()
    assert (up[:, 1] < -0.9).all()


def detect(image: np.ndarray, people: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[10, 10, 60, 90]] * people, np.float32), np.full(people, 0.9, np.float32)


def in_crops(points: torch.Tensor) -> torch.Tensor:
    """Keypoints (26, 3) of each person in the crop of that box: 1.25 times its height, 3:4, about its centre."""
    zoom = 256 / (89 * 1.25)
    corner = torch.tensor([10 + 29.5, 10 + 44.5]) - torch.tensor([96, 128]) / zoom
    points = (points.float().reshape(-1, 26, 2) - corner) * zoom
    return torch.cat([points, torch.full((*points.shape[:2], 1), 0.8)], -1)


@pytest.fixture
def samples(clip: MultiviewClip) -> MultiviewSamples:
    """Both frames of one person, without refined cameras."""
    found = iter([*pixels(clip)] * 2)
    return build_samples(clip, detect, lambda crops: in_crops(next(found)), every=1, refine=False)


def test_people_are_found_and_placed(clip: MultiviewClip, tmp_path: Path):
    found = iter([*pixels(clip)] * 2)
    samples = build_samples(clip, detect, lambda crops: in_crops(next(found)), every=1)
    assert samples.view.tolist() == [0, 1, 2, 3] * 2
    wanted = clip.cameras.to_camera(POINTS[list(KEYPOINT_ROWS)].expand(4, -1, -1)).float()
    torch.testing.assert_close(samples.joints, wanted[samples.view], atol=2e-3, rtol=0)
    torch.testing.assert_close(samples.joints_without, wanted[samples.view], atol=2e-3, rtol=0)
    crops = read_crops(clip, samples, (256, 192), every=1)
    torch.testing.assert_close(crops[:, 0, 128, 96].float(), 60.0 * samples.view + 20, atol=8, rtol=0)
    save_samples(samples, tmp_path / "samples.npz")
    again = load_samples(tmp_path / "samples.npz")
    torch.testing.assert_close(again.joints, samples.joints)
    torch.testing.assert_close(again.camera.focal, samples.camera.focal)


def test_the_report_scores_the_given_joints(samples: MultiviewSamples):
    scores = report(samples, {"lixel": samples.joints, "param": samples.joints * 1.1 + 3})
    lixel, param = scores.errors["lixel"], scores.errors["param"]
    assert lixel.joints.mean() < 0.1
    assert param.aligned.mean() < 0.1
    assert abs(float(param.size.median()) - 1 / 1.1) < 1e-3
    assert scores.noise.joints.mean() < 1
    # Two frames have no acceleration.
    assert scores.to_json()["meshes"]["lixel"]["acceleration_mm_per_squared_frame"] is None
    assert [row["samples"] for row in scores.view_rows()] == [2, 2, 2, 2]


def test_lens_distortion_is_removed(tmp_path: Path):
    write_clip(tmp_path / "clip", distortion=-0.1)
    clip = open_clip(tmp_path / "clip")
    straight = pixels(clip)[0]
    matrix = np.array([[120.0, 0, WIDTH / 2], [0, 120, HEIGHT / 2], [0, 0, 1]])
    turned = clip.cameras.to_camera(POINTS.expand(4, -1, -1))[0].numpy()
    bent, _ = cv2.projectPoints(turned, np.zeros(3), np.zeros(3), matrix, np.array([-0.1, 0, 0, 0]))
    found = torch.from_numpy(bent[:, 0])
    assert float((found - straight).abs().max()) > 0.05
    torch.testing.assert_close(clip.undistorted(0, found), straight, atol=1e-3, rtol=0)
    assert clip.undistorted(0, torch.zeros(0, 26, 2)).shape == (0, 26, 2)


def test_people_keep_their_numbers_if_the_detector_changes_their_order(clip: MultiviewClip):
    away = torch.tensor([0.9, -0.6, 0.0], dtype=torch.float64)
    both = torch.cat([POINTS, POINTS + away])
    cameras = clip.cameras
    found = cameras.intrinsics.project(cameras.to_camera(both.expand(4, -1, -1)))
    answers = iter([*map(in_crops, found), *(in_crops(points).flip(0) for points in found)])
    samples = build_samples(clip, lambda image: detect(image, 2), lambda crops: next(answers), every=1, refine=False)
    seen: dict[tuple[int, int], list[torch.Tensor]] = {}
    for row, key in enumerate(zip(samples.person.tolist(), samples.view.tolist(), strict=True)):
        seen.setdefault(key, []).append(samples.joints[row])
    assert len(seen) == 8
    for first, second in seen.values():
        torch.testing.assert_close(first, second, atol=1e-3, rtol=0)


def test_refining_corrects_rotated_cameras(clip: MultiviewClip):
    cloud = PLACE + torch.randn(300, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.4
    cameras = clip.cameras
    seen = cameras.intrinsics.project(cameras.to_camera(cloud.expand(4, -1, -1)))
    wrong = torch.tensor([[0.0, 0.02, 0], [0, -0.01, 0], [0.01, 0, 0], [0, 0, 0.01]], dtype=torch.float64)
    turned = cameras.rotated(axis_angle_to_matrix(wrong))
    ones = torch.ones(4, 300, dtype=torch.float64)
    before = (triangulate(turned, seen, ones) - cloud).norm(dim=-1).mean()
    refined = refine_orientations(turned, seen, ones)
    after = (triangulate(refined, seen, ones) - cloud).norm(dim=-1).mean()
    assert after < 0.4 * before


def test_missing_videos_and_damaged_calibrations_are_refused(tmp_path: Path):
    write_clip(tmp_path / "clip")
    (tmp_path / "clip" / "videos" / "cam02.mp4").unlink()
    with pytest.raises(FileError, match=r"cam02\.mp4"):
        open_clip(tmp_path / "clip")
    (tmp_path / "clip" / "calibration" / "Calib.qca.txt").write_text("<calibration>")
    with pytest.raises(FileError, match=r"Calib\.qca\.txt"):
        open_clip(tmp_path / "clip")
