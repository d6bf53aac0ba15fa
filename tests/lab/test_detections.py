"""The bank of detections and the keypoint regressor fitted to it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from i2l_lab.synthetic.detections import (
    DetectionBank,
    DetectOptions,
    RtmPose,
    detect_bank,
    detect_shard,
    read_bank,
)
from i2l_lab.synthetic.generate import write_pictures
from i2l_lab.synthetic.keypoints import fit_regressor, write_regressor
from i2l_lab.synthetic.pictures import Picture
from i2l_lab.synthetic.samples import BodySampler
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.skeletons import HALPE26


class StandInDetector(RtmPose):
    """Finds every point at the crop's centre; the confidence is the crop's brightness."""

    def __init__(self) -> None:
        pass

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        confidence = crops.mean((1, 2, 3)) / 255
        return np.stack([np.tile([96.0, 128.0, value], (26, 1)) for value in confidence]).astype(np.float32)


def sampled_pictures(sampler: BodySampler, n: int) -> list[Picture]:
    """Blank pictures with the ground truth of sampled people, scaled by a half."""
    people = sampler.sample(n, torch.Generator().manual_seed(0))
    pictures = []
    for i in range(n):
        focal, box = people.camera.focal[i] / 2, people.box[i] / 2
        shift = 128 - (box[:2] + box[2:] / 2)
        _, jpeg = cv2.imencode(".jpg", np.full((256, 256, 3), 40 * (i % 6) + 20, np.uint8))
        pictures.append(
            Picture(
                jpeg.reshape(-1),
                np.zeros((1, 3), np.float32),
                np.zeros((1, 3), np.float32),
                torch.cat([box[:2] + shift, box[2:]]).numpy(),
                focal.numpy(),
                shift.numpy(),
                people.params[i],
            )
        )
    return pictures


@pytest.fixture
def folder(sampler: BodySampler, anny: AnnyBody, tmp_path: Path) -> Path:
    """A bank of two shards, of which one is held out."""
    for name, n in (("train_00000.npz", 6), ("val_00000.npz", 3)):
        write_pictures(tmp_path / "pictures" / name, sampled_pictures(sampler, n))
        detect_shard(tmp_path / "pictures" / name, tmp_path / "bank" / name, anny, StandInDetector(), batch=4)
    return tmp_path / "bank"


def test_a_bank_has_the_ground_truth_in_crop_pixels(folder: Path, anny: AnnyBody, sampler: BodySampler):
    bank = read_bank(folder)
    assert bank.keypoints.shape == (6, 26, 3)
    assert bank.vertices.dtype == torch.float16
    people = sampler.sample(6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(bank.params.translation, people.params.translation)
    mesh = people.mesh
    pixels = bank.camera.project(mesh.vertices)
    near = (pixels.abs() < 400).all(2)
    assert (bank.vertices[..., :2].float() - pixels)[near].abs().max() < 0.3
    depth = mesh.vertices[..., 2] - mesh.joints[:, anny.skeleton.root_index, None, 2]
    assert (bank.vertices[..., 2].float() - depth).abs().max() < 2e-3
    torch.testing.assert_close(bank.root_depth, mesh.joints[:, anny.skeleton.root_index, 2], atol=1e-4, rtol=0)
    # The pictures get brighter one by one, so crops and ground truth belong together.
    assert (bank.keypoints[:5, 0, 2].diff() > 0).all()
    assert len(read_bank(folder, held_out=True).keypoints) == 3


def test_an_empty_or_damaged_bank_is_an_error(folder: Path, tmp_path: Path):
    with pytest.raises(FileError):
        read_bank(tmp_path)
    with pytest.raises(InputError):
        detect_bank(DetectOptions(tmp_path / "nothing", tmp_path))
    (folder / "train_00001.npz").write_bytes(b"PK broken")
    with pytest.raises(FileError, match="train_00001"):
        read_bank(folder)


def noisy_bank(sampler: BodySampler, regressor: np.ndarray, n: int) -> DetectionBank:
    """Noisy detections by a known regressor; a tenth of them are outliers, a fifth have low confidence."""
    generator = torch.Generator().manual_seed(4)
    people = sampler.sample(n, generator)
    size = people.box[:, 3:] / 200
    pixels = people.camera.project(people.mesh.vertices) / size[:, None]
    pixels = pixels - pixels.mean(1, keepdim=True) + torch.tensor([96.0, 128.0])
    points = torch.einsum("pv,nvd->npd", torch.from_numpy(regressor).float(), pixels)
    points = points + torch.randn(points.shape, generator=generator)
    far = torch.rand(points.shape[:2], generator=generator) < 0.1
    points = torch.where(far[..., None], points + 60 * torch.randn(points.shape, generator=generator), points)
    doubtful = torch.rand(points.shape[:2], generator=generator) < 0.2
    points = torch.where(doubtful[..., None], torch.full((), 5.0), points)
    confidence = torch.where(doubtful, 0.1, 0.8)
    vertices = torch.cat([pixels, people.mesh.vertices[..., 2:]], 2).half()
    camera = Camera(people.camera.focal, people.camera.center)
    return DetectionBank(torch.cat([points, confidence[..., None]], 2), vertices, torch.zeros(n), camera, people.params)


def test_a_known_regressor_is_found_again(anny: AnnyBody, sampler: BodySampler, tmp_path: Path):
    assert anny.vertex_mirror is not None
    mirror = anny.vertex_mirror.numpy()
    twin = list(HALPE26.mirror_permutation)
    rng = np.random.default_rng(0)
    known = np.zeros((26, len(mirror)))
    for point in range(26):
        middle = rng.integers(len(mirror))
        near = torch.cdist(anny(anny.rest_params()).vertices[None, [middle]], anny(anny.rest_params()).vertices[None])
        known[point, near[0, 0].argsort()[:3].numpy()] = [0.5, 0.3, 0.2]
    known = np.where(np.array(twin)[:, None] == np.arange(26)[:, None], (known + known[:, mirror]) / 2, known)
    for point in range(26):  # one-sided points for pairs, symmetric ones for the rest
        if twin[point] > point:
            known[twin[point]] = known[point][mirror]
    bank = noisy_bank(sampler, known, 500)
    fit = fit_regressor(bank, mirror)
    np.testing.assert_allclose(fit.regressor.sum(1), 1, atol=1e-9)
    assert (fit.regressor >= 0).all()
    np.testing.assert_allclose(fit.regressor[twin][:, mirror], fit.regressor, atol=1e-12)
    places = bank.vertices[..., :2].float().numpy()
    gap = np.linalg.norm(np.einsum("pv,nvd->npd", fit.regressor - known, places), axis=2)
    assert np.median(gap, 0).max() < 1.0

    write_regressor(tmp_path / "points.npz", fit.regressor)
    with np.load(tmp_path / "points.npz") as data:
        dense = np.zeros_like(fit.regressor)
        np.add.at(dense, (np.arange(26)[:, None], data["keypoint_index"].astype(int)), data["keypoint_weight"])
    np.testing.assert_allclose(dense, fit.regressor, atol=1e-6)
