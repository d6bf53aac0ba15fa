"""What an evaluation found: means, tables, and the files that hold them."""

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
"""The metrics that the published code prints; their lines come first."""
MILLIMETRES = 1000
UNIT_NAMES = {"mm": "mm", "%": "percent", ACCELERATION.unit: "mm_per_squared_frame"}
"""Units as the names of columns in files have them."""


@dataclasses.dataclass(frozen=True)
class MeshErrors:
    """Errors of one kind of mesh, one row per sample, NaN where a sample has no truth.

    metrics: in the metrics' own printed units. distances: of each scored joint, mm.
    """

    metrics: Float[np.ndarray, "n m"]
    distances: Float[np.ndarray, "n j"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Errors of a network on one split of a data set.

    settings: what was evaluated and how, plain values. metrics: columns of the errors. joints: names of the scored
    joints. ids, pictures, groups: of each sample; group_name: what a group is (action, sequence). errors: by kind
    of mesh, `lixel` and `param`; empty where the data set has no truth.
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
        """How many samples have a truth."""
        return max((int(np.isfinite(errors.metrics[:, 0]).sum()) for errors in self.errors.values()), default=0)

    def mean(self, kind: str, metric: str, rows: Sequence[int] | None = None) -> float:
        """Mean of a metric (its key) over the samples of `rows`, all if None; NaN where none has a truth."""
        values = self._column(kind, metric)
        values = values if rows is None else values[list(rows)]
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")

    def worst(self, count: int) -> list[int]:
        """The samples with the largest error (first metric of the last mesh), the worst first; the first ones if
        there is no truth."""
        if not self.errors:
            return list(range(min(count, len(self))))
        values = list(self.errors.values())[-1].metrics[:, 0]
        order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
        return [int(row) for row in order[:count] if np.isfinite(values[row])]

    def members(self) -> dict[str, list[int]]:
        """The samples of each group, by name; empty if the data set has no groups."""
        found: dict[str, list[int]] = {}
        for row, group in enumerate(self.groups):
            found.setdefault(group, []).append(row)
        return {name: found[name] for name in sorted(found)} if set(found) != {""} else {}

    def lines(self) -> list[str]:
        """The means as printed: the published lines first, as the published code words them."""
        first = [m for m in self.metrics if m.key in PUBLISHED]
        rest = [m for m in self.metrics if m.key not in PUBLISHED]
        return [
            f"{metric.label} from {kind} mesh: {self.mean(kind, metric.key):.2f} {metric.unit}"
            for metrics in (first, rest)
            for kind in self.errors
            for metric in metrics
        ]

    def group_table(self) -> Table | None:
        """The published metrics of each group, and the acceleration, for the terminal; None if there are no groups."""
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
        """Settings, means, means by group and by joint, as plain values; None for a mean of nothing."""
        return {
            **self.settings,
            "samples": len(self),
            "samples_with_truth": self.scored,
            "units": {_column(m): m.unit for m in self.metrics},
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
        """Write `metrics.json`, `samples.csv` and, as far as there are any, `groups.csv` and `joints.csv`."""
        write_json(folder / "metrics.json", self.to_json())
        names = [(f"{kind}_{_column(m)}", kind, m.key) for kind in self.errors for m in self.metrics]
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
        return {_column(m): _plain(self.mean(kind, m.key, rows)) for m in self.metrics}


def _column(metric: Metric) -> str:
    """The name of a metric's values in files, with their unit."""
    return f"{metric.key}_{UNIT_NAMES[metric.unit]}"


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys as CSV, whole or not at all. None and NaN are left empty."""
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
    """A table for the terminal, of rows with the same headers. The first `names` columns are aligned to the left."""
    table = Table(title=title)
    for place, header in enumerate(rows[0]):
        table.add_column(header, justify="left" if place < names else "right")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    return table
