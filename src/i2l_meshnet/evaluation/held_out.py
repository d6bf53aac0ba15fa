"""`evaluate --data synthetic-pictures`: a network on held-out synthetic pictures, body shape included."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from i2l_meshnet.bodies.anny import stature
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.data.multiview import HIPS, JOINTS, KEYPOINT_ROWS
from i2l_meshnet.data.sources.synthetic import synthetic_source
from i2l_meshnet.evaluation import overlays
from i2l_meshnet.evaluation.clips import require_regressor
from i2l_meshnet.evaluation.metrics import root_relative
from i2l_meshnet.evaluation.protocols import MPJPE, MPVPE, PA_MPJPE, PA_MPVPE
from i2l_meshnet.evaluation.report import MILLIMETRES, Evaluation, MeshErrors, write_table
from i2l_meshnet.geometry.alignment import similarity_align
from i2l_meshnet.models.fitting import camera_params
from i2l_meshnet.models.output import LixelNetwork, LixelOutput
from i2l_meshnet.pictures import write_picture

NAME = "synthetic-pictures"
SPLIT = "val"
METRICS = (MPJPE, PA_MPJPE, MPVPE, PA_MPVPE)
BANDS = {"below 0.4": 0.0, "0.4 to 0.6": 0.4, "0.6 to 0.8": 0.6, "0.8 and above": 0.8}
"""Bands of the mean confidence of a person's keypoints, by their lower ends."""
ADULT = 0.62
"""Anny's age from which the sampler's people are adults."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a network says of all samples, and the truth.

    errors: by kind of mesh. confidence: mean of the keypoints', NaN without keypoints. found, true: shape values;
    `found` is None for a network without parameters.
    """

    errors: dict[str, MeshErrors]
    confidence: Float[Tensor, "n"]
    found: Float[Tensor, "n s"] | None
    true: Float[Tensor, "n s"]


def evaluate_pictures(
    network: LixelNetwork,
    body: Body,
    device: torch.device,
    batch_size: int,
    root: Path,
    out: Path,
    weights: str,
    samples: int | None = None,
    pictures: int = 8,
    console: Console | None = None,
) -> Iterator[str | Table]:
    """Scores a network on the held-out shards `val_*.npz` of the folder `root`; yields what to print, writes tables.

    samples: the first so many only. pictures: how many of the worst are drawn. Raises InputError for a body other than
    Anny, FileError for a folder without held-out shards.
    """
    rows = require_regressor(body, NAME)[list(KEYPOINT_ROWS)]
    source = synthetic_source(root, SPLIT)
    dataset = PersonDataset(source, crop_size=network.grid.crop_size)
    count = min(samples or len(dataset), len(dataset))
    answers = _answers(network, body, rows, dataset, count, device, batch_size, console)
    bands = [_band(value) for value in answers.confidence.tolist()]
    evaluation = Evaluation(
        settings={"data": NAME, "split": SPLIT, "weights": weights, "body": body.name},
        metrics=METRICS,
        joints=JOINTS,
        ids=tuple(int(number) for number in source.table.arrays["id"][:count]),
        pictures=tuple(source.table.image_path(index) for index in range(count)),
        groups=tuple(bands),
        group_name="confidence",
        errors=answers.errors,
    )
    shapes = [] if answers.found is None else shape_rows(body, answers.found, answers.true, bands)
    evaluation = dataclasses.replace(evaluation, settings={**evaluation.settings, "shape": shapes})
    evaluation.save(out)
    yield from evaluation.lines()
    table = evaluation.group_table()
    if table is not None:
        yield table
    if shapes:
        write_table(out / "shapes.csv", shapes)
        yield _shape_table(shapes)
    for place, row in enumerate(evaluation.worst(pictures), 1):
        _draw(network, body, rows, dataset, row, evaluation, device, out / f"worst_{place}.jpg")
    yield f"{count} held-out pictures; results in {out}"


def shape_rows(
    body: Body, found: Float[Tensor, "n s"], true: Float[Tensor, "n s"], bands: Sequence[str]
) -> list[dict[str, Any]]:
    """How well shape values are told: a row for all people, for adults, and for the adults of each band.

    stature_error_mm: mean absolute; stature_bias_mm: signed, positive too tall. The others are Pearson correlations
    of predicted and true values, None where either does not vary: of stature, of the volume of the body at rest, of
    each shape value.
    """
    tall, truly_tall = stature(body, found), stature(body, true)
    pairs = {"stature": (tall, truly_tall), "volume": (volume(body, found), volume(body, true))}
    pairs |= {name: (found[:, i], true[:, i]) for i, name in enumerate(body.shape_names)}
    adult = true[:, body.shape_names.index("age")] >= ADULT
    of_band = {
        f"adults, {band}": adult & torch.tensor([name == band for name in bands]) for band in BANDS if band in bands
    }
    rows = []
    for people, chosen in {"all": torch.ones_like(adult), "adults": adult, **of_band}.items():
        if not bool(chosen.any()):
            continue
        difference = (tall - truly_tall)[chosen] * MILLIMETRES
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
    """Volume of the body at rest, litres: the sum of the tetrahedra between the origin and the triangles."""
    identity = torch.eye(3).expand(len(shape), len(body.bones), 3, 3)
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


