"""`evaluate --data synthetic-pictures`: errors and body shapes on held-out synthetic images."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from i2l_meshnet.bodies.anny import stature
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.data.multiview import HIPS, JOINTS, KEYPOINT_ROWS
from i2l_meshnet.data.sources.synthetic import synthetic_source
from i2l_meshnet.data.targets import TargetBuilder
from i2l_meshnet.evaluation.annotated import AnnotatedPictures, DrawingOptions, ScoredSource, ScoringOptions
from i2l_meshnet.evaluation.benchmark import System, keypoint_regressor
from i2l_meshnet.evaluation.protocols import MPJPE, MPVPE, PA_MPJPE, PA_MPVPE
from i2l_meshnet.evaluation.report import MILLIMETRES, Evaluation, text_table, write_table
from i2l_meshnet.evaluation.scoring import FittedMeshes, JointReader, Scorer
from i2l_meshnet.models.output import LixelOutput

NAME = "synthetic-pictures"
SPLIT = "val"
METRICS = (MPJPE, PA_MPJPE, MPVPE, PA_MPVPE)
BANDS = {"below 0.4": 0.0, "0.4 to 0.6": 0.4, "0.6 to 0.8": 0.6, "0.8 and above": 0.8}
"""Bands of the mean confidence of a person's keypoints → lower limit."""
ADULT = 0.62
"""Minimum of Anny's age value for adults."""


class SyntheticPictures(AnnotatedPictures):
    """Scores meshes and body shapes of a network on the held-out shards `val_*.npz` of a folder."""

    def __init__(self, system: System, folder: Path, scoring: ScoringOptions, pictures: int = 8) -> None:
        """pictures: number of the worst samples to draw.

        Raise InputError for a body other than Anny, FileError for a folder without held-out shards.
        """
        body, grid = system.body, system.network.grid
        joints = keypoint_regressor(body, NAME)[list(KEYPOINT_ROWS)]
        readout = torch.cat([joints[list(HIPS)].mean(0, keepdim=True), joints])
        source = synthetic_source(folder, SPLIT)
        reader = JointReader(readout, whole=True)
        truth = FittedMeshes(TargetBuilder([body], grid, source.table.skeleton), reader)
        data = ScoredSource(
            source, Scorer(reader, truth, METRICS, grid), JOINTS, readout, "confidence", draws_truth=True
        )
        settings = {"data": NAME, "split": SPLIT, "weights": system.weights, "body": body.name}
        super().__init__(system, data, scoring, DrawingOptions(pictures, plots=False), settings)
        self._confidence: list[Float[Tensor, "b"]] = []
        self._found: list[Float[Tensor, "b s"]] = []
        self._true: list[Float[Tensor, "b s"]] = []

    def note(self, output: LixelOutput, params: BodyParams | None, sample: Sample) -> None:
        unknown = torch.full((len(sample.image),), torch.nan)
        self._confidence.append(unknown if output.keypoints is None else output.keypoints[..., 2].mean(1).cpu())
        self._true.append(sample.annotation.fit.shape.cpu())
        if params is not None:
            self._found.append(params.shape.cpu())

    def collected(self) -> list[Any]:
        return [*super().collected(), self._confidence, self._found, self._true]

    def merge(self, parts: Sequence[list[Any]]) -> None:
        super().merge(parts)
        for *_, confidence, found, true in parts:
            self._confidence += confidence
            self._found += found
            self._true += true

    def evaluation(self) -> Evaluation:
        """The errors of all samples, grouped by confidence, and the accuracy of body shapes."""
        bands = [_band(value) for value in torch.cat(self._confidence).tolist()]
        rows = []
        if self._found:
            found, true = (torch.cat(parts).to(self._system.device) for parts in (self._found, self._true))
            rows = shape_rows(self._system.body, found, true, bands)
        errors = super().evaluation()
        return dataclasses.replace(errors, groups=tuple(bands), settings={**errors.settings, "shape": rows})

    def report(self, evaluation: Evaluation, folder: Path) -> list[str | Table]:
        """Also write and print a table of body shape."""
        *lines, _ = super().report(evaluation, folder)
        rows = evaluation.settings["shape"]
        if rows:
            write_table(folder / "shapes.csv", rows)
            lines.append(_shape_table(rows))
        return [*lines, f"{len(self)} held-out pictures; results in {folder}"]


def shape_rows(
    body: Body, found: Float[Tensor, "n s"], true: Float[Tensor, "n s"], bands: Sequence[str]
) -> list[dict[str, Any]]:
    """Accuracy of shape values: one row for all people, for adults, and for the adults of each confidence band.

    stature_error_mm: mean absolute error. stature_bias_mm: mean signed error, positive if too tall. The other columns
    are Pearson correlations of predicted and true values (stature, volume of the body at rest, each shape value), None
    if a value does not vary.
    """
    height, true_height = stature(body, found), stature(body, true)
    pairs = {"stature": (height, true_height), "volume": (volume(body, found), volume(body, true))}
    pairs |= {name: (found[:, i], true[:, i]) for i, name in enumerate(body.shape_names)}
    adult = true[:, body.shape_names.index("age")] >= ADULT
    of_band = {
        f"adults, {band}": adult & adult.new_tensor([name == band for name in bands]) for band in BANDS if band in bands
    }
    rows = []
    for people, chosen in {"all": torch.ones_like(adult), "adults": adult, **of_band}.items():
        if not bool(chosen.any()):
            continue
        difference = (height - true_height)[chosen] * MILLIMETRES
        rows.append(
            {
                "people": people,
                "n": int(chosen.sum()),
                "stature_error_mm": float(difference.abs().mean()),
                "stature_bias_mm": float(difference.mean()),
                **{f"{name}_correlation": _correlation(a[chosen], b[chosen]) for name, (a, b) in pairs.items()},
            }
        )
    return rows


def volume(body: Body, shape: Float[Tensor, "n s"]) -> Float[Tensor, "n"]:
    """Volume of the body at rest, litres: the sum of signed tetrahedra between the origin and the triangles."""
    identity = torch.eye(3, device=shape.device).expand(len(shape), len(body.bones), 3, 3)
    with torch.no_grad():
        vertices = body(BodyParams(identity, shape, shape.new_zeros(len(shape), 3))).vertices
    a, b, c = (vertices[:, body.faces[:, corner]] for corner in range(3))
    return (a * torch.linalg.cross(b, c)).sum((1, 2)).abs() / 6 * 1000


def _correlation(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float | None:
    if len(a) < 3 or float(a.std()) < 1e-6 or float(b.std()) < 1e-6:
        return None
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def _band(confidence: float) -> str:
    """Name of the band; empty for a network without keypoints."""
    return next((name for name, low in reversed(BANDS.items()) if confidence >= low), "")


def _shape_table(rows: Sequence[dict[str, Any]]) -> Table:
    def header(name: str) -> str:
        return name.removesuffix("_mm").removesuffix("_correlation").replace("_", "\n")

    def cell(name: str, value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.{0 if name.endswith('mm') else 2}f}"
        return "-" if value is None else str(value)

    title = "body shape: stature in mm, then correlations with the truth"
    return text_table(title, [{header(name): cell(name, value) for name, value in row.items()} for row in rows])
