"""Images of dressed people with exact ground truth: z-buffer, MakeHuman's clothes, photos of places, camera faults."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from scipy.spatial.transform import Rotation

from i2l_lab.synthetic.cameras import BodySample
from i2l_lab.synthetic.clothes import (
    TEXTURE_SIZE,
    BaseMesh,
    Garment,
    PosedBase,
    Wardrobe,
    fit_garment,
)
from i2l_lab.synthetic.figure import rotation_between
from i2l_lab.synthetic.samples import BodySampler
from i2l_meshnet.bodies.anny import SHAPE_NAMES
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.errors import FileError
from i2l_meshnet.pictures import read_picture
from i2l_meshnet.rendering.raster import Cutout, rasterize
from i2l_meshnet.rendering.shading import Lighting, Textures, project, shade

ASSETS = ("makehuman", "backgrounds", "interiors")

EXCLUDED = (
    "2004default analogpattern Autumn ColorfulCups Elephants firstgeneration Flow GreenTraditional Honeywave "
    "PastelHills pexels-2560067 pexels-36444540 rhythm SafeLanding screenshot Shell string the-mouse umang"
).split()
"""Starts of the names of background images that are drawings or show people."""

HAIR_COLOURS = np.array([[28, 22, 20], [58, 38, 26], [95, 64, 40], [150, 112, 66], [196, 160, 105], [130, 128, 126]])
"""Mean colours of black, dark brown, brown, dark blond, blond and grey hair; RGB from 0 to 255."""

BLOCK = 16
"""Number of images whose people are sampled and posed together."""

REGIONS = (("torso", "arms"), ("hips", "thighs", "shins"))
"""Regions covered by painted tops and trousers. Short ones do not cover the last region."""

_REGION_OF_BONE = {
    "spine": "torso",
    "breast": "torso",
    "clavicle": "torso",
    "shoulder": "torso",
    "upperarm": "torso",
    "lowerarm": "arms",
    "root": "hips",
    "pelvis": "hips",
    "upperleg": "thighs",
    "lowerleg": "shins",
}


@dataclasses.dataclass(frozen=True)
class PictureMix:
    """Probabilities of what images show.

    company: a second person beside, in front of or behind the first. occluder: an object in front of the person.
    shadow: on the ground. painted: clothes painted on the skin instead of garments.
    """

    company: float = 0.22
    occluder: float = 0.12
    shadow: float = 0.6
    painted: float = 0.15


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image and its ground truth.

    jpeg: the square image. vertices: of the person, x and y in pixels, z in metres in the camera frame. joints: the
    same of the body's joints. box: x, y, width, height in pixels as a detector would give it. focal, center: of the
    camera, pixels. params: in the camera frame.
    """

    jpeg: UInt8[np.ndarray, "bytes"]
    vertices: Float32[np.ndarray, "v 3"]
    joints: Float32[np.ndarray, "j 3"]
    box: Float32[np.ndarray, "4"]
    focal: Float32[np.ndarray, "2"]
    center: Float32[np.ndarray, "2"]
    params: BodyParams


class Backgrounds:
    """Photos of places in the folders of assets, reduced in size."""

    def __init__(self, folders: list[Path], held_out: bool = False) -> None:
        """held_out: use every seventh photo, otherwise the others. Raise FileError if there is none."""
        largest: dict[Path, Path] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() not in (".jpg", ".jpeg") or path.stat().st_size < 60_000:
                    continue
                if path.is_relative_to(folder) and any(part.startswith(tuple(EXCLUDED)) for part in path.parts):
                    continue
                # Wallpapers have a file for each size, named after it.
                key = path.parent if path.stem.replace("x", "").isdigit() else path
                if key not in largest or path.stat().st_size > largest[key].stat().st_size:
                    largest[key] = path
        chosen = [path for i, path in enumerate(largest.values()) if bool(i % 7 == 6) is held_out]
        if not chosen:
            raise FileError(f"no photos in {', '.join(map(str, folders))}; download the asset backgrounds again")
        self.photos = [photo for path in chosen if (photo := _read_photo(path)) is not None]

    def patch(self, rng: np.random.Generator, size: int, low: float, high: float) -> Float32[np.ndarray, "s s 3"]:
        """A square piece of a photo, resized to `size`; RGB from 0 to 255.

        The piece's side is between `low` and `high` times the photo's shorter side.
        """
        photo = self.photos[rng.integers(len(self.photos))]
        side = max(8, int(min(photo.shape[:2]) * rng.uniform(low, high)))
        top = rng.integers(photo.shape[0] - side + 1)
        left = rng.integers(photo.shape[1] - side + 1)
        piece = photo[top : top + side, left : left + side]
        if rng.random() < 0.5:
            piece = piece[:, ::-1]
        kind = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(piece), (size, size), interpolation=kind).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class _Cast:
    """The people of an image. person: the one with ground truth. params, posed, vertices: of all, `person` first."""

    person: BodySample
    params: list[BodyParams]
    posed: list[PosedBase]
    vertices: list[Float32[np.ndarray, "v 3"]]


