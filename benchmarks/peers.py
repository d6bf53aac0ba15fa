"""Other packages with the same function as a part of ours: `smplx` and `anny`, if they are installed."""

import contextlib
import importlib
import io
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies import Body, BodyParams
from i2l_meshnet.bodies.linear import LinearBody
from i2l_meshnet.geometry.rotations import matrix_to_axis_angle


class Missing(Exception):
    """A package is not installed or does not run; the message is the reason."""


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing("not installed" if error.name == name else f"does not run: {error}") from error
    except Exception as error:  # an import can raise anything
        raise Missing(f"does not run: {type(error).__name__}: {error}") from error


def smplx_body(body: LinearBody, params: BodyParams) -> Callable[[], Float[Tensor, "n v 3"]]:
    """Vertices of SMPL-shaped bodies by the package `smplx`, with the arrays of our random body as its model."""
    smplx = _package("smplx")
    vertices, bones = len(body.template), len(body.bones)
    kinematic = np.array([[max(parent, 0) for parent in body.parents], range(bones)])
    model = SimpleNamespace(
        v_template=body.template.numpy(),
        shapedirs=body.shape_directions.T.reshape(vertices, 3, -1).numpy(),
        posedirs=body.pose_directions.T.reshape(vertices, 3, -1).numpy(),
        J_regressor=body.bone_regressor.numpy(),
        kintree_table=kinematic,
        weights=body.weights.numpy(),
        f=body.faces.numpy(),
    )
    count = len(params.shape)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a warning about shape values
        layer = smplx.SMPL("", data_struct=model, batch_size=count, num_betas=params.shape.shape[-1])
    angles = matrix_to_axis_angle(params.pose).flatten(1)

    @torch.inference_mode()
    def pose() -> Tensor:
        posed = layer(
            betas=params.shape, global_orient=angles[:, :3], body_pose=angles[:, 3:], transl=params.translation
        )
        return posed.vertices

    return pose


def anny_body(body: Body, shape_names: tuple[str, ...], params: BodyParams) -> Callable[[], Float[Tensor, "n v 3"]]:
    """Vertices of our mesh by the package `anny`. params: of our Anny body, with all bones of the rig."""
    anny = _package("anny")
    with contextlib.redirect_stdout(io.StringIO()):
        model = anny.Anny(rig="anny", topology="notoes_collapse10pc", skinning_method="lbs").float()
    count, bones = params.pose.shape[:2]
    deltas = torch.eye(4).repeat(count, bones, 1, 1)
    deltas[:, :, :3, :3] = params.pose
    deltas[:, 0, :3, :3] = model.reference_bone_orientations[0] @ deltas[:, 0, :3, :3]
    shape: dict[str, Any] = {label: params.shape[:, shape_names.index(label)] for label in model.phenotype_labels}

    @torch.inference_mode()
    def pose() -> Tensor:
        return model(pose_parameters=deltas, phenotype_kwargs=shape)["vertices"]

    return pose
