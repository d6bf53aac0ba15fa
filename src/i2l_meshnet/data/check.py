"""`data check`: list the files of a dataset, say where to get missing ones, and draw samples."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from rich.rule import Rule
from rich.table import Table
from tyro.conf import Positional

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.console import output
from i2l_meshnet.data.annotation import AnnotationTable
from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.data.sources import Adapter, Needed, Source, find_adapter, open_source
from i2l_meshnet.data.sources.base import PUBLISHED_CODE
from i2l_meshnet.data.targets import TargetBuilder
from i2l_meshnet.errors import FileError, InputError, UserError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.pictures import write_picture
from i2l_meshnet.rendering.shading import render_meshes
from i2l_meshnet.skeletons import LEFT, RIGHT

COLUMNS = 4
LEFT_COLOR, RIGHT_COLOR, MIDDLE_COLOR = (64, 156, 255), (255, 136, 48), (236, 236, 236)
MESH_COLOR = (0.55, 0.72, 0.9)
PLAUSIBLE_SIZES = (0.05, 3.0)
"""Range of the median size of the people or hands of a dataset, m. Millimetres instead of metres are outside it."""


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """What to check."""

    name: Positional[str]
    """The dataset: Human36M, MuCo, MSCOCO, PW3D, FreiHAND, SURREAL or Custom."""
    root: Path
    """Folder of the datasets (the published code's `data/`)."""
    split: str | None = None
    """The split to check. Default: all splits."""
    samples: int = 12
    """Number of samples to draw on the contact sheet of each split."""
    out: Path = Path()
    """Folder for the contact sheets."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files. Without them, only joints are drawn."""
    true_boxes: bool = False
    """Check the files for `evaluate --gt-root`, which uses ground-truth boxes instead of RootNet's."""


def run(options: CheckOptions) -> int:
    """Check the splits, print the findings and write the contact sheets. Returns 0 if no problem is found, else 1."""
    adapter = find_adapter(options.name)
    if options.split is not None:
        adapter.require_split(options.split)
    if options.samples < 1:
        raise InputError(f"at least 1 sample must be drawn, not {options.samples}", argument="samples")
    failed = False
    for split in adapter.splits if options.split is None else (options.split,):
        output(Rule(f"{options.name} {split}"))
        complete = _list_files(options, adapter, split)
        try:
            source = open_source(options.name, options.root, split, options.true_boxes)
            complete &= _describe(source)
            sheet = options.out / f"check-{options.name}-{split}.jpg"
            _write_sheet(source, options, sheet)
            output(f"samples drawn on {sheet}")
        except UserError as error:
            output(str(error), style="red")
            complete = False
        failed |= not complete
    return int(failed)


def _list_files(options: CheckOptions, adapter: Adapter, split: str) -> bool:
    """Print which of the needed files and folders exist. Returns whether all do."""
    table = Table("file", "state", "where to get it", box=None)
    wanted = [(adapter.name, needed) for needed in adapter.needs(split, options.true_boxes)]
    if adapter.joint_regressor is not None:
        wanted.append(("", Needed(adapter.joint_regressor, f"{PUBLISHED_CODE}, folder data/")))
    complete = True
    for folder, needed in wanted:
        path = needed.existing(options.root / folder)
        alternative = f" (or {needed.instead})" if path is None and needed.instead else ""
        state = "[green]there[/green]" if path else "[red]missing[/red]"
        complete &= path is not None
        table.add_row(f"{Path(folder, path or needed.path)}{alternative}", state, "" if path else needed.origin)
    output(table)
    return complete


def _describe(source: Source) -> bool:
    """Print counts. Returns whether all images exist and the sizes of people are plausible."""
    table = source.table
    known = int(table.arrays["fit_known"].sum())
    output(f"{len(source)} people, {known} with a fitted body, {len(table.skeleton)} joints each")
    if table.left_out:
        output("left out: " + ", ".join(f"{count} {reason}" for reason, count in table.left_out.items()))
    groups = [group for group in table.groups if group]
    if groups:
        output(f"{len(groups)} actions or sequences")
    pictures = {table.image_path(index) for index in range(len(table))}
    gone = sorted(path for path in pictures if not (source.folder / path).is_file())
    if gone:
        example = source.folder / gone[0]
        output(f"{len(gone)} of {len(pictures)} pictures are missing, such as {example}", style="red")
    else:
        output(f"all {len(pictures)} pictures are there")
    size = _median_size(table)
    plausible = size is None or PLAUSIBLE_SIZES[0] <= size <= PLAUSIBLE_SIZES[1]
    if not plausible:
        output(f"the median person is {size:.3g} m large: are the 3D joints in metres?", style="red")
    return not gone and plausible


def _median_size(table: AnnotationTable) -> float | None:
    """Median over people of the largest extent of their labelled 3D joints along an axis, m; None without 3D joints."""
    joints, labelled = table.arrays["joints_camera"], table.arrays["visible"] & table.arrays["has_depth"][:, None]
    known = labelled.sum(1) > 1
    if not known.any():
        return None
    chosen = np.where(labelled[known][..., None], joints[known], np.nan)
    return float(np.median((np.nanmax(chosen, 1) - np.nanmin(chosen, 1)).max(1)))


def _write_sheet(source: Source, options: CheckOptions, path: Path) -> None:
    """Draw evenly spread samples: for each, the crop with the joints, and beside it the crop with the fitted body.

    Samples without an image are skipped. Raises FileError if no image exists.
    """
    present = [index for index in range(len(source)) if source.image_path(index).is_file()]
    if not present:
        raise FileError(f"no sample can be drawn: none of the pictures is in {source.folder}")
    bodies = _bodies(source, options)
    dataset = PersonDataset(source)
    chosen = np.linspace(0, len(present) - 1, min(options.samples, len(present))).round().astype(int)
    cells = [_cell(dataset, present[number], bodies) for number in chosen]
    columns = min(COLUMNS, len(cells))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    write_picture(path, np.vstack(rows))


def _bodies(source: Source, options: CheckOptions) -> list[Body]:
    """The bodies of the source's fits; empty without fits or without the body files."""
    if not source.table.arrays["fit_known"].any():
        return []
    try:
        return [load_body(name, options.body_dir) for name in source.table.bodies]
    except UserError as error:
        output(f"the fitted bodies are not drawn: {error}", style="yellow")
        return []


def _cell(dataset: PersonDataset, index: int, bodies: list[Body]) -> UInt8[np.ndarray, "h w 3"]:
    """One sample: the crop with the joints and, if there are bodies, beside it the crop with the fitted body."""
    batch = dataset.batch([index])
    crop = np.ascontiguousarray(batch.image[0].permute(1, 2, 0).numpy())
    annotation = batch.annotation
    joints = crop.copy()
    points = batch.crop.to_crop(annotation.joints_image)[0].numpy()
    visible = annotation.visible[0].numpy()
    names = dataset.skeleton.joints
    for start, end in dataset.skeleton.bone_indices:
        if visible[start] and visible[end]:
            cv2.line(joints, _pixel(points[start]), _pixel(points[end]), _color(names[end]), 2, cv2.LINE_AA)
    for name, point, shown in zip(names, points, visible, strict=True):
        if shown:
            cv2.circle(joints, _pixel(point), 3, _color(name), -1, cv2.LINE_AA)
    label = f"{int(annotation.id[0])}"
    cv2.putText(joints, label, (6, crop.shape[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    if not bodies:
        return joints
    mesh = _with_mesh(batch, crop, bodies, dataset) if bool(annotation.fit.known[0]) else crop
    return np.hstack([joints, mesh])


def _with_mesh(
    batch: Sample, crop: UInt8[np.ndarray, "h w 3"], bodies: list[Body], dataset: PersonDataset
) -> UInt8[np.ndarray, "h w 3"]:
    """The crop with the fitted body of its person."""
    _, vertices, _ = TargetBuilder(bodies, LixelGrid(), dataset.skeleton).meshes(batch)
    scale, shift = torch.diagonal(batch.crop.affine[0, :, :2]), batch.crop.affine[0, :, 2]
    camera = batch.annotation.camera
    focal = (scale * camera.focal[0]).tolist()
    center = (scale * camera.center[0] + shift).tolist()
    solid = vertices[0].numpy()
    picture, cover = render_meshes(
        solid,
        bodies[0].faces.cpu().numpy(),
        (focal[0], focal[1]),
        (center[0], center[1]),
        crop.shape[:2],
        np.full(solid.shape, MESH_COLOR, np.float32),
    )
    mixed = crop * (1 - 0.8 * cover[..., None]) + 0.8 * 255 * picture
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _pixel(point: np.ndarray) -> tuple[int, int]:
    """The nearest pixel, limited to coordinates that OpenCV can draw."""
    x, y = (round(min(max(float(value), -1e4), 1e4)) for value in point)
    return x, y


def _color(joint: str) -> tuple[int, int, int]:
    """Colour of the joint's side."""
    return LEFT_COLOR if joint.startswith(LEFT) else RIGHT_COLOR if joint.startswith(RIGHT) else MIDDLE_COLOR
