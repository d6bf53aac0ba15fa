"""Sampled hands in front of cameras, images of them, and a bank of the landmarks that MediaPipe's network finds."""

import dataclasses
import functools
import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from safetensors.torch import load_file
from torch import Tensor

from i2l_lab.synthetic.clothes import HELD_OUT
from i2l_lab.synthetic.hand_poses import HandPoseSampler
from i2l_lab.synthetic.pictures import ASSETS, Backgrounds, photograph, random_lights
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_lab.synthetic.shards import read_shards, run_tasks, shard_paths, use_one_thread
from i2l_meshnet import assets
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyMesh, BodyParams
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, transform_points, warp_image
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.io import atomic_path, reading
from i2l_meshnet.models.loading import HAND_WEIGHTS, load_network, shipped_weights
from i2l_meshnet.models.mediapipe import LANDMARK_CROP, LandmarkNet, Landmarks, crop_around
from i2l_meshnet.pictures import read_picture
from i2l_meshnet.rendering.raster import rasterize
from i2l_meshnet.rendering.shading import Textures, project, shade
from i2l_meshnet.tensors import TensorDataclass

PICTURE_SIDE = 320
SKIN_SIZE = 512
SHARD = 128
"""Images per shard."""
FOREARM = ((0.02, 1.0), (0.05, 1.03), (0.11, 1.2), (0.26, 1.45))
"""Rings of the forearm that is drawn behind the wrist: metres from the edge of the wrist, and relative size."""


@dataclasses.dataclass(frozen=True)
class HandSample(TensorDataclass):
    """Right hands in front of cameras.

    params, mesh: in the camera frame, metres. camera: its principal point is pixel (0, 0) of an image without borders,
    in which the hand is about 100 px long. The camera is rolled so that the hand's crop has no rotation.
    """

    params: BodyParams
    mesh: BodyMesh
    camera: Camera


