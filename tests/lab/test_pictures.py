"""Pictures: ground truth, reproducibility, clothes, shards. Stand-ins replace the assets and the package `anny`."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from i2l_lab.synthetic import generate
from i2l_lab.synthetic.clothes import GARMENTS, BaseMesh, Garment, PosedBase, Wardrobe, fit_garment, read_garment
from i2l_lab.synthetic.generate import PictureOptions, generate_pictures, write_pictures
from i2l_lab.synthetic.pictures import Backgrounds, PictureMaker, PictureMix
from i2l_lab.synthetic.samples import BodySampler
from i2l_meshnet import assets
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.data.sources.synthetic import read_pictures
from i2l_meshnet.errors import FileError, InputError, UserError
from i2l_meshnet.geometry.camera import Camera


class StandInBase(BaseMesh):
    """Anny's full mesh instead of the base mesh, moved by one bone."""

    def __init__(self, body: AnnyBody) -> None:
        self._body = body
        self.bone_labels = ["spine01"]
        count = len(body.upsample_index)
        self.bones = np.zeros((count, 1), np.int32)
        self.bone_weights = np.ones((count, 1), np.float32)
        self.faces = body.full_faces.numpy().astype(np.int32)
        self.uv = body.full_uv.numpy()[body.full_face_uv.numpy()].astype(np.float32)

    def pose(self, params: BodyParams) -> list[PosedBase]:
        with torch.no_grad():
            rest = self._body.full_mesh(self._body(self._body.rest_params()).vertices).numpy()
            posed = self._body.full_mesh(self._body(params).vertices).numpy()
        transforms = torch.cat([params.pose[:, 0], params.translation[..., None]], 2)[:, None].numpy()
        return [PosedBase(rest, vertices, moved, 1.0) for vertices, moved in zip(posed, transforms, strict=True)]


class StandInWardrobe(Wardrobe):
    """One garment of one triangle for every kind, and plain skins."""

    def __init__(self, garment: Garment) -> None:
        self.garments = {kind: [garment] for kind in GARMENTS}
        self.skins = {sex: [np.full((8, 8, 3), 180, np.uint8)] for sex in ("male", "female")}


class StandInBackgrounds(Backgrounds):
    def __init__(self) -> None:
        ramp = np.linspace(0, 255, 90, dtype=np.uint8)
        self.photos = [np.repeat(np.tile(ramp, (60, 1))[..., None], 3, 2)]


def triangle_garment(vertices: int) -> Garment:
    return Garment(
        name="patch",
        licence="CC0",
        author="",
        reference=np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]], np.int32),
        weights=np.full((3, 3), 1 / 3, np.float32),
        offsets=np.zeros((3, 3), np.float32),
        bones=np.zeros((3, 1), np.int32),
        bone_weights=np.ones((3, 1), np.float32),
        faces=np.array([[0, 1, 2]], np.int32),
        uv=np.zeros((1, 3, 2), np.float32),
        texture=np.full((8, 8, 4), 255, np.uint8),
        hides=np.zeros(vertices, bool),
    )


def make_maker(body: AnnyBody, sampler: BodySampler, mix: PictureMix, monkeypatch: pytest.MonkeyPatch) -> PictureMaker:
    monkeypatch.setattr("i2l_lab.synthetic.pictures.TEXTURE_SIZE", 8)
    base = StandInBase(body)
    wardrobe = StandInWardrobe(triangle_garment(len(base.bones)))
    return PictureMaker(body, sampler, base, wardrobe, StandInBackgrounds(), mix, size=96)


@pytest.fixture
def maker(anny: AnnyBody, sampler: BodySampler, monkeypatch: pytest.MonkeyPatch) -> PictureMaker:
    return make_maker(anny, sampler, PictureMix(), monkeypatch)


def test_seed_and_index_decide_the_picture(maker: PictureMaker):
    one, same, other, elsewhere = maker.make(1, 4), maker.make(1, 4), maker.make(1, 5), maker.make(2, 4)
    np.testing.assert_array_equal(one.jpeg, same.jpeg)
    np.testing.assert_array_equal(one.vertices, same.vertices)
    assert not np.array_equal(one.jpeg, other.jpeg)
    assert not np.array_equal(one.vertices, elsewhere.vertices)