class PictureMaker:
    """Makes images. The same seed and index always make the same image.

    The people of `BLOCK` images are sampled and posed together and kept, so making images in order is fastest.
    """

    def __init__(
        self,
        body: Body,
        sampler: BodySampler,
        base: BaseMesh,
        wardrobe: Wardrobe,
        backgrounds: Backgrounds,
        mix: PictureMix | None = None,
        size: int = 256,
    ) -> None:
        """size: side of the images in pixels. They are rendered at twice that size."""
        self.body, self.sampler, self.base = body, sampler, base
        self.wardrobe, self.backgrounds = wardrobe, backgrounds
        self.mix, self.size = mix or PictureMix(), size
        self._kept: tuple[tuple[int, int], list[_Cast]] | None = None
        dominant = base.bones[np.arange(len(base.bones)), base.bone_weights.argmax(1)]
        regions = np.array([_region(base.bone_labels[bone]) for bone in dominant])
        self._face_regions = regions[base.faces[:, 0]]

    def make(self, seed: int, index: int) -> Picture:
        """The image of a seed and index."""
        rng = np.random.default_rng([seed, index])
        cast = self._casts(seed, index // BLOCK)[index % BLOCK]
        person = cast.person
        box = person.box.double().numpy()
        # The image contains everything that a 3:4 crop with the usual margin shows.
        side = 1.3 * max(box[3], box[2] * 4 / 3) * rng.uniform(1.0, 1.15)
        zoom = self.size / side
        middle = box[:2] + box[2:] / 2 + rng.normal(0, 0.02, 2) * side
        focal = person.camera.focal.double().numpy() * zoom
        center = (person.camera.center.double().numpy() - middle) * zoom + (self.size - 1) / 2

        scene = _Scene()
        for params, posed in zip(cast.params, cast.posed, strict=True):
            self._dress(scene, params, posed, rng)
        picture = self._draw(scene, cast, focal, center, rng)
        if rng.random() < self.mix.occluder:
            spot = (box[:2] + box[2:] * rng.uniform(0.1, 0.9, 2) - middle) * zoom + self.size / 2
            self._occlude(picture, spot, box[2:].max() * zoom, rng)
        frame = person.frame.double().numpy()
        low = np.clip((frame[:2] - middle) * zoom + self.size / 2, 0, self.size).round().astype(int)
        high = np.clip((frame[:2] + frame[2:] - middle) * zoom + self.size / 2, 0, self.size).round().astype(int)
        photo = photograph(picture, rng)
        # Outside the photo the image is black, like a crop at the border of a real photo.
        cut = np.zeros_like(photo)
        cut[low[1] : high[1], low[0] : high[0]] = photo[low[1] : high[1], low[0] : high[0]]
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(45, 96))]
        _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(cut[..., ::-1]), quality)

        def pixels(points: np.ndarray) -> np.ndarray:
            flat = points[:, :2] / points[:, 2:] * focal + center
            return np.concatenate([flat, points[:, 2:]], 1).astype(np.float32)

        corner = (box[:2] - middle) * zoom + (self.size - 1) / 2
        return Picture(
            jpeg.reshape(-1),
            pixels(person.mesh.vertices.double().numpy()),
            pixels(person.mesh.joints.double().numpy()),
            np.concatenate([corner, box[2:] * zoom]).astype(np.float32),
            focal.astype(np.float32),
            center.astype(np.float32),
            person.params,
        )

    def _casts(self, seed: int, block: int) -> list[_Cast]:
        """The people of a block of images."""
        if self._kept is not None and self._kept[0] == (seed, block):
            return self._kept[1]
        # The third number makes these draws independent of those of any image.
        rng = np.random.default_rng([seed, block, BLOCK])
        people = self.sampler.sample(2 * BLOCK, torch.Generator().manual_seed(int(rng.integers(2**62))))
        params = [[people[i].params] for i in range(BLOCK)]
        for i, members in enumerate(params):
            if rng.random() < self.mix.company:
                members.append(_beside(people[BLOCK + i], people[i], rng))
        flat = BodyParams.stack([one for members in params for one in members])
        with torch.no_grad():
            vertices = iter(self.body(flat).vertices.numpy())
        posed = iter(self.base.pose(flat))
        casts = [
            _Cast(people[i], members, [next(posed) for _ in members], [next(vertices) for _ in members])
            for i, members in enumerate(params)
        ]
        self._kept = (seed, block), casts
        return casts

    def _dress(self, scene: "_Scene", params: BodyParams, posed: PosedBase, rng: np.random.Generator) -> None:
        """Add a person with skin, clothes, hair and shoes to the scene."""
        shape = dict(zip(SHAPE_NAMES, params.shape.tolist(), strict=True))
        sex = "female" if shape["gender"] + rng.normal(0, 0.05) > 0.5 else "male"
        painted = rng.random() < self.mix.painted
        worn = self._choose(sex, painted, rng)
        skins = self.wardrobe.skins[sex]
        skin = skins[rng.integers(len(skins))].astype(np.float32)
        skin = skin * (rng.uniform(0.8, 1.1) * (1 + rng.normal(0, 0.03, 3))).astype(np.float32)
        hidden = np.zeros(len(posed.posed), bool)
        for garment in worn:
            hidden |= garment.hides
        shown = ~hidden[self.base.faces].any(1)
        faces, uv = self.base.faces[shown], self.base.uv[shown]
        texture = np.zeros(len(faces), np.int32)
        textures = [skin]
        if painted:
            regions = self._face_regions[shown]
            for parts in REGIONS:
                covered = parts if rng.random() < 0.6 else parts[:-1]
                texture[np.isin(regions, covered)] = len(textures)
                textures.append(self._fabric(rng))
        scene.add(posed.posed, faces, uv, texture, textures, None, 0.0)
        for layer, garment in enumerate(worn):
            vertices = fit_garment(garment, posed)
            colours, opaque = self._colour(garment, rng)
            which = np.zeros(len(garment.faces), np.int32)
            scene.add(vertices, garment.faces, garment.uv, which, [colours], opaque, 0.006 + 0.002 * layer)

    def _choose(self, sex: str, painted: bool, rng: np.random.Generator) -> list[Garment]:
        """Choose garments, from the innermost to the outermost."""

        def one(kind: str) -> Garment:
            garments = self.wardrobe.garments[kind]
            return garments[rng.integers(len(garments))]

        worn: list[Garment] = []
        kind = rng.random()
        if not painted:
            if kind < (0.75 if sex == "male" else 0.45):
                worn.append(one(f"suit:{sex}"))
            elif sex == "female" and kind < 0.58:
                worn.append(one("dress:female"))
            else:
                worn += [one(f"bottom:{sex}"), one(f"top:{sex}")]
            if sex == "female" and rng.random() < 0.06:
                worn.append(one("coat:female"))
        if rng.random() < 0.85:
            worn.append(one("shoes:any"))
        if rng.random() < 0.92:
            worn.append(one(f"hair:{sex}"))
        if rng.random() < 0.06:
            worn.append(one("hat:any"))
        if rng.random() < 0.12:
            worn.append(one("glasses:any"))
        return worn

    def _colour(self, garment: Garment, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The garment's texture (RGB from 0 to 255), often in another colour, and where it is opaque."""
        hair = garment in self.wardrobe.garments["hair:female"] + self.wardrobe.garments["hair:male"]
        if hair:
            colour = HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))] * rng.uniform(0.8, 1.2)
            texture = garment.brightness * colour.astype(np.float32)
        elif rng.random() < 0.5:
            texture = garment.brightness * _cloth_colour(rng)
            if rng.random() < 0.15:
                texture *= self.backgrounds.patch(rng, TEXTURE_SIZE, 0.05, 0.3) / 128
        else:
            return garment.colours, garment.opaque
        return np.minimum(texture, 255, out=texture), garment.opaque

    def _fabric(self, rng: np.random.Generator) -> Float32[np.ndarray, "s s 3"]:
        """Plain cloth, or a print."""
        if rng.random() < 0.25:
            return self.backgrounds.patch(rng, TEXTURE_SIZE, 0.05, 0.4)
        weave = cv2.resize(rng.normal(0, 1, (64, 64, 1)).astype(np.float32), (TEXTURE_SIZE, TEXTURE_SIZE))
        return np.clip(_cloth_colour(rng) * (1 + rng.uniform(0, 0.12) * weave[..., None]), 0, 255)

    def _draw(
        self, scene: "_Scene", cast: _Cast, focal: np.ndarray, center: np.ndarray, rng: np.random.Generator
    ) -> Float32[np.ndarray, "s s 3"]:
        """The lit scene in front of a photo of a place, RGB from 0 to 255."""
        up = cast.person.up.double().numpy()
        lighting = random_lights(up, rng)
        vertices, faces, uv, texture, textures, cutout, bias = scene.merge()
        fine = 2 * self.size
        points = project(vertices, tuple(focal), tuple(center), 2)
        buffers = rasterize(points, faces, (fine, fine), bias, cutout)
        drawn, coverage = shade(buffers, vertices, faces, Textures(textures, uv, texture), lighting, 2)
        picture = self.backgrounds.patch(rng, self.size, 0.35, 1.0) * np.float32(rng.uniform(0.6, 1.1))
        if rng.random() < self.mix.shadow:
            flat = [_on_ground(body.astype(np.float64), up, lighting.directions[0]) for body in cast.vertices]
            dark = _shadow(flat, self.body.faces.numpy(), focal, center, self.size)
            dark = cv2.GaussianBlur(dark, (0, 0), rng.uniform(1, 5))
            picture *= 1 - np.float32(rng.uniform(0.25, 0.65)) * dark[..., None]
        picture *= 1 - coverage[..., None]
        picture += drawn
        return picture

    def _occlude(self, picture: np.ndarray, spot: np.ndarray, length: float, rng: np.random.Generator) -> None:
        """Cover a part of the image with a piece of a photo."""
        mask = np.zeros((self.size, self.size), np.uint8)
        size = rng.uniform(0.08, 0.35, 2) * length
        turn = float(rng.uniform(0, 180))
        x, y = float(spot[0]), float(spot[1])
        if rng.random() < 0.4:
            cv2.ellipse(mask, ((x, y), (float(size[0]), float(size[1])), turn), 1, -1)
        else:
            corners = cv2.boxPoints(((x, y), (float(size[0]), float(size[1] * 2)), turn))
            cv2.fillConvexPoly(mask, corners.astype(np.int32), 1)
        cover = mask > 0
        picture[cover] = self.backgrounds.patch(rng, self.size, 0.1, 0.6)[cover]


