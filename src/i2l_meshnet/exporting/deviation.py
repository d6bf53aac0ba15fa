"""Pictures to check exported networks with: who is in them, how far two networks' meshes of them differ, crops."""

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

MOST_PICTURES = 32
"""Of a folder with more, every so manieth is looked at."""
LARGEST_VIEW = 3.0
"""No mesh is compared farther away than where its crop shows so many depth extents of the grid: 6 m of a body's."""


@dataclasses.dataclass(frozen=True)
class Deviation:
    """How far vertices lie from those of another network, millimetres, over so many people.

    mesh: the network's own. parametric: the body model's, against its root joint; None where there is none.
    """

    people: int
    mesh: float
    mean: float
    parametric: float | None

    def __str__(self) -> str:
        parts = [f"the mesh differs from PyTorch's by at most {self.mesh:.3g} mm ({self.mean:.3g} in the mean)"]
        if self.parametric is not None:
            parts.append(f"the body model's by at most {self.parametric:.3g} mm")
        return ", ".join(parts)


def subjects(predictor: MeshPredictor, folder: Path | None) -> list[Subject]:
    """The pictures of a folder, or those that ship with the package, in which there is somebody.

    Raises InputError where nobody is found, UserError for pictures that cannot be read.
    """
    # The page of `serve` shows these; they are files of the package, so that every installation has them.
    source = folder or Path(str(resources.files("i2l_meshnet") / "serving/static/examples"))
    pictures = find_pictures((str(source),), False, None, SUFFIXES)
    pictures = pictures[:: math.ceil(len(pictures) / MOST_PICTURES)]
    found = [predictor.prepare(read_photo(picture.path), picture.path.name) for picture in pictures]
    found = [subject for subject in found if subject.people]
    if not found:
        raise InputError(f"there is nobody to be seen in the pictures of {source}: give others with --pictures")
    return found


def deviation(expected: MeshPredictor, found: MeshPredictor, pictures: Sequence[Subject]) -> Deviation:
    """How far the meshes of one predictor lie from those of another with the same body.

    The lixel meshes are compared at the depth at which the first predictor sees the root (`_depth`): the depth itself
    is solved from the mesh after the network.
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
    """Where a person's root is seen, metres, but no farther than `LARGEST_VIEW` allows.

    A network that nobody trained puts people kilometres away, where its rounding would be metres.
    """
    scale = person.crop.affine[:, :2].det().abs().sqrt()
    pixels = grid.crop_size[0] / scale
    farthest = LARGEST_VIEW * grid.depth_extent * person.camera.focal[1] / pixels
    return torch.clamp(torch.tensor(person.root_depth), max=farthest.float())


def _rooted(person: Prediction) -> Float[Tensor, "v 3"]:
    """Vertices of the body model's mesh against its root joint."""
    assert person.parametric_mesh is not None
    return person.parametric_mesh.vertices - person.parametric_mesh.joints[person.body.skeleton.root_index]
