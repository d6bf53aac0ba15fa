"""Errors of joints on real people, relative to a reference triangulated from four views."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from i2l_meshnet.data.multiview import HIPS, JOINTS, MultiviewSamples
from i2l_meshnet.evaluation.metrics import acceleration_error, aligned_error, mean_error
from i2l_meshnet.evaluation.report import MILLIMETRES, text_table
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.tensors import TensorDataclass

SHOULDERS = (JOINTS.index("L_Shoulder"), JOINTS.index("R_Shoulder"))
COLUMNS = {"MPJPE": "mpjpe_mm", "PA MPJPE": "pa_mpjpe_mm", "depth": "depth_bias_mm", "lean": "lean_degrees"}
"""Columns of the printed tables, and the names of their values."""


@dataclasses.dataclass(frozen=True)
class PersonErrors(TensorDataclass):
    """Errors of one kind of mesh, one row per sample, in mm and degrees. Joints are relative to the mean of the hips.

    joints: distances.
    aligned: PA-MPJPE.
    depth: signed error along the camera's z axis, positive if too far.
    lean: angle of the trunk relative to the reference's, positive forward (`trunk_lean`).
    acceleration: mm per squared frame, NaN if the frame before or after is not among the samples.
    size: reference size divided by predicted size (distances from the root).
    other_views, aligned_other_views: MPJPE and PA-MPJPE relative to the reference without the scored view.
    """

    joints: Float[Tensor, "*b 12"]
    aligned: Float[Tensor, "*b"]
    depth: Float[Tensor, "*b 12"]
    lean: Float[Tensor, "*b"]
    acceleration: Float[Tensor, "*b"]
    size: Float[Tensor, "*b"]
    other_views: Float[Tensor, "*b"]
    aligned_other_views: Float[Tensor, "*b"]

    def summary(self) -> dict[str, float | None]:
        """Means over the samples, medians for lean and size. An unknown acceleration is None."""
        known = self.acceleration[~self.acceleration.isnan()]
        return {
            "mpjpe_mm": float(self.joints.mean()),
            "pa_mpjpe_mm": float(self.aligned.mean()),
            "lean_degrees": float(self.lean.median()),
            "depth_bias_mm": float(self.depth.mean()),
            "depth_error_mm": float(self.depth.abs().mean()),
            "acceleration_mm_per_squared_frame": float(known.mean()) if len(known) else None,
            "size_ratio": float(self.size.median()),
            "mpjpe_other_views_mm": float(self.other_views.mean()),
            "pa_mpjpe_other_views_mm": float(self.aligned_other_views.mean()),
        }


@dataclasses.dataclass(frozen=True)
class MultiviewReport:
    """Errors on a clip.

    errors: by kind of mesh, `lixel` and `param`. noise: errors of the reference without the scored view, relative to
    the full reference; smaller differences between networks mean nothing. reprojection: median reprojection error of
    the reference, pixels.
    """

    samples: MultiviewSamples
    errors: dict[str, PersonErrors]
    noise: PersonErrors
    reprojection: float

    def lines(self) -> list[str]:
        """The printed means: first in the published wording, then all others."""
        means = {kind: errors.summary() for kind, errors in self.errors.items()}
        found = []
        for kind, mean in means.items():
            found.append(f"MPJPE from {kind} mesh: {mean['mpjpe_mm']:.2f} mm")
            found.append(f"PA MPJPE from {kind} mesh: {mean['pa_mpjpe_mm']:.2f} mm")
        for kind, mean in means.items():
            found.append(
                f"{kind} mesh: lean {mean['lean_degrees']:+.1f}°, depth bias {mean['depth_bias_mm']:+.1f} mm, "
                f"depth error {mean['depth_error_mm']:.1f} mm{_acceleration(mean)}, "
                f"reference / predicted size {mean['size_ratio']:.3f}, against the other views alone "
                f"{mean['mpjpe_other_views_mm']:.1f} / {mean['pa_mpjpe_other_views_mm']:.1f} mm"
            )
        noise = self.noise.summary()
        found.append(
            f"{len(self.samples.view)} samples, 12 joints, root depth given; leaving the scored view out moves the "
            f"reference by {noise['mpjpe_mm']:.1f} mm ({noise['pa_mpjpe_mm']:.1f} aligned{_acceleration(noise)}); "
            f"reprojection {self.reprojection:.1f} px"
        )
        return found

    def tables(self) -> list[Table]:
        """Tables by joint and by view, for the terminal."""
        joints = [
            {"joint": row["joint"], **self._cells(row, ("MPJPE", "depth")), "noise": f"{row['noise_mm']:.1f}"}
            for row in self.joint_rows()
        ]
        views = [
            {"view": str(row["view"]), "n": str(row["samples"]), **self._cells(row, tuple(COLUMNS))}
            for row in self.view_rows()
        ]
        return [
            text_table("by joint, mm; depth: too far is positive", joints, names=1),
            text_table("by view, mm; lean in degrees, forward is positive", views),
        ]

    def _cells(self, row: dict[str, Any], names: Sequence[str]) -> dict[str, str]:
        return {f"{name}\n{kind}": f"{row[f'{kind}_{COLUMNS[name]}']:.1f}" for kind in self.errors for name in names}

    def joint_rows(self) -> list[dict[str, Any]]:
        """One row per joint: mean distance and signed depth error of each mesh, and the reference's noise, mm."""
        rows = []
        for index, joint in enumerate(JOINTS):
            row: dict[str, Any] = {"joint": joint}
            for kind, errors in self.errors.items():
                row[f"{kind}_mpjpe_mm"] = float(errors.joints[:, index].mean())
                row[f"{kind}_depth_bias_mm"] = float(errors.depth[:, index].mean())
            rows.append({**row, "noise_mm": float(self.noise.joints[:, index].mean())})
        return rows

    def view_rows(self) -> list[dict[str, Any]]:
        """One row per view: `PersonErrors.summary` of each mesh."""
        views = {view: self.samples.view == view for view in sorted(set(self.samples.view.tolist()))}
        return [
            {"view": view + 1, "samples": int(chosen.sum()), **self._summaries(chosen)}
            for view, chosen in views.items()
        ]

    def sample_rows(self) -> list[dict[str, Any]]:
        """One row per sample: frame, person, view, the detector's mean confidence, and errors."""
        return [
            {
                "frame": int(self.samples.frame[index]),
                "person": int(self.samples.person[index]),
                "view": int(self.samples.view[index]) + 1,
                "confidence": float(self.samples.keypoints[index, :, 2].mean()),
                **self._summaries(slice(index, index + 1)),
            }
            for index in range(len(self.samples.view))
        ]

    def _summaries(self, chosen: Tensor | slice) -> dict[str, float | None]:
        return {
            f"{kind}_{name}": value
            for kind, errors in self.errors.items()
            for name, value in errors[chosen].summary().items()
        }

    def to_json(self) -> dict[str, Any]:
        """All means as plain values."""
        return {
            "samples": len(self.samples.view),
            "people": len(set(self.samples.person.tolist())),
            "reprojection_px": self.reprojection,
            "noise": {
                name: v for name, v in self.noise.summary().items() if "other" not in name and "size" not in name
            },
            "meshes": {kind: errors.summary() for kind, errors in self.errors.items()},
            "joints": self.joint_rows(),
            "views": self.view_rows(),
        }