class _Scene:
    """Meshes with textures that are rendered together."""

    def __init__(self) -> None:
        self._vertices: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._uv: list[np.ndarray] = []
        self._texture: list[np.ndarray] = []
        self._bias: list[np.ndarray] = []
        self._textures: list[np.ndarray] = []
        self._opaque: list[np.ndarray] = []
        self._count = 0

    def add(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        uv: np.ndarray,
        texture: np.ndarray,
        textures: list[np.ndarray],
        opaque: np.ndarray | None,
        bias: float,
    ) -> None:
        """Add a mesh. texture: index of each face's texture. bias: metres nearer, to be drawn over what it covers."""
        self._vertices.append(vertices)
        self._faces.append(faces + self._count)
        self._uv.append(uv)
        self._texture.append(texture + len(self._textures))
        self._bias.append(np.full(len(faces), bias, np.float32))
        self._textures += textures
        self._opaque += [np.ones(textures[0].shape[:2], bool) if opaque is None else opaque] * len(textures)
        self._count += len(vertices)

    def merge(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, Cutout, np.ndarray]:
        """Vertices, faces, uv, texture of each face, textures, cutout and depth bias of the scene."""
        uv, texture = np.concatenate(self._uv), np.concatenate(self._texture).astype(np.int32)
        opaque = np.stack(self._opaque)
        tested = np.where(np.all(opaque, axis=(1, 2))[texture], -1, texture).astype(np.int32)
        return (
            np.concatenate(self._vertices).astype(np.float32),
            np.concatenate(self._faces),
            uv,
            texture,
            np.stack(self._textures),
            Cutout(opaque, uv, tested),
            np.concatenate(self._bias),
        )