def test_the_ground_truth_is_the_projected_body(maker: PictureMaker, anny: AnnyBody):
    for index in range(4):
        picture = maker.make(3, index)
        with torch.no_grad():
            mesh = anny(picture.params)
        camera = Camera(torch.from_numpy(picture.focal), torch.from_numpy(picture.center))
        np.testing.assert_allclose(picture.vertices[:, :2], camera.project(mesh.vertices).numpy(), atol=0.02)
        np.testing.assert_allclose(picture.joints[:, 2], mesh.joints[:, 2].numpy(), atol=1e-4)
        assert cv2.imdecode(picture.jpeg, cv2.IMREAD_COLOR).shape == (96, 96, 3)


def test_the_person_is_drawn_where_the_truth_says(
    anny: AnnyBody, sampler: BodySampler, monkeypatch: pytest.MonkeyPatch
):
    """Pictures that differ in the skin alone differ on the projected body and nowhere else."""
    mix = PictureMix(company=0.0, occluder=0.0, shadow=0.0, painted=1.0)
    maker = make_maker(anny, sampler, mix, monkeypatch)
    monkeypatch.setattr("i2l_lab.synthetic.pictures.photograph", lambda picture, rng: picture.clip(0, 255))
    monkeypatch.setattr("i2l_lab.synthetic.pictures.REGIONS", ())
    drawn = {}
    real_cut = maker._draw
    for level in (40, 200):
        maker.wardrobe.skins = {sex: [np.full((8, 8, 3), level, np.uint8)] for sex in ("male", "female")}
        monkeypatch.setattr(maker, "_draw", lambda *a, level=level: drawn.setdefault(level, real_cut(*a)))
        picture = maker.make(0, 6)
    differs = np.abs(drawn[40] - drawn[200]).max(2) > 1
    hull = np.zeros(differs.shape, np.uint8)
    for face in anny.faces.numpy():
        corners = (picture.vertices[face, :2] * 16).round().astype(np.int32)
        cv2.fillConvexPoly(hull, corners, 1, shift=4)
    near = cv2.dilate(hull, np.ones((5, 5), np.uint8)).astype(bool)
    deep = cv2.erode(hull, np.ones((3, 3), np.uint8)).astype(bool)
    assert deep.sum() > 100
    assert not (differs & ~near).any()
    assert differs[deep].mean() > 0.97


def test_a_garment_follows_its_bones():
    garment = triangle_garment(9)
    rest = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    transform = np.array([[[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]]], np.float32)
    fitted = fit_garment(garment, PosedBase(rest, rest, transform, 1.0))
    center = rest.reshape(3, 3, 3).mean(1)
    expected = center @ transform[0, :, :3].T + transform[0, :, 3]
    np.testing.assert_allclose(fitted, expected, atol=1e-5)


def garment_file(folder: Path, licence: str, author: str) -> Path:
    """A quad in three.js' JSON format 3 with materials, corner texture coordinates and face colours."""
    (folder / "textures").mkdir(parents=True)
    cv2.imwrite(str(folder / "textures" / "cloth.png"), np.full((4, 4, 3), 90, np.uint8))
    bits = 1 | 2 | 8 | 64
    data = {
        "metadata": {
            "license": {"license": licence, "author": author},
            "ref_vIdxs": [[0, 1, 2]] * 4,
            "weights": [[0.5, 0.25, 0.25]] * 4,
            "offsets": [[0, 0, 1.0]] * 4,
            "deleteVerts": [0, 1, 0],
        },
        "faces": [bits, 0, 1, 2, 3, 7, 3, 2, 1, 0, 5],
        "uvs": [[0, 0, 0.25, 0, 0.5, 0, 0.75, 0]],
        "materials": [{"mapDiffuse": "textures/cloth.png"}],
    }
    path = folder / "cloth.json"
    path.write_text(json.dumps(data))
    return path


class ThreeVertexBase(BaseMesh):
    def __init__(self) -> None:
        self.bone_labels = ["a", "b"]
        self.bones = np.array([[0, 1], [1, 0], [1, 0]], np.int32)
        self.bone_weights = np.array([[1, 0], [1, 0], [1, 0]], np.float32)