@torch.inference_mode()
def _answers(
    network: LixelNetwork,
    body: Body,
    rows: Float[Tensor, "12 v"],
    dataset: PersonDataset,
    count: int,
    device: torch.device,
    batch_size: int,
    console: Console | None,
) -> Answers:
    errors: dict[str, list[tuple[Tensor, Tensor]]] = {}
    confidence, found, true = [], [], []
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console is None or not console.is_terminal) as progress:
        for start in progress.track(range(0, count, batch_size)):
            sample = dataset.batch(range(start, min(start + batch_size, count))).to(device)
            output = network(sample.network_input())
            truth = _true_params(sample)
            vertices = _rooted(body(truth).vertices, rows)
            meshes, params = _meshes(network, body, output, sample)
            for kind, mesh in meshes.items():
                errors.setdefault(kind, []).append(_errors(_rooted(mesh, rows), vertices, rows))
            unknown = torch.full((len(vertices),), torch.nan)
            confidence.append(unknown if output.keypoints is None else output.keypoints[..., 2].mean(1).cpu())
            if params is not None:
                found.append(params.shape.cpu())
            true.append(truth.shape.cpu())
    joined = {
        kind: MeshErrors(*(torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True)))
        for kind, parts in errors.items()
    }
    return Answers(joined, torch.cat(confidence), torch.cat(found) if found else None, torch.cat(true))


def _true_params(sample: Sample) -> BodyParams:
    # The pictures' fits are in the camera's frame.
    fit = sample.annotation.fit
    return BodyParams(fit.camera_pose(), fit.shape, fit.translation)


def _meshes(
    network: LixelNetwork, body: Body, output: LixelOutput, sample: Sample
) -> tuple[dict[str, Float[Tensor, "b v 3"]], BodyParams | None]:
    """Meshes in the camera frame, metres: the lixel mesh at the true root's depth, the parametric one anywhere."""
    camera, depth = sample.annotation.camera, sample.annotation.root_depth
    meshes = {"lixel": network.grid.to_camera(output.vertices.float(), sample.crop, camera, depth)}
    if output.params is None:
        return meshes, None
    params = camera_params(network, output, sample.crop, camera)
    return {**meshes, "param": body(params).vertices}, params


def _rooted(vertices: Float[Tensor, "b v 3"], rows: Float[Tensor, "12 v"]) -> Float[Tensor, "b v 3"]:
    """Relative to the mean of the hips."""
    return root_relative(vertices, (rows[list(HIPS)].mean(0) @ vertices))


def _errors(
    found: Float[Tensor, "b v 3"], truth: Float[Tensor, "b v 3"], rows: Float[Tensor, "12 v"]
) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b 12"]]:
    """The metrics and the joints' distances, millimetres."""
    pairs = {"vertices": (found, truth), "joints": (rows @ found, rows @ truth)}
    values = []
    for metric in METRICS:
        predicted, true = pairs[metric.points]
        predicted = similarity_align(predicted, true) if metric.aligned else predicted
        values.append(metric.measure(predicted, true) * metric.factor)
    joints, true_joints = pairs["joints"]
    return torch.stack(values, -1), (joints - true_joints).norm(dim=-1) * MILLIMETRES


def _shape_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("people", "n", title="body shape: stature in mm, then correlations with the truth")
    names = [name for name in rows[0] if name not in ("people", "n")]
    for name in names:
        table.add_column(name.removesuffix("_mm").removesuffix("_correlation").replace("_", "\n"), justify="right")
    for row in rows:
        cells = ["-" if row[name] is None else f"{row[name]:.{0 if name.endswith('mm') else 2}f}" for name in names]
        table.add_row(row["people"], str(row["n"]), *cells)
    return table


@torch.inference_mode()
def _draw(
    network: LixelNetwork,
    body: Body,
    rows: Float[Tensor, "12 v"],
    dataset: PersonDataset,
    row: int,
    evaluation: Evaluation,
    device: torch.device,
    path: Path,
) -> None:
    """Draws a sample: the picture, each mesh, and the truth, with the hips where the truth's are."""
    sample = dataset.batch([row]).to(device)
    truth = body(_true_params(sample)).vertices
    hips = rows[list(HIPS)].mean(0) @ truth
    found, _ = _meshes(network, body, network(sample.network_input()), sample)
    meshes = {kind: _rooted(mesh, rows) + hips[:, None] for kind, mesh in found.items()}
    captions = {"": Path(evaluation.pictures[row]).stem, "truth": "truth"}
    for kind in meshes:
        captions[kind] = f"{kind}: MPJPE {evaluation.errors[kind].metrics[row, 0]:.0f} mm"
    annotation = sample.annotation[0].to("cpu")
    focal, center = annotation.camera.focal.tolist(), annotation.camera.center.tolist()
    picture = overlays.draw_sample(
        dataset.source.image_path(row),
        annotation.box.numpy(),
        {kind: mesh[0].cpu().numpy() for kind, mesh in {**meshes, "truth": truth}.items()},
        body.faces.cpu().numpy(),
        (focal[0], focal[1]),
        (center[0], center[1]),
        captions,
    )
    write_picture(path, picture)