class HandSampler:
    """Draws posed hands in front of cameras. All randomness comes from the given generator."""

    def __init__(self, body: AnnyBody, seed: int = 0, shapes: int = 8192) -> None:
        """shapes: number of different shapes."""
        self.body = body
        self.poses, self.shapes = HandPoseSampler(body), ShapeSampler(load_body("anny"), seed, shapes)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> HandSample:
        """Draw `n` hands, seen from any direction, from 0.25 to 3 m, up to 25° off the optical axis."""

        def uniform(low: float | int, high: float | int, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(n, *shape, generator=generator)

        import roma  # takes two seconds

        pose, shape = self.poses.sample(n, generator), self.shapes.sample(n, generator)
        quaternion = torch.randn(n, 4, generator=generator)
        pose[:, 0] = roma.unitquat_to_rotmat(quaternion / quaternion.norm(dim=-1, keepdim=True))
        distance = torch.exp(uniform(math.log(0.25), math.log(3.0)))
        aside = uniform(-1, 1, 2) * math.tan(math.radians(25))
        # Hands are more often near the centre of the image.
        position = torch.cat([aside * uniform(0, 1, 1) * distance[:, None], distance[:, None]], 1)
        mesh = self.body(BodyParams(pose, shape, torch.zeros(n, 3)))
        middle = (mesh.vertices.amin(1) + mesh.vertices.amax(1)) / 2
        position = position - middle
        position[:, 2] = torch.maximum(position[:, 2], 0.12 - mesh.vertices[..., 2].amin(1))
        focal = (100 / 0.18 * distance)[:, None].expand(n, 2)
        camera = Camera(focal, torch.zeros(n, 2))
        crop = crop_around(camera.project(mesh.joints + position[:, None]))
        return rolled(self.body, BodyParams(pose, shape, position), camera, crop.rotation)


def rolled(body: AnnyBody, params: BodyParams, camera: Camera, angle: Float[Tensor, "*n"]) -> HandSample:
    """The hands in front of a camera rolled by `angle`, so that crops rotated by `angle` become upright."""
    axis = torch.stack([torch.zeros_like(angle), torch.zeros_like(angle), -angle], -1)
    turn = axis_angle_to_matrix(axis)
    # The body rotates about its root bone, which is at the translation.
    moved = dataclasses.replace(params.rotated(turn), translation=(turn @ params.translation[..., None])[..., 0])
    return HandSample(moved, body(moved), camera)


@dataclasses.dataclass(frozen=True)
class HandBank:
    """Hands and the landmarks that the network finds, in crops of `LANDMARK_CROP`.

    found: the network's output. params, camera: of the crop, which has no rotation relative to the camera.
    """

    found: Landmarks
    params: BodyParams
    camera: Camera


class HandPictureMaker:
    """Makes images of hands. The same seed and index always make the same image."""

    def __init__(self, sampler: HandSampler, skins: Path, backgrounds: Backgrounds) -> None:
        """skins: the asset makehuman."""
        self.sampler, self.body, self.backgrounds = sampler, sampler.body, backgrounds
        folders = sorted((skins / "package" / "public" / "data" / "skins").glob("*/textures/*diffuse*.png"))
        read = [read_picture(path, cv2.IMREAD_COLOR) for path in folders if path.parent.parent.name not in HELD_OUT]
        self.skins = [
            cv2.resize(skin, (SKIN_SIZE, SKIN_SIZE))[..., ::-1].astype(np.float32) for skin in read if skin is not None
        ]
        if not self.skins:
            raise FileError(f"{skins} contains no skins; download the asset makehuman again")
        self._faces = self.body.faces.numpy()
        self._uv = self.body.full_uv.numpy()[self.body.full_face_uv.numpy()].astype(np.float32)
        self._loop = _boundary(self._faces)

    def make(self, seed: int, index: int) -> tuple[UInt8[np.ndarray, "s s 3"], HandSample]:
        """The image of a seed and index, and the hand in it with the image's camera."""
        rng = np.random.default_rng([seed, index])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        hand = self.sampler.sample(1, generator)[0]
        roll = torch.tensor(rng.normal(0, 0.35), dtype=torch.float32)
        hand = rolled(self.body, hand.params, hand.camera, roll)
        flat = hand.camera.project(hand.mesh.joints)
        crop = crop_around(flat)
        side = LANDMARK_CROP[0] / crop.affine[:, :2].det().abs().sqrt()
        zoom = PICTURE_SIDE / (1.5 * side) * float(np.exp(rng.normal(0, 0.08)))
        middle = flat.mean(0) + torch.from_numpy(rng.normal(0, 0.06, 2)).float() * side
        camera = Camera(hand.camera.focal * zoom, (PICTURE_SIDE - 1) / 2 - middle * zoom)
        hand = dataclasses.replace(hand, camera=camera)
        return photograph(self._draw(hand, rng), rng), hand

    def _draw(self, hand: HandSample, rng: np.random.Generator) -> Float32[np.ndarray, "s s 3"]:
        vertices, faces, uv, sleeve = self._with_forearm(hand, rng)
        skin = self.skins[rng.integers(len(self.skins))]
        skin = skin * (rng.uniform(0.7, 1.15) * (1 + rng.normal(0, 0.04, 3))).astype(np.float32)
        cloth = np.broadcast_to(rng.uniform(20, 230, 3).astype(np.float32), skin.shape)
        texture = np.zeros(len(faces), np.int32)
        texture[len(self._faces) + len(self._loop) * 2 :] = int(sleeve)
        focal, center = tuple(hand.camera.focal.tolist()), tuple(hand.camera.center.tolist())
        points = project(vertices, focal, center, 2)
        buffers = rasterize(points, faces, (2 * PICTURE_SIDE, 2 * PICTURE_SIDE))
        paint = Textures(np.stack([skin, cloth]), uv, texture)
        drawn, coverage = shade(buffers, vertices, faces, paint, random_lights(np.array([0.0, -1.0, 0.0]), rng), 2)
        picture = self.backgrounds.patch(rng, PICTURE_SIDE, 0.2, 1.0) * np.float32(rng.uniform(0.5, 1.1))
        picture = picture * (1 - coverage[..., None]) + drawn
        if rng.random() < 0.25:
            self._occlude(picture, hand, rng)
        return picture

    def _with_forearm(
        self, hand: HandSample, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        """Vertices, faces and texture coordinates of the hand with a forearm, and whether it has a sleeve."""
        vertices = hand.mesh.vertices.numpy().astype(np.float64)
        joints = hand.mesh.joints.numpy().astype(np.float64)
        skeleton = self.body.skeleton
        edge = vertices[self._loop]
        backward = joints[0] - joints[skeleton.index("Middle_1")]
        backward /= np.linalg.norm(backward)
        bent = (
            backward
            + rng.normal(0, 0.45) * (joints[skeleton.index("Index_1")] - joints[skeleton.index("Pinky_1")]) / 0.06 * 0.4
        )
        palm = np.cross(joints[skeleton.index("Index_1")] - joints[0], joints[skeleton.index("Pinky_1")] - joints[0])
        bent = bent + rng.normal(0, 0.6) * palm / np.linalg.norm(palm)
        bent /= np.linalg.norm(bent)
        sleeve = rng.random() < 0.4
        rings, centre = [edge], edge.mean(0)
        for number, (distance, size) in enumerate(FOREARM):
            centre = centre + (backward if number == 0 else bent) * (
                distance - (FOREARM[number - 1][0] if number else 0)
            )
            wide = size * (1.25 if sleeve and number >= 1 else 1.0)
            rings.append(centre + (edge - edge.mean(0)) * wide)
        count, start = len(self._loop), len(vertices)
        ring = np.concatenate([[self._loop], start + np.arange(len(FOREARM) * count).reshape(len(FOREARM), count)])
        strips, colours = [], []
        uv_of = np.zeros((start, 2), np.float32)
        uv_of[self._faces] = self._uv
        following = np.roll(np.arange(count), -1)
        for inner, outer in itertools.pairwise(ring):
            strips += [
                np.stack([inner, outer, inner[following]], 1),
                np.stack([inner[following], outer, outer[following]], 1),
            ]
            a, b = uv_of[self._loop], uv_of[self._loop[following]]
            colours += [np.stack([a, a, b], 1), np.stack([b, a, b], 1)]
        all_vertices = np.concatenate([vertices, *rings[1:]]).astype(np.float32)
        return all_vertices, np.concatenate([self._faces, *strips]), np.concatenate([self._uv, *colours]), bool(sleeve)

    def _occlude(self, picture: np.ndarray, hand: HandSample, rng: np.random.Generator) -> None:
        """Cover a part of the hand with a piece of a photo."""
        flat = hand.camera.project(hand.mesh.joints).numpy()
        length = np.ptp(flat, 0).max()
        x, y = flat[rng.integers(21)] + rng.normal(0, 0.15, 2) * length
        mask = np.zeros(picture.shape[:2], np.uint8)
        size = rng.uniform(0.12, 0.5, 2) * length
        cv2.ellipse(mask, ((float(x), float(y)), (float(size[0]), float(size[1])), float(rng.uniform(0, 180))), 1, -1)
        picture[mask > 0] = self.backgrounds.patch(rng, PICTURE_SIDE, 0.05, 0.5)[mask > 0]


def _boundary(faces: np.ndarray) -> np.ndarray:
    """The vertices around the only hole of a mesh, in order."""
    edges = {(int(face[i]), int(face[(i + 1) % 3])) for face in faces for i in range(3)}
    following = {start: end for start, end in edges if (end, start) not in edges}
    loop = [min(following)]
    while (after := following[loop[-1]]) != loop[0]:
        loop.append(after)
    return np.array(loop)


def make_hand_bank(out: Path, landmarks: Path | None, count: int, seed: int, workers: int) -> None:
    """Draw `count` hands, run MediaPipe's landmark network on them, and write the missing shards to `out`.

    landmarks: weights of the network (`read_landmark_net`). The same seed makes the same bank.
    """
    if count < 1 or workers < 1:
        raise InputError("pictures and workers must be at least 1")
    for name in ASSETS:
        assets.ensure(name)
    shards = shard_paths(out, count, SHARD)
    tasks = [(landmarks, seed, path, indices) for path, indices in shards.items() if not path.exists()]
    if tasks:
        run_tasks(_work, tasks, workers, "hands (shards)")


@functools.lru_cache(maxsize=1)
def _process_parts(landmarks: Path | None) -> tuple[HandPictureMaker, LandmarkNet]:
    """The maker and the network of this process."""
    use_one_thread()
    body = load_body("anny-hand")
    assert isinstance(body, AnnyBody)
    places = Backgrounds([assets.ensure("backgrounds"), assets.ensure("interiors")])
    maker = HandPictureMaker(HandSampler(body), assets.ensure("makehuman"), places)
    return maker, read_landmark_net(landmarks)


def read_landmark_net(path: Path | None) -> LandmarkNet:
    """The landmark network in a file of i2l_lab.tools.convert_mediapipe. Default: that of the shipped hand model."""
    if path is None:
        estimator = load_network(shipped_weights(HAND_WEIGHTS))[0].pose_net.get_submodule("estimator")
        assert isinstance(estimator, LandmarkNet)
        return estimator
    network = LandmarkNet()
    with reading(path, "the converted landmark network", fix="convert it again"):
        network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return network.eval()


@torch.inference_mode()
def _work(task: tuple[Path | None, int, Path, range]) -> None:
    landmarks_file, seed, path, indices = task
    maker, network = _process_parts(landmarks_file)
    found, hands = [], []
    for index in indices:
        picture, hand = maker.make(2 * seed, index)
        crop = crop_around(_earlier_landmarks(hand, index))
        found.append(network(crop_image(picture, crop))[0])
        hands.append(in_crop(maker.body, hand, crop))
    landmarks, params = Landmarks.stack(found), BodyParams.stack([hand.params for hand in hands])
    camera = Camera.stack([hand.camera for hand in hands])
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            **{field.name: getattr(landmarks, field.name).numpy() for field in dataclasses.fields(landmarks)},
            **{field.name: getattr(params, field.name).numpy() for field in dataclasses.fields(params)},
            focal=camera.focal.numpy(),
            center=camera.center.numpy(),
        )


def _earlier_landmarks(hand: HandSample, index: int) -> Float[Tensor, "21 2"]:
    """Landmarks (pixels) as a previous frame or pass would give them. They determine the network's crop."""
    joints = hand.camera.project(hand.mesh.joints)
    # MediaPipe's wrist is nearer to the fingers than Anny's.
    joints[0] += 0.1 * (joints[9] - joints[0])
    generator = torch.Generator().manual_seed(index)
    return joints + torch.randn(joints.shape, generator=generator) * 0.03 * (joints.amax(0) - joints.amin(0)).max()


def crop_image(picture: UInt8[np.ndarray, "h w 3"], crop: Crop) -> Float[Tensor, "1 3 224 224"]:
    """The network's input for one crop."""
    pixels = torch.from_numpy(warp_image(picture, crop.affine, LANDMARK_CROP))
    return pixels.permute(2, 0, 1)[None].float() / 255


def in_crop(body: AnnyBody, hand: HandSample, crop: Crop) -> HandSample:
    """The hand in front of the crop's camera, which is rolled by the crop's rotation."""
    zoom = crop.affine[:, :2].det().sqrt()
    center = transform_points(crop.affine, hand.camera.center[None])[0]
    return rolled(body, hand.params, Camera(hand.camera.focal * zoom, center), crop.rotation)


def read_hand_bank(folder: Path) -> HandBank:
    """The hands of a bank. Raise FileError if there are none."""
    joined = read_shards(folder, False, "hands", "`i2l-lab lift-hand` makes one")
    return HandBank(
        Landmarks(**{field.name: joined[field.name] for field in dataclasses.fields(Landmarks)}),
        BodyParams(**{field.name: joined[field.name] for field in dataclasses.fields(BodyParams)}),
        Camera(joined["focal"], joined["center"]),
    )
