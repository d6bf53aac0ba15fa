"""MakeHuman's clothes, hair and skins on the Anny body. They are bound to MakeHuman's base mesh."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, no_type_check

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, UInt8

from i2l_lab.synthetic.figure import MAKEHUMAN_TO_ANNY
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.compiling import compiled
from i2l_meshnet.errors import FileError, UserError
from i2l_meshnet.io import read_json, reading
from i2l_meshnet.pictures import read_picture

TEXTURE_SIZE = 256

CORE_AUTHORS = ("Manuel Bastioni", "Jonas Hauquier", "Manuel bastioni")
"""Authors of MakeHuman's core assets, which MakeHuman relicensed as CC0 in September 2020. The data package is older
and still states AGPL3 for them. For assets of other authors the stated licence counts."""

GARMENTS: dict[str, tuple[str, ...]] = {
    "suit:male": (
        *(f"male_casualsuit{i:02d}" for i in range(1, 7)),
        "male_elegantsuit01",
        "male_worksuit01",
    ),
    "suit:female": ("female_casualsuit01", "female_casualsuit02", "female_elegantsuit01", "female_sportsuit01"),
    "dress:female": ("F_Dress_01", "F_Dress_02", "F_Dress_04", "TubeDress", "F_Beach_Dress_01"),
    "bottom:female": ("Tightjeans", "ShortJeans", "JeansSkirt", "miniskirt"),
    "bottom:male": ("Tightjeans", "ShortJeans"),
    "top:female": ("VNeckTop", "Sleeveless", "female_top_01", "short_tail_camo_tee", "Tank_Top_01", "spaghetti-top"),
    "top:male": ("Tank_Top_01", "short_tail_camo_tee"),
    "coat:female": ("Coat",),
    "shoes:any": ("shoes01", "shoes02", "shoes03", "shoes04", "shoes05", "shoes06"),
    "hat:any": ("fedora", "Fishing_Hat_01", "pith_helmet"),
    "glasses:any": ("glasses",),
    "hair:female": ("bob01", "bob02", "long01", "ponytail01", "Braid01", "short03", "afro01"),
    "hair:male": ("short01", "short02", "short04", "afro01"),
}
"""Names of garments by kind and sex."""

HELD_OUT = (
    "male_casualsuit05",
    "female_casualsuit02",
    "F_Dress_02",
    "Sleeveless",
    "shoes03",
    "short02",
    "bob02",
    "old_asian_male",
    "young_african_female",
)
"""Garments, hair and skins for evaluation: training images do not show them."""


@dataclasses.dataclass(frozen=True)
class Garment:
    """A mesh bound to the base mesh.

    reference, weights: at rest, a vertex is a weighted sum of three base vertices plus an offset (metres, Anny's axes).
    bones, bone_weights: skinning. uv: per triangle corner, v upwards. texture: RGBA. hides: base vertices that the
    garment covers.
    """

    name: str
    licence: str
    author: str
    reference: Int32[np.ndarray, "n 3"]
    weights: Float32[np.ndarray, "n 3"]
    offsets: Float32[np.ndarray, "n 3"]
    bones: Int32[np.ndarray, "n k"]
    bone_weights: Float32[np.ndarray, "n k"]
    faces: Int32[np.ndarray, "f 3"]
    uv: Float32[np.ndarray, "f 3 2"]
    texture: UInt8[np.ndarray, "th tw 4"]
    hides: Bool[np.ndarray, "m"]

    @cached_property
    def colours(self) -> Float32[np.ndarray, "th tw 3"]:
        """The texture's RGB, from 0 to 255."""
        return self.texture[..., :3].astype(np.float32)

    @cached_property
    def opaque(self) -> Bool[np.ndarray, "th tw"]:
        """Where the texture is not transparent."""
        return self.texture[..., 3] > 100

    @cached_property
    def brightness(self) -> Float32[np.ndarray, "th tw 1"]:
        """The texture's brightness, relative to the mean of its opaque part."""
        grey = self.colours.mean(-1, keepdims=True)
        return grey / max(float(grey[self.opaque].mean()), 1.0)


@dataclasses.dataclass(frozen=True)
class PosedBase:
    """The base mesh of a person: rest and posed vertices (camera frame, metres) and transforms of the bones."""

    rest: Float32[np.ndarray, "m 3"]
    posed: Float32[np.ndarray, "m 3"]
    transforms: Float32[np.ndarray, "b 3 4"]
    garment_scale: float
    """Factor on the offsets of garments, which are made for adults."""


class BaseMesh:
    """MakeHuman's base mesh of 19,158 vertices, posed by the package `anny`.

    It includes MakeHuman's helper vertices, to which clothes can be bound. Raise UserError if the package (extra
    `[lab]`) is not installed.
    """

    def __init__(self, bones: Sequence[str]) -> None:
        """bones: the posed bones, in the order of the parameters of `pose`."""
        try:
            import anny  # pyright: ignore[reportMissingImports] (an extra)
        except ImportError as error:
            raise UserError("synthetic images need the package anny: pip install 'i2l-meshnet[lab]'") from error
        model: Any = anny.Anny(topology="makehuman-full").to(dtype=torch.float32)
        surface: Any = anny.Anny(topology="anny").to(dtype=torch.float32)
        self._model = model
        self._bones = [model.bone_labels.index(bone) for bone in bones]
        self.bone_labels: list[str] = list(model.bone_labels)
        self.bones = model.vertex_bone_indices.numpy().astype(np.int32)
        self.bone_weights = model.vertex_bone_weights.numpy().astype(np.float32)
        base = surface.base_mesh_vertex_indices.numpy()
        self.faces = base[surface.faces.numpy()].astype(np.int32)
        coordinates = surface.texture_coordinates.numpy().astype(np.float32)
        self.uv = coordinates[surface.face_texture_coordinate_indices.numpy()]

    def pose(self, params: BodyParams) -> list[PosedBase]:
        """Pose people (one batch axis) as `AnnyBody` does. Large batches are much faster per person."""
        pose = torch.eye(4).repeat(len(params.pose), len(self.bone_labels), 1, 1)
        pose[:, self._bones, :3, :3] = params.pose
        values = {name: params.shape[:, i] for i, name in enumerate(self._model.phenotype_labels)}
        with torch.no_grad():
            state = self._model.get_rest_model(self._model.get_phenotype_blendshape_coefficients(**values))
            transforms, _ = self._model.get_bone_transforms(pose, state["rest_bone_poses"])
            transforms = transforms[:, :, :3].clone()
            transforms[..., 3] += params.translation[:, None]
        # Anny's own skinning takes twice as long, and its results depend on the installed libraries.
        return [
            PosedBase(
                rest,
                _skin(rest, self.bones, self.bone_weights, moved),
                moved,
                min(1.0, float(np.ptp(rest[:13_000, 2])) / 1.65),
            )
            for rest, moved in zip(state["rest_vertices"].numpy(), transforms.numpy(), strict=True)
        ]


class Wardrobe:
    """The garments, hair and skins of the asset `makehuman` that may be used."""

    def __init__(self, folder: Path, base: BaseMesh, held_out: bool = False) -> None:
        """folder: the asset. held_out: use only items of `HELD_OUT`. For a kind of garment without such items, use all.

        Raise FileError if a file is missing or has a licence that is not allowed.
        """
        data = folder / "package" / "public" / "data"
        loaded: dict[str, Garment] = {}
        self.garments: dict[str, list[Garment]] = {}
        for kind, names in GARMENTS.items():
            chosen = [name for name in names if (name in HELD_OUT) == held_out] or list(names)
            for name in chosen:
                if name not in loaded:
                    part = "hair" if kind.startswith("hair") else "clothes"
                    loaded[name] = read_garment(data / "proxies" / part / name / f"{name}.json", base)
            self.garments[kind] = [loaded[name] for name in chosen]
        self.skins: dict[str, list[np.ndarray]] = {"male": [], "female": []}
        for path in sorted((data / "skins").glob("*/textures/*diffuse*.png")):
            if (path.parent.parent.name in HELD_OUT) == held_out:
                sex = "female" if "female" in path.name else "male"
                self.skins[sex].append(_read_texture(path)[..., :3])
        if not all(self.skins.values()):
            raise FileError(f"{data} contains no skins; download the asset makehuman again")


def fit_garment(garment: Garment, base: PosedBase) -> Float32[np.ndarray, "n 3"]:
    """Vertices of a garment on a posed person, camera frame, metres."""
    rest = np.einsum("nk,nkd->nd", garment.weights, base.rest[garment.reference])
    rest += garment.offsets * np.float32(base.garment_scale)
    return _skin(rest, garment.bones, garment.bone_weights, base.transforms)


@compiled
@no_type_check  # the jaxtyping import hook must not change compiled functions
def _skin(rest, bones, weights, transforms):
    result = np.empty(rest.shape, np.float32)
    for v in range(rest.shape[0]):
        for row in range(3):
            total = 0.0
            for k in range(bones.shape[1]):
                t = transforms[bones[v, k], row]
                total += weights[v, k] * (t[0] * rest[v, 0] + t[1] * rest[v, 1] + t[2] * rest[v, 2] + t[3])
            result[v, row] = total
    return result


def read_garment(path: Path, base: BaseMesh) -> Garment:
    """Read a garment in three.js' JSON format 3. Raise FileError if it is damaged or its licence is not allowed."""
    with reading(path, "a garment", fix="download the asset makehuman again"):
        data = read_json(path)
        meta = data["metadata"]
        licence, author = meta["license"]["license"], meta["license"]["author"] or ""
        if licence.startswith("AGPL") and author.split(",")[0] in CORE_AUTHORS:
            licence = "CC0 (MakeHuman core asset)"
        if not licence.startswith("CC"):
            raise FileError(f"{path} has the licence {licence!r}, which is not allowed")
        reference = np.array(meta["ref_vIdxs"], np.int32)
        weights = np.array(meta["weights"], np.float32)
        faces, corners = _read_faces(data["faces"], len(data["uvs"]))
        uv = np.array(data["uvs"][0], np.float32).reshape(-1, 2)[corners]
        texture = _read_texture(path.parent / data["materials"][0]["mapDiffuse"])
        # The file's offsets are in decimetres.
        offsets = (np.array(meta["offsets"]) * 0.1 @ MAKEHUMAN_TO_ANNY.T).astype(np.float32)
        hides = np.array(meta["deleteVerts"], bool)
    bones, bone_weights = _bind(reference, weights, base)
    return Garment(
        path.stem, licence, author, reference, weights, offsets, bones, bone_weights, faces, uv, texture, hides
    )


def _bind(reference: np.ndarray, weights: np.ndarray, base: BaseMesh, keep: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Skinning weights of each vertex: the mean of those of its three base vertices, weighted by `weights`.

    Only the `keep` largest are kept.
    """
    share = np.clip(weights, 0, None)
    share = share / np.maximum(share.sum(1, keepdims=True), 1e-6)
    dense = np.zeros((len(reference), len(base.bone_labels)), np.float32)
    rows = np.arange(len(reference))[:, None]
    for corner in range(3):
        vertices = reference[:, corner]
        np.add.at(dense, (rows, base.bones[vertices]), base.bone_weights[vertices] * share[:, corner, None])
    bones = np.argsort(-dense, axis=1, kind="stable")[:, :keep]
    chosen = np.take_along_axis(dense, bones, 1)
    return bones.astype(np.int32), chosen / np.maximum(chosen.sum(1, keepdims=True), 1e-6)


def _read_faces(stream: list[int], layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles, and the rows of their texture coordinates, from the face stream of three.js' JSON format 3.

    The bits of a face's first number say what follows: bit 1: a fourth vertex; bit 2: a material; bit 4: texture
    coordinates of the face; bit 8: of each corner; bit 16: a normal of the face; bit 32: of each corner; bit 64: a
    colour of the face; bit 128: of each corner.
    Quads are split along their first diagonal.
    """
    faces: list[list[int]] = []
    corners: list[list[int]] = []
    i = 0
    while i < len(stream):
        bits = stream[i]
        count = 4 if bits & 1 else 3
        vertices = stream[i + 1 : i + 1 + count]
        i += 1 + count + bool(bits & 2) + (layers if bits & 4 else 0)
        rows = stream[i : i + count] if bits & 8 else [0] * count
        i += (count * layers if bits & 8 else 0) + bool(bits & 16) + (count if bits & 32 else 0)
        i += bool(bits & 64) + (count if bits & 128 else 0)
        for triangle in ((0, 1, 2), (0, 2, 3))[: count - 2]:
            faces.append([vertices[k] for k in triangle])
            corners.append([rows[k] for k in triangle])
    return np.array(faces, np.int32), np.array(corners, np.int64)


def _read_texture(path: Path) -> UInt8[np.ndarray, "s s 4"]:
    """A texture as RGBA of `TEXTURE_SIZE`."""
    picture = read_picture(path, cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise FileError(f"cannot read the texture {path}; download the asset makehuman again")
    if picture.dtype == np.uint16:
        picture = np.right_shift(picture, 8).astype(np.uint8)
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGRA)
    elif picture.shape[2] == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)
    picture = cv2.resize(picture, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)
