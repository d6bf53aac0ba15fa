"""The `rig` command: writes a saved person as a skinned, animated GLB or USD file, or as BVH."""

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tyro.conf import Positional

from i2l_meshnet.animation import ENDINGS, USD_ENDINGS, require_usd, write_animation
from i2l_meshnet.bodies import load_body
from i2l_meshnet.console import output
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.video.track import rigged
from i2l_meshnet.viewing.saved import read_saved


@dataclasses.dataclass(frozen=True)
class RigOptions:
    """Write a person of saved results as a file with skeleton and motion. A photo gives one pose."""

    result: Positional[Path]
    """A file written by predict: .json or .npz of a photo, .json of a clip, or .npz of a person of a clip."""
    out: Path
    """File to write: .glb or .usd, .usdc, .usda (mesh, skeleton, skin weights, animation), or .bvh (skeleton and
    motion)."""
    person: int = 0
    """Number of the person, from 0."""
    mesh: Literal["network", "full"] = "network"
    """For .glb and .usd: the network's mesh, which moves exactly as predicted, or the body's full mesh, which has
    texture coordinates and moves almost as predicted (see docs/outputs.md)."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for results of these bodies."""


def run(options: RigOptions) -> int:
    """Write the file. Raises UserError for an unusable result, person or suffix."""
    if options.out.suffix not in ENDINGS:
        raise InputError(f"{options.out} needs one of the suffixes {', '.join(ENDINGS)}", argument="out")
    if options.out.suffix in USD_ENDINGS:
        require_usd()
    scene = read_saved(options.result)
    if not 0 <= options.person < len(scene.people):
        count = len(scene.people)
        raise InputError(f"{scene.path} has {count} people, numbered from 0", argument="person")
    person = scene.people[options.person]
    params = person.track.params
    if params is None:
        raise InputError(f"{scene.path} has no body parameters, which the skeleton needs")
    body, times = load_body(person.track.body, options.body_dir), torch.from_numpy(person.track.time)
    if params.pose.shape[1] != len(body.bones) or params.shape.shape[1] != len(body.shape_names):
        raise FileError(f"{scene.path} is damaged: its parameters do not fit the body {body.name}")
    if not all(values.isfinite().all() for values in (params.pose, params.shape, params.translation, times)):
        raise FileError(f"{scene.path} is damaged: its parameters are not finite")
    if not _are_rotations(params.pose):
        raise FileError(f"{scene.path} is damaged: its pose has matrices that are not rotations")
    write_animation(options.out, *rigged(body, person.track), times, full=options.mesh == "full")
    frames = f"{len(times)} frames" if len(times) > 1 else "one pose"
    output(f"{options.out}: {person.label}, body {body.name}, {frames}")
    return 0


def _are_rotations(matrices: Float[Tensor, "*b 3 3"]) -> bool:
    """Whether the matrices are rotations, within the rounding of half precision."""
    product = matrices.double() @ matrices.double().mT
    orthogonal = torch.allclose(product, torch.eye(3, dtype=torch.float64).expand_as(product), atol=1e-2)
    return orthogonal and bool((torch.linalg.det(matrices.double()) > 0).all())
