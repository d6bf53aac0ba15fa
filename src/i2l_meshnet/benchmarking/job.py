"""The `bench` command: this machine's speed, each row beside what it is measured against."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from rich.table import Table

from i2l_meshnet.benchmarking import machine, measures
from i2l_meshnet.benchmarking.rows import COLUMNS, Row
from i2l_meshnet.errors import InputError
from i2l_meshnet.files import atomic_path
from i2l_meshnet.models.loading import choose_device

Group = Literal["published", "default", "runtimes", "memory", "cold", "body", "procrustes", "render", "predict"]
KINDS = (torch.float32, torch.bfloat16)
"""Of the matrix products that tell what the machine can do at most."""


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Measure this machine: ours against the published formulation, by turns."""

    only: tuple[Group, ...] = get_args(Group)
    """What to measure: the published network, the default one, both by other runtimes (extra openvino), memory, first
    results, body layer, alignment, rasteriser, the whole of predict."""
    quick: bool = False
    """Few turns and small batches: some minutes in place of many."""
    weights: Path | None = None
    """Checkpoint or snapshot of a published network to measure; made-up weights if not given."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for --weights."""
    photo: Path | None = None
    """Photo of people for `predict`; a made-up picture, taken as one person, if not given."""
    photos: int = 100
    """Copies of the photo for `predict` (8 with --quick)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""
    threads: int | None = None
    """Threads of PyTorch; as many as it likes if not given."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu: count this process's processor time, on a machine that has other work; take it with --threads 1."""
    json: Path | None = None
    """Write the rows to this file too."""
    markdown: bool = False
    """Print the table as Markdown."""

    def __post_init__(self) -> None:
        if self.photos < 1 or (self.threads is not None and self.threads < 1):
            raise InputError("--photos and --threads are at least 1")
        if self.photo is not None and not self.photo.is_file():
            raise InputError(f"there is no photo {self.photo}")


def run(options: BenchOptions) -> int:
    """Measures, prints and writes; returns the exit code 0. Raises UserError for what cannot be measured."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    before = _load()
    peaks = {str(kind).removeprefix("torch."): round(machine.matmul_peak(device, kind, clock)) for kind in KINDS}
    rows: list[Row] = []
    for group, measure in _measures(options, device, clock).items():
        if group in options.only:
            print(f"measuring: {group}", file=sys.stderr, flush=True)
            rows += measure()
    facts = {
        "machine": machine.describe(device),
        "load_before_and_after": [before, _load()],
        "clock": options.clock,
        "matmul_peak_gflops": peaks,
    }
    _print(facts, rows, options.markdown)
    if options.json is not None:
        content = {**facts, "rows": [dataclasses.asdict(row) for row in rows]}
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(content, indent=1))
    return 0


def _measures(
    options: BenchOptions, device: torch.device, clock: Callable[[], float]
) -> dict[str, Callable[[], Iterable[Row]]]:
    """What makes each group's rows."""
    large = (8,) if options.quick else (8, 32) if device.type == "cpu" else (64, 256)
    bench = measures.Bench(device, 3 if options.quick else 9, 10.0 if options.quick else 60.0, clock, (1, *large))
    photos = min(options.photos, 8) if options.quick else options.photos
    return {
        "published": lambda: measures.published_network(bench, options.weights, options.body_dir),
        "default": lambda: measures.default_network(bench),
        "runtimes": lambda: measures.runtimes(bench, options.weights, options.body_dir),
        "memory": lambda: measures.pass_memory(bench),
        "cold": lambda: measures.cold_start(options.photo),
        "body": lambda: measures.body_layer(bench),
        "procrustes": lambda: measures.procrustes(bench),
        "render": lambda: measures.rendering(bench),
        "predict": lambda: measures.whole_path(bench, options.photo, photos),
    }


def _print(facts: dict[str, Any], rows: Sequence[Row], markdown: bool) -> None:
    console = Console(highlight=False)
    peaks = ", ".join(f"{kind} {value:,} GFLOP/s" for kind, value in facts["matmul_peak_gflops"].items())
    loads = " to ".join("unknown" if load is None else f"{load:.1f}" for load in facts["load_before_and_after"])
    for line in (facts["machine"], f"clock: {facts['clock']}; load {loads}; matrix products reach {peaks}"):
        console.print(line, markup=False, soft_wrap=True)
    if markdown:
        lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
        print("", *(f"| {' | '.join(cells)} |" for cells in lines), sep="\n")
        return
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


def _load() -> float | None:
    """Processes that wanted to run in the last minute, where the system counts them."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