def _beside(other: BodySample, person: BodySample, rng: np.random.Generator) -> BodyParams:
    """Parameters of another person near the first, with the same up direction."""
    up = rotation_between(other.up.double().numpy(), person.up.double().numpy())
    pose = other.params.pose.clone()
    spin = Rotation.from_rotvec(person.up.double().numpy() * rng.uniform(-np.pi, np.pi)).as_matrix()
    pose[0] = torch.from_numpy(spin @ up).float() @ pose[0]
    place = person.params.translation.double().numpy()
    away = rng.uniform(0.8, 1.8)
    aside = rng.choice([-1, 1]) * rng.uniform(0.45, 1.3)
    shift = np.array([aside, rng.normal(0, 0.05), 0.0])
    return BodyParams(pose, other.params.shape, torch.from_numpy(place * away + shift).float())


def random_lights(up: np.ndarray, rng: np.random.Generator) -> Lighting:
    """Ambient light and one to three lights with mild colours, mostly from above and from the camera."""
    count = int(rng.integers(1, 4))
    directions = rng.normal(0, 1, (count, 3)) + up * 0.9 - np.array([0, 0, 0.6])
    # The first light casts the shadow, so it is above the horizon.
    directions[0] += up * max(0.0, 0.5 - float(directions[0] @ up))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    strength = rng.uniform(0.15, 0.75, (count, 1)) / np.sqrt(count)
    colours = strength * (1 + rng.normal(0, 0.06, (count, 3)))
    ambient = rng.uniform(0.3, 0.75) * (1 + rng.normal(0, 0.04, 3))
    return Lighting(ambient.astype(np.float32), directions.astype(np.float32), colours.astype(np.float32))