def test_a_garment_file_is_read(tmp_path: Path):
    garment = read_garment(garment_file(tmp_path / "cloth", "CC BY 3.0", "someone"), ThreeVertexBase())
    np.testing.assert_array_equal(garment.faces, [[0, 1, 2], [0, 2, 3]])
    np.testing.assert_allclose(garment.uv[:, :, 0], [[0.75, 0.5, 0.25], [0.75, 0.25, 0.0]])
    # Decimetres in front in MakeHuman's axes are metres along -y in Anny's.
    np.testing.assert_allclose(garment.offsets[0], [0, -0.1, 0], atol=1e-7)
    np.testing.assert_allclose(np.sort(garment.bone_weights[0])[-2:], [0.5, 0.5], atol=1e-6)
    assert garment.hides.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("licence", "author", "allowed"),
    [
        ("CC0", "", True),
        ("AGPL3 (see also elsewhere)", "Manuel Bastioni", True),
        ("AGPL3 (see also elsewhere)", "Zinc Chameleon", False),
        ("proprietary", "Manuel Bastioni", False),
    ],
)
def test_only_free_garments_are_worn(tmp_path: Path, licence: str, author: str, allowed: bool):
    path = garment_file(tmp_path / "cloth", licence, author)
    if allowed:
        assert read_garment(path, ThreeVertexBase()).licence.startswith("CC")
    else:
        with pytest.raises(FileError):
            read_garment(path, ThreeVertexBase())


def test_backgrounds_are_split_and_drawings_left_out(tmp_path: Path):
    rng = np.random.default_rng(0)
    for i in range(14):
        cv2.imwrite(str(tmp_path / f"place{i:02d}.jpg"), rng.integers(0, 255, (200, 260, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "rhythm.jpg"), rng.integers(0, 255, (200, 260, 3), np.uint8))
    assert len(Backgrounds([tmp_path]).photos) == 12
    held = Backgrounds([tmp_path], held_out=True)
    assert len(held.photos) == 2
    assert held.patch(rng, 32, 0.2, 1.0).shape == (32, 32, 3)
    with pytest.raises(FileError):
        Backgrounds([tmp_path / "empty"])


def test_shards_are_read_back(maker: PictureMaker, tmp_path: Path):
    pictures = [maker.make(1, index) for index in range(3)]
    write_pictures(tmp_path / "train_00000.npz", pictures)
    shard = read_pictures(tmp_path / "train_00000.npz")
    assert len(shard) == 3
    for i, picture in enumerate(pictures):
        decoded = cv2.imdecode(picture.jpeg, cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(shard.image(i), decoded[..., ::-1])
        torch.testing.assert_close(shard.params[i].pose, picture.params.pose)
        np.testing.assert_array_equal(shard.box[i], picture.box)


@pytest.fixture
def without_assets(maker: PictureMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    generate._process_maker.cache_clear()
    monkeypatch.setattr(generate, "make_picture_maker", lambda held_out, mocap, seed: maker)
    monkeypatch.setattr(assets, "ensure", lambda name: Path(name))


@pytest.mark.usefixtures("without_assets")
def test_runs_are_resumed_and_extended_with_the_same_pictures(tmp_path: Path):
    paths = generate_pictures(PictureOptions(tmp_path, count=5, shard=2))
    assert [len(read_pictures(path)) for path in paths] == [2, 2, 1]
    before = {path: path.read_bytes() for path in paths}
    paths[1].unlink()
    again = generate_pictures(PictureOptions(tmp_path, count=5, shard=2))
    assert again == paths
    assert {path: path.read_bytes() for path in paths} == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("without_assets")
def test_a_folder_of_other_pictures_is_refused(tmp_path: Path):
    generate_pictures(PictureOptions(tmp_path, count=1, shard=1))
    with pytest.raises(InputError):
        generate_pictures(PictureOptions(tmp_path, count=1, shard=1, seed=2))
    with pytest.raises(InputError):
        generate_pictures(PictureOptions(tmp_path, count=0))


def test_a_missing_package_anny_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(UserError, match=r"i2l-meshnet\[lab\]"):
        BaseMesh(("root",))


@pytest.mark.slow  # the package anny takes minutes to start
def test_the_base_mesh_is_posed_as_the_body(anny: AnnyBody, sampler: BodySampler):
    base = BaseMesh(anny.bones)
    params = sampler.sample(2, torch.Generator().manual_seed(0)).params
    used = np.unique(base.faces)
    with torch.no_grad():
        full = anny.full_mesh(anny(params).vertices).numpy()
    for posed, vertices in zip(base.pose(params), full, strict=True):
        assert len(used) == len(vertices)
        assert np.linalg.norm(posed.posed[used] - vertices, axis=1).mean() < 2e-3
