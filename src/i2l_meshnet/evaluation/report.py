"""The results of an evaluation: means, tables and files."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.markup import escape
from rich.table import Table

from i2l_meshnet.evaluation.protocols import ACCELERATION, MPJPE, PA_MPJPE, Metric
from i2l_meshnet.io import write_bytes

PUBLISHED = (MPJPE.key, PA_MPJPE.key)
"""The metrics of the published code, which are printed first."""
MILLIMETRES = 1000
UNIT_NAMES = {"mm": "mm", "%": "percent", ACCELERATION.unit: "mm_per_squared_frame"}
"""Units in the names of columns."""


@dataclasses.dataclass(frozen=True)
class MeshErrors:
    """Errors of one kind of mesh, one row per sample, NaN for samples without ground truth.

    metrics: in printed units. distances: of each scored joint, mm.
    """

    metrics: Float[np.ndarray, "n m"]
    distances: Float[np.ndarray, "n j"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Errors of a network on one split of a dataset.

    settings: plain values, written to `metrics.json`. metrics: columns of the errors. joints: names of the scored
    joints. ids, pictures, groups: one entry per sample. group_name: the name of a group, such as "action". errors: by
    kind of mesh, `lixel` and `param`; empty if the dataset has no ground truth.
    """

    settings: dict[str, Any]
    metrics: tuple[Metric, ...]
    joints: tuple[str, ...]
    ids: tuple[int, ...]
    pictures: tuple[str, ...]
    groups: tuple[str, ...]
    group_name: str
    errors: dict[str, MeshErrors]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def scored(self) -> int:
        """Number of samples with ground truth."""
        return max((int(np.isfinite(errors.metrics[:, 0]).sum()) for errors in self.errors.values()), default=0)

    def mean(self, kind: str, metric: str, rows: Sequence[int] | None = None) -> float:
        """Mean of a metric (by key) over the samples `rows`, by default all; NaN without ground truth."""
        values = self._column(kind, metric)
        values = values if rows is None else values[list(rows)]
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")

    def worst(self, count: int) -> list[int]:
        """The samples with the largest error (first metric of the last mesh), in descending order.

        Without ground truth, the first samples.
        """
        if not self.errors:
            return list(range(min(count, len(self))))
        values = list(self.errors.values())[-1].metrics[:, 0]
        order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
        return [int(row) for row in order[:count] if np.isfinite(values[row])]

    def members(self) -> dict[str, list[int]]:
        """The samples of each group, by name; empty if the dataset has no groups."""
        found: dict[str, list[int]] = {}
        for row, group in enumerate(self.groups):
            found.setdefault(group, []).append(row)
        return {name: found[name] for name in sorted(found)} if set(found) != {""} else {}

    def lines(self) -> list[str]:
        """The printed means: first the lines of the published code, in its wording."""
        first = [m for m in self.metrics if m.key in PUBLISHED]
        rest = [m for m in self.metrics if m.key not in PUBLISHED]
        return [
            f"{metric.label} from {kind} mesh: {self.mean(kind, metric.key):.2f} {metric.unit}"
            for metrics in (first, rest)
            for kind in self.errors
            for metric in metrics
        ]

    def group_table(self) -> Table | None:
        """The published metrics and the acceleration by group, for the terminal; None without groups."""
        members = self.members()
        if not members or not self.errors:
            return None
        shown = (*PUBLISHED, ACCELERATION.key)
        columns = {
            f"{m.label}{'' if m.unit == 'mm' else f', {m.unit}'}\n{kind}": (kind, m.key)
            for kind in self.errors
            for m in self.metrics
            if m.key in shown
        }
        rows = [
            {self.group_name: name, "samples": str(len(rows))}
            | {header: f"{self.mean(kind, key, rows):.1f}" for header, (kind, key) in columns.items()}
            for name, rows in members.items()
        ]
        return text_table(f"errors by {self.group_name}, mm", rows)

    def to_json(self) -> dict[str, Any]:
        """Settings, means, means by group and by joint, as plain values; None for a mean without samples."""
        return {
            **self.settings,
            "samples": len(self),
            "samples_with_truth": self.scored,
            "units": {column_name(m): m.unit for m in self.metrics},
            "metrics": {kind: self._means(kind) for kind in self.errors},
            "groups": {
                name: {"samples": len(rows), **{kind: self._means(kind, rows) for kind in self.errors}}
                for name, rows in self.members().items()
            },
            "joints_mm": {
                kind: dict(zip(self.joints, map(_plain, self.joint_means(kind)), strict=True)) for kind in self.errors
            },
        }

    def joint_means(self, kind: str) -> list[float]:
        """Mean distance of each scored joint, mm."""
        distances = self.errors[kind].distances
        known = distances[np.isfinite(distances[:, 0])]
        return [float(value) for value in known.mean(0)] if len(known) else [float("nan")] * len(self.joints)

    def save(self, folder: Path) -> None:
        """Write `metrics.json`, `samples.csv` and, with ground truth, `groups.csv` (by group) and `joints.csv`."""
        write_json(folder / "metrics.json", self.to_json())
        names = [(f"{kind}_{column_name(m)}", kind, m.key) for kind in self.errors for m in self.metrics]
        values = {name: self._column(kind, key) for name, kind, key in names}
        samples = [
            {"id": self.ids[row], "picture": self.pictures[row], self.group_name: self.groups[row]}
            | {name: float(column[row]) for name, column in values.items()}
            for row in range(len(self))
        ]
        write_table(folder / "samples.csv", samples)
        if not self.errors:
            return
        if members := self.members():
            groups = [
                {self.group_name: group, "samples": len(rows)}
                | {name: self.mean(kind, key, rows) for name, kind, key in names}
                for group, rows in members.items()
            ]
            write_table(folder / "groups.csv", groups)
        means = {f"{kind}_mm": self.joint_means(kind) for kind in self.errors}
        joints = [
            {"joint": joint} | {name: mean[i] for name, mean in means.items()} for i, joint in enumerate(self.joints)
        ]
        write_table(folder / "joints.csv", joints)

    def _column(self, kind: str, metric: str) -> np.ndarray:
        return self.errors[kind].metrics[:, [m.key for m in self.metrics].index(metric)]

    def _means(self, kind: str, rows: Sequence[int] | None = None) -> dict[str, float | None]:
        return {column_name(m): _plain(self.mean(kind, m.key, rows)) for m in self.metrics}


def column_name(metric: Metric) -> str:
    """The name of a metric in files, with its unit."""
    return f"{metric.key}_{UNIT_NAMES[metric.unit]}"


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values, completely or not at all."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys as CSV, completely or not at all. None and NaN are empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(map(_cell, row.values()) for row in rows)
    write_bytes(path, text.getvalue().encode())


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4f}" if math.isfinite(value) else ""
    return "" if value is None else value


def text_table(title: str, rows: Sequence[Mapping[str, str]], names: int = 2) -> Table:
    """A table for the terminal, from rows with the same keys. The first `names` columns are left-aligned."""
    table = Table(title=title)
    for column, header in enumerate(rows[0]):
        table.add_column(header, justify="left" if column < names else "right")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    return table