def _on_ground(vertices: np.ndarray, up: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Projection of a person's vertices along the light onto the ground, the plane through the lowest vertex."""
    height = vertices @ up
    above = height - height.min()
    direction = light.astype(np.float64)
    return vertices - above[:, None] / (direction @ up) * direction


def _shadow(
    bodies: list[np.ndarray], faces: np.ndarray, focal: np.ndarray, center: np.ndarray, size: int
) -> Float32[np.ndarray, "s s"]:
    """Mask of the shadow of bodies that are projected onto the ground."""
    points = [project(body, tuple(focal), tuple(center)) for body in bodies]
    whole = np.concatenate([faces + i * len(bodies[0]) for i in range(len(bodies))])
    return rasterize(np.concatenate(points), whole, (size, size)).mask.astype(np.float32)


def photograph(picture: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """Add the faults of a camera: colour cast, exposure, contrast, blur, low resolution, noise."""
    size = len(picture)
    picture = np.clip(picture * ((1 + rng.normal(0, 0.05, 3)) / 255).astype(np.float32), 0, 1)
    picture = 255 * cv2.pow(picture, float(np.exp(rng.normal(0, 0.18))))
    if rng.random() < 0.25:
        small = int(size * rng.uniform(0.35, 0.9))
        small_picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small_picture, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.08:
        length = int(rng.integers(3, 9))
        kernel = np.zeros((9, 9), np.float32)
        turn = rng.uniform(0, np.pi)
        step = np.array([np.cos(turn), np.sin(turn)])
        for t in np.linspace(-length / 2, length / 2, 17):
            column, row = np.rint(4 + step * t).astype(int)
            kernel[row, column] += 1
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    noise = rng.standard_normal(picture.shape, np.float32)
    picture += noise * np.float32(rng.uniform(0, 6))
    if rng.random() < 0.03:
        picture = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _cloth_colour(rng: np.random.Generator) -> Float32[np.ndarray, "3"]:
    """A colour of clothes, mostly greyish and rarely vivid; RGB from 0 to 255."""
    level = rng.uniform(25, 225)
    if rng.random() < 0.2:
        hue = rng.random(3)
        colour = level * (0.4 + 0.6 * (hue - hue.min()) / (np.ptp(hue) + 1e-6))
    else:
        colour = level * (1 + rng.normal(0, 0.12, 3))
    return np.clip(colour, 0, 255).astype(np.float32)


def _read_photo(path: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    photo = read_picture(path, cv2.IMREAD_REDUCED_COLOR_2)
    if photo is None:
        return None
    scale = 640 / min(photo.shape[:2])
    if scale < 1:
        photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(photo[..., ::-1])


def _region(bone: str) -> str:
    return next((region for start, region in _REGION_OF_BONE.items() if bone.startswith(start)), "")
