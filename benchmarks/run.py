"""Measure this machine's speed, each row beside what it is compared with: `python benchmarks/run.py`."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

# As `i2l-meshnet` does before PyTorch is loaded: waiting threads sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import tyro
from rich.console import Console
from rich.table import Table

import machine
from i2l_meshnet.devices import choose_device
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.io import atomic_path
from i2l_meshnet.precision import DTYPES, supported_precisions
from timing import COLUMNS, Row, markdown_table

Group = Literal[
    "procrustes",
    "body",
    "render",
    "published",
    "default",
    "runtimes",
    "parts",
    "memory",
    "cold",
    "training",
    "loader",
    "evaluation",
    "predict",
]
START, END = "<!-- bench -->", "<!-- /bench -->"


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Measure this machine: this package against the published formulation, interleaved."""

    only: tuple[Group, ...] = get_args(Group)
    """What to measure: alignment, body layer, rendering, the published network, the default network, both in other
    runtimes (extra openvino), the rewritten parts, memory, first results, training step, loader, evaluation, and
    `predict`. Quick groups run first. Each row is printed as soon as it is measured."""
    quick: bool = False
    """Few rounds and small batches: some minutes instead of many."""
    weights: Path | None = None
    """Checkpoint or snapshot of a published network. Default: random weights."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for --weights."""
    photo: Path | None = None
    """Photo of people for `predict`. Default: a synthetic image, used as one person."""
    photos: int = 100
    """Copies of the photo for `predict` (8 with --quick)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the networks."""
    flush: bool = False
    """Flush subnormal numbers (below 1e-38) to zero. PyTorch does not by default, and the published volumes are full of
    them, which makes some processors many times slower."""
    threads: int | None = None
    """Threads of PyTorch. Default: PyTorch's own choice."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu: count the processor time of this process, for a machine with other load. Use it with --threads 1."""
    markdown: bool = False
    """Print the table as Markdown."""
    update: Path | None = None
    """Markdown file in which the table replaces the part between <!-- bench --> and <!-- /bench -->."""

    def __post_init__(self) -> None:
        if self.photos < 1 or (self.threads is not None and self.threads < 1):
            raise InputError("--photos and --threads must be at least 1")
        for path in filter(None, (self.update, self.photo)):
            if not path.is_file():
                raise InputError(f"{path} does not exist")


def run(options: BenchOptions) -> int:
    """Measure, print and write; return the exit code 0. Raise UserError for what cannot be measured."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.flush:
        # PyTorch's threads inherit this, so it is set before they start.
        torch.set_flush_denormal(True)
    device = choose_device(options.device)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    before = _load()
    peaks = ", ".join(
        f"{precision} {machine.matmul_peak(device, kind, clock):,.0f} GFLOP/s"
        for precision, kind in DTYPES.items()
        if precision in supported_precisions(device)
    )
    rows: list[Row] = []
    for group, measure in _measures(options, device, clock).items():
        if group in options.only:
            for row in measure():
                print(" | ".join(row.cells()), file=sys.stderr, flush=True)
                rows.append(row)
    facts = (
        machine.describe(device),
        f"clock: {options.clock}; load {before} to {_load()}; matrix products reach {peaks}",
    )
    _print(facts, rows, options.markdown)
    if options.update is not None:
        _update(options.update, "\n\n".join(facts) + "\n\n" + markdown_table(rows))
    return 0


def _update(file: Path, text: str) -> None:
    """Replace the part of a Markdown file between the two marks. Raise InputError if it has no such part."""
    before, found, rest = file.read_text(encoding="utf-8").partition(START)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise InputError(f"{file} has no part between {START} and {END}")
    with atomic_path(file) as path:
        path.write_text(f"{before}{START}\n\n{text}\n{END}{after}", encoding="utf-8")


def _measures(
    options: BenchOptions, device: torch.device, clock: Callable[[], float]
) -> dict[str, Callable[[], Iterable[Row]]]:
    """The function that makes the rows of each group."""
    import measures  # imports everything that is measured, which takes seconds

    large = (8,) if options.quick else (8, 32) if device.type == "cpu" else (64, 256)
    bench = measures.Bench(device, 3 if options.quick else 9, 5.0 if options.quick else 20.0, clock, (1, *large))
    photos = min(options.photos, 8) if options.quick else options.photos
    return {
        "procrustes": lambda: measures.procrustes(bench),
        "body": lambda: measures.body_layer(bench),
        "render": lambda: measures.rendering(bench),
        "published": lambda: measures.published_network(bench, options.weights, options.body_dir),
        "default": lambda: measures.default_network(bench),
        "runtimes": lambda: measures.runtimes(bench, options.weights, options.body_dir),
        "parts": lambda: measures.parts(bench),
        "memory": lambda: measures.pass_memory(bench),
        "cold": lambda: measures.cold_start(options.photo),
        "training": lambda: measures.training_step(bench, 4 if options.quick else 16),
        "loader": lambda: measures.loader(bench, 16 if options.quick else 48),
        "evaluation": lambda: measures.evaluation(bench),
        "predict": lambda: measures.whole_path(bench, options.photo, photos),
    }


def _print(facts: Sequence[str], rows: Sequence[Row], markdown: bool) -> None:
    console = Console(highlight=False)
    for line in facts:
        console.print(line, markup=False, soft_wrap=True)
    if markdown:
        print("", markdown_table(rows), sep="\n", end="")
        return
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


def _load() -> str:
    """The system's load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit code. Errors that the user can fix are printed as one line."""
    try:
        return run(tyro.cli(BenchOptions, prog="benchmarks/run.py", args=arguments))
    except UserError as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
