"""The default model on real people: joints against a reference triangulated from four views."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.data.multiview import HIPS, KEYPOINT_ROWS, MultiviewSamples
from i2l_meshnet.evaluation.metrics import aligned_error, mean_error, root_relative
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.output import LixelOutput

MILLIMETRES = 1000


@dataclasses.dataclass(frozen=True)
class MeshScore:
    """Mean errors of one kind of mesh, millimetres; `*_views`: the same for each view.

    size_ratio: median over the samples of the reference's size against the prediction's (mean distance from the
    root). mpjpe_other_views: MPJPE against the reference made without the scored view.
    """

    mpjpe: float
    pa_mpjpe: float
    mpjpe_views: tuple[float, ...]
    pa_mpjpe_views: tuple[float, ...]
    size_ratio: float
    mpjpe_other_views: float
    pa_mpjpe_other_views: float


@dataclasses.dataclass(frozen=True)
class MultiviewReport:
    """What `evaluate_multiview` found.

    noise_mpjpe, noise_pa_mpjpe: how far the reference moves when the scored view is left out of it, millimetres:
    differences below this mean nothing. reprojection: median error of the reference in the views, pixels.
    """

    samples: int
    lixel: MeshScore
    param: MeshScore | None
    noise_mpjpe: float
    noise_pa_mpjpe: float
    reprojection: float

    def lines(self) -> list[str]:
        """The report as printed, in the published wording."""
        found = []
        for name, score in (("lixel", self.lixel), ("param", self.param)):
            if score is not None:
                found.append(f"MPJPE from {name} mesh: {score.mpjpe:.2f} mm")
                found.append(f"PA MPJPE from {name} mesh: {score.pa_mpjpe:.2f} mm")
                views = ", ".join(
                    f"{direct:.1f}/{aligned:.1f}"
                    for direct, aligned in zip(score.mpjpe_views, score.pa_mpjpe_views, strict=True)
                )
                found.append(f"  per view {views}; reference / predicted size {score.size_ratio:.3f}")
                found.append(
                    f"  against the other views alone {score.mpjpe_other_views:.2f} / {score.pa_mpjpe_other_views:.2f}"
                )
        found.append(
            f"{self.samples} samples, 12 joints, root depth given; leaving the scored view out moves the reference by "
            f"{self.noise_mpjpe:.1f} mm ({self.noise_pa_mpjpe:.1f} aligned); reprojection {self.reprojection:.1f} px"
        )
        return found


def evaluate_multiview(
    network: Callable[[Tensor], LixelOutput],
    grid: LixelGrid,
    body: Body,
    keypoint_regressor: Float[Tensor, "26 v"],
    samples: MultiviewSamples,
    crops: UInt8[Tensor, "b 3 h w"],
    batch: int = 25,
) -> MultiviewReport:
    """Scores the lixel mesh and the parametric mesh on real people.

    Both meshes give the detector's joints through `keypoint_regressor`; the 12 joints of `data.multiview.JOINTS`
    are compared relative to the mean of the hips. The lixel mesh is brought to metres with the reference's root
    depth, as the published benchmarks do with the ground truth's; the parametric mesh needs none.
    """
    lixel, param = [], []
    rows = keypoint_regressor[list(KEYPOINT_ROWS)]
    with torch.inference_mode():
        for start in range(0, len(crops), batch):
            part = slice(start, start + batch)
            output = network(crops[part].float() / 255)
            lixel.append(lixels_to_joints(output.vertices.float(), rows, grid, samples[part]))
            if output.params is not None:
                turn = grid.view_rotation(samples[part].crop(grid.crop_size), samples[part].camera)
                param.append(rows @ body(output.params.turned(turn)).vertices)
    return report(samples, torch.cat(lixel), torch.cat(param) if param else None)


def lixels_to_joints(
    vertices: Float[Tensor, "b v 3"], rows: Float[Tensor, "12 v"], grid: LixelGrid, samples: MultiviewSamples
) -> Float[Tensor, "b 12 3"]:
    """The scored joints of lixel meshes in the camera frame, metres, the hips at the reference's depth."""
    joints = rows @ vertices
    crop = samples.crop(grid.crop_size)
    # Move the root until the hips have the reference's depth; the second step takes up the first one's rounding.
    root_depth = samples.root_depth
    for _ in range(2):
        found = grid.to_camera(joints, crop, samples.camera, root_depth)
        root_depth = root_depth + samples.root_depth - found[:, list(HIPS), 2].mean(-1)
    return grid.to_camera(joints, crop, samples.camera, root_depth)


def report(
    samples: MultiviewSamples, lixel: Float[Tensor, "b 12 3"], param: Float[Tensor, "b 12 3"] | None
) -> MultiviewReport:
    """Scores of joints in the camera frame (metres; the parametric ones in any place)."""
    truth, other = _rooted(samples.joints), _rooted(samples.joints_without)
    return MultiviewReport(
        samples=len(truth),
        lixel=_score(samples, lixel),
        param=None if param is None else _score(samples, param),
        noise_mpjpe=_millimetres(mean_error(other, truth)),
        noise_pa_mpjpe=_millimetres(aligned_error(other, truth)),
        reprojection=float(samples.error.median()),
    )


def _rooted(joints: Float[Tensor, "b 12 3"]) -> Float[Tensor, "b 12 3"]:
    return root_relative(joints, joints[:, list(HIPS)].mean(1))


def _millimetres(error: Float[Tensor, "n"]) -> float:
    return float(error.mean()) * MILLIMETRES


def _score(samples: MultiviewSamples, joints: Float[Tensor, "b 12 3"]) -> MeshScore:
    found, truth, other = _rooted(joints), _rooted(samples.joints), _rooted(samples.joints_without)
    direct, aligned = mean_error(found, truth), aligned_error(found, truth)
    views = sorted(set(samples.view.tolist()))
    size = truth.norm(dim=-1).sum(-1) / found.norm(dim=-1).sum(-1)
    return MeshScore(
        mpjpe=_millimetres(direct),
        pa_mpjpe=_millimetres(aligned),
        mpjpe_views=tuple(_millimetres(direct[samples.view == view]) for view in views),
        pa_mpjpe_views=tuple(_millimetres(aligned[samples.view == view]) for view in views),
        size_ratio=float(size.median()),
        mpjpe_other_views=_millimetres(mean_error(found, other)),
        pa_mpjpe_other_views=_millimetres(aligned_error(found, other)),
    )
