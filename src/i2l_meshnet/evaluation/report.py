"""What an evaluation found: means, tables, and the files that hold them."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.markup import escape
from rich.table import Table

from i2l_meshnet.evaluation.protocols import ACCELERATION, MPJPE, PA_MPJPE, Metric
from i2l_meshnet.io import atomic_path

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
        table = Table(self.group_name, "samples", title=f"errors by {self.group_name}, mm")
        shown = (*PUBLISHED, ACCELERATION.key)
        columns = [(kind, m) for kind in self.errors for m in self.metrics if m.key in shown]
        for kind, metric in columns:
            unit = "" if metric.unit == "mm" else f", {metric.unit}"
            table.add_column(f"{metric.label}{unit}\n{kind}", justify="right")
        for name, rows in members.items():
            values = (f"{self.mean(kind, metric.key, rows):.1f}" for kind, metric in columns)
            table.add_row(escape(name), str(len(rows)), *values)
        return table

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

    def save(self, folder: Path) -> list[Path]:
        """Writes `metrics.json`, `samples.csv` and, as far as there are any, `groups.csv` and `joints.csv`."""
        paths = [folder / "metrics.json", folder / "samples.csv"]
        with atomic_path(paths[0]) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        names = [f"{kind}_{_column(m)}" for kind in self.errors for m in self.metrics]
        _write_csv(
            paths[1],
            ["id", "picture", self.group_name, *names],
            ([self.ids[row], self.pictures[row], self.groups[row], *self._cells(row)] for row in range(len(self))),
        )
        if self.errors and self.members():
            paths.append(folder / "groups.csv")
            means = (
                [name, len(rows), *(_cell(self.mean(k, m.key, rows)) for k in self.errors for m in self.metrics)]
                for name, rows in self.members().items()
            )
            _write_csv(paths[-1], [self.group_name, "samples", *names], means)
        if self.errors:
            paths.append(folder / "joints.csv")
            joints = zip(self.joints, *(map(_cell, self.joint_means(kind)) for kind in self.errors), strict=True)
            _write_csv(paths[-1], ["joint", *(f"{kind}_mm" for kind in self.errors)], joints)
        return paths

    def _column(self, kind: str, metric: str) -> np.ndarray:
        return self.errors[kind].metrics[:, [m.key for m in self.metrics].index(metric)]

    def _means(self, kind: str, rows: Sequence[int] | None = None) -> dict[str, float | None]:
        return {_column(m): _plain(self.mean(kind, m.key, rows)) for m in self.metrics}

    def _cells(self, row: int) -> list[str]:
        return [_cell(value) for errors in self.errors.values() for value in errors.metrics[row]]


def _column(metric: Metric) -> str:
    """The name of a metric's values in files, with their unit."""
    return f"{metric.key}_{UNIT_NAMES[metric.unit]}"


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows of the same keys as CSV, whole or not at all; None and NaN are left empty."""
    cells = ([_cell(v) if isinstance(v, float) else "" if v is None else v for v in row.values()] for row in rows)
    _write_csv(path, list(rows[0]), cells)


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cell(value: float) -> str:
    """Empty for a sample without truth."""
    return f"{value:.4f}" if np.isfinite(value) else ""


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