def lixels_to_joints(
    vertices: Float[Tensor, "b v 3"], rows: Float[Tensor, "12 v"], grid: LixelGrid, samples: MultiviewSamples
) -> Float[Tensor, "b 12 3"]:
    """The scored joints of lixel meshes in the camera frame, metres, with the hips at the reference's depth."""
    joints = rows @ vertices
    crop = samples.crop(grid.crop_size)
    # Move the root until the hips have the reference's depth; the second step corrects the rounding of the first.
    root_depth = samples.root_depth
    for _ in range(2):
        found = grid.to_camera(joints, crop, samples.camera, root_depth)
        root_depth = root_depth + samples.root_depth - found[:, list(HIPS), 2].mean(-1)
    return grid.to_camera(joints, crop, samples.camera, root_depth)


def report(samples: MultiviewSamples, joints: dict[str, Float[Tensor, "b 12 3"]]) -> MultiviewReport:
    """Score joints by kind of mesh, in the camera frame, metres, at any position."""
    samples = samples.to("cpu")
    errors = {kind: person_errors(samples, found.cpu()) for kind, found in joints.items()}
    noise = person_errors(samples, samples.joints_without)
    return MultiviewReport(samples, errors, noise, float(samples.error.median()))


def person_errors(samples: MultiviewSamples, joints: Float[Tensor, "b 12 3"]) -> PersonErrors:
    """Errors of joints in the camera frame, metres, at any position."""
    hips = list(HIPS)
    found, truth, other = (
        points - points[:, hips].mean(1, keepdim=True) for points in (joints, samples.joints, samples.joints_without)
    )
    acceleration = torch.full_like(found[:, 0, 0], torch.nan)
    middle, before, after = consecutive(samples)
    if len(middle):
        frames = torch.stack([before, middle, after], 1)
        acceleration[middle] = acceleration_error(found[frames], truth[frames])[:, 0] * MILLIMETRES
    return PersonErrors(
        joints=(found - truth).norm(dim=-1) * MILLIMETRES,
        aligned=aligned_error(found, truth) * MILLIMETRES,
        depth=(found - truth)[..., 2] * MILLIMETRES,
        lean=trunk_lean(found, truth).rad2deg(),
        acceleration=acceleration,
        size=truth.norm(dim=-1).sum(-1) / found.norm(dim=-1).sum(-1),
        other_views=mean_error(found, other) * MILLIMETRES,
        aligned_other_views=aligned_error(found, other) * MILLIMETRES,
    )


