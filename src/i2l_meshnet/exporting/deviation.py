"""How far the meshes of two networks differ, on images of people: the check of exported networks."""

import dataclasses
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.prediction.images import SUFFIXES, find_pictures, read_photo
from i2l_meshnet.prediction.predictor import MeshPredictor, Subject
from i2l_meshnet.prediction.results import Prediction

MAX_PICTURES = 32
"""Maximum number of images. From a folder with more images, every n-th is used."""
LARGEST_VIEW = 3.0
"""Meshes are compared no farther away than where the crop shows this many depth extents of the grid (a body's: 6 m)."""


@dataclasses.dataclass(frozen=True)
class Deviation:
    """Distances between the vertices of two networks, millimetres.

    mesh: maximum over the lixel meshes. mean: mean over the lixel meshes. parametric: maximum over the parametric
    meshes relative to their root joint; None without parametric meshes.
    """

    people: int
    mesh: float
    mean: float
    parametric: float | None

    def __str__(self) -> str:
        parts = [f"the mesh differs from PyTorch's by at most {self.mesh:.3g} mm ({self.mean:.3g} on average)"]
        if self.parametric is not None:
            parts.append(f"the parametric mesh by at most {self.parametric:.3g} mm")
        return ", ".join(parts)


def subjects(predictor: MeshPredictor, folder: Path | None) -> list[Subject]:
    """The people in the images of a folder, or of the package; images without people are left out.

    Raises InputError if nobody is found, UserError for images that cannot be read.
    """
    # The example images of the `serve` page: every installation has them.
    source = folder or Path(str(resources.files("i2l_meshnet") / "serving/static/examples"))
    pictures = find_pictures((str(source),), False, None, SUFFIXES)
    pictures = pictures[:: math.ceil(len(pictures) / MAX_PICTURES)]
    found = [predictor.prepare(read_photo(picture.path), picture.path.name) for picture in pictures]
    found = [subject for subject in found if subject.people]
    if not found:
        raise InputError(f"nobody was found in the images of {source}: name other images", argument="pictures")
    return found


def deviation(expected: MeshPredictor, found: MeshPredictor, pictures: Sequence[Subject]) -> Deviation:
    """How far the meshes of two predictors of the same body differ.

    Lixel meshes are compared at the root depth of the first predictor (`_depth`), because the depth is solved from the
    mesh after the network.
    """
    pairs = [
        (a, b)
        for one, other in zip(expected.predict(pictures), found.predict(pictures), strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    grid = expected.network.grid

    def in_space(person: Prediction, like: Prediction) -> Float[Tensor, "v 3"]:
        return grid.to_camera(person.lixels, like.crop, like.camera, _depth(like, grid))

    meshes = torch.stack([(in_space(b, a) - in_space(a, a)).norm(dim=-1) for a, b in pairs])
    parametric = [
        float((_rooted(a) - _rooted(b)).norm(dim=-1).max()) for a, b in pairs if a.parametric_mesh is not None
    ]
    worst = 1000 * max(parametric) if parametric else None
    return Deviation(len(pairs), 1000 * float(meshes.max()), 1000 * float(meshes.mean()), worst)


def _depth(person: Prediction, grid: LixelGrid) -> Float[Tensor, ""]:
    """The root depth of a person, metres, limited by `LARGEST_VIEW`.

    An untrained network places people kilometres away, where rounding would be metres.
    """
    scale = person.crop.affine[:, :2].det().abs().sqrt()
    pixels = grid.crop_size[0] / scale
    farthest = LARGEST_VIEW * grid.depth_extent * person.camera.focal[1] / pixels
    return torch.clamp(torch.tensor(person.root_depth), max=farthest.float())


def _rooted(person: Prediction) -> Float[Tensor, "v 3"]:
    """Vertices of the parametric mesh relative to its root joint."""
    assert person.parametric_mesh is not None
    return person.parametric_mesh.vertices - person.parametric_mesh.joints[person.body.skeleton.root_index]