def consecutive(samples: MultiviewSamples) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of samples with neighbours, rows of their frame before, rows of their frame after.

    A sample has neighbours if the same view shows the same person in the frames before and after.
    """
    keys = list(zip(samples.person.tolist(), samples.view.tolist(), samples.frame.tolist(), strict=True))
    row = {key: index for index, key in enumerate(keys)}
    found = [
        (index, row[person, view, frame - 1], row[person, view, frame + 1])
        for index, (person, view, frame) in enumerate(keys)
        if (person, view, frame - 1) in row and (person, view, frame + 1) in row
    ]
    middle, before, after = torch.tensor(found, dtype=torch.long).reshape(-1, 3).unbind(1)
    return middle, before, after


def trunk_lean(found: Float[Tensor, "*b 12 3"], truth: Float[Tensor, "*b 12 3"]) -> Float[Tensor, "*b"]:
    """Forward angle of the line from hips to shoulders relative to the reference's, radians.

    The angle is measured in the sagittal plane of the reference: the plane of its trunk and its front. The front is
    perpendicular to the trunk and to the line from right to left hips and shoulders.
    """

    def trunk(joints: Tensor) -> Tensor:
        return joints[..., SHOULDERS, :].mean(-2) - joints[..., HIPS, :].mean(-2)

    up = trunk(truth)
    left = sum(truth[..., first, :] - truth[..., second, :] for first, second in (HIPS, SHOULDERS))
    front = torch.linalg.cross(left, up)
    leaning = trunk(found)
    return torch.atan2((leaning * front).sum(-1) / front.norm(dim=-1), (leaning * up).sum(-1) / up.norm(dim=-1))


def _acceleration(mean: dict[str, float | None]) -> str:
    value = mean["acceleration_mm_per_squared_frame"]
    return "" if value is None else f", acceleration error {value:.1f} mm/frame²"
